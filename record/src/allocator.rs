//! What the C library's allocator does with memory that is freed.

/// Has the C library's allocator keep some freed memory for the program, about so many bytes a thread.
///
/// glibc gives memory back to the system as soon as 128 KiB of it are free at the end of a heap, and
/// takes it again page by page, until it has once seen a large allocation freed: then it keeps twice as
/// much as that was (mallopt(3), `M_TRIM_THRESHOLD`, up to 64 MiB). This frees one that nobody has
/// touched; if there is no address space for that, all stays as it was. Other allocators do as they
/// like.
pub fn let_allocator_keep(bytes: usize) {
    let mut untouched: Vec<u8> = Vec::new();
    let _ = untouched.try_reserve_exact(bytes / 2);
    drop(std::hint::black_box(untouched));
}
