use super::*;

fn pool(limit: usize) -> BufferPool {
    BufferPool::new(Budget::new(limit), 4096)
}

#[test]
fn classes_are_aligned_and_waste_at_most_a_quarter() {
    for bytes in [1, 4095, 4096, 4097, 30_000, 32_769, 1 << 20, (1 << 20) + 64] {
        let class = size_class(bytes, 4096);
        assert!(class >= bytes && class.is_multiple_of(4096));
        assert!(class <= bytes + bytes / 4 + 4096, "{bytes} became {class}");
        assert_eq!(size_class(class, 4096), class, "a class is its own class");
    }
}

#[test]
fn memory_is_charged_while_a_handle_lives() {
    let pool = pool(64 << 10);
    let mut writer = pool.get(10_000).expect("the budget is empty");
    assert_eq!(pool.budget().used(), 12_288);
    writer.extend_from_slice(b"abc");
    let part = writer.freeze().slice(1..2);
    assert_eq!(pool.budget().used(), 12_288, "a slice keeps its block");
    assert_eq!(part.pinned_bytes(), 12_288);
    let bytes: Bytes = part.into();
    assert_eq!(&bytes[..], b"b");
    assert_eq!(pool.budget().used(), 12_288);
    drop(bytes);
    assert_eq!(pool.budget().used(), 0);
}

#[test]
fn an_exhausted_budget_is_an_error_with_its_numbers() {
    let pool = pool(16 << 10);
    let held = pool.get(12 << 10).expect("the budget is empty");
    let refused = pool.get(5000).expect_err("8 KiB do not fit beside 12");
    assert_eq!(
        refused,
        BudgetExhausted {
            wanted: 8 << 10,
            used: 12 << 10,
            limit: 16 << 10
        }
    );
    assert!(pool.get(4096).is_ok(), "exactly up to the limit");
    drop(held);
    assert!(pool.get(16 << 10).is_ok());
    assert_eq!(pool.budget().used(), 0);
}

#[test]
fn absurd_sizes_are_refused() {
    let pool = pool(usize::MAX);
    assert!(pool.get(BUFFER_BYTES_MAX + 1).is_err());
    assert!(pool.get(usize::MAX).is_err());
    assert!(pool.get_with_headroom(usize::MAX, usize::MAX).is_err());
    assert_eq!(pool.budget().used(), 0);
}

#[test]
fn memory_is_recycled_within_the_idle_share() {
    let pool = pool(64 << 10);
    let first = pool.get(8192).expect("fits");
    let address = first.block.at(0);
    drop(first);
    assert_eq!(pool.budget().idle(), 8192);
    let again = pool.get(8192).expect("fits");
    assert_eq!(again.block.at(0), address);
    assert_eq!(pool.budget().idle(), 0);
    let five: Vec<_> = (0..5).map(|_| pool.get(8192).expect("fits")).collect();
    drop((again, five));
    assert_eq!(pool.budget().idle(), 32 << 10, "half of the limit");
    let large = pool.get(48 << 10).expect("fits");
    assert_eq!(pool.budget().idle(), 16 << 10, "both within the limit");
    let recycled = pool.get(8192).expect("fits");
    drop(recycled);
    assert_eq!(pool.budget().idle(), 16 << 10);
    drop(large);
    assert_eq!(pool.budget().idle(), 16 << 10, "too large for what is left");
    let budget = pool.budget().clone();
    drop(pool);
    assert_eq!(budget.idle(), 0, "a pool's idle memory dies with it");
}

#[test]
fn what_is_shared_stands_while_the_writer_goes_on() {
    let pool = pool(64 << 10);
    let mut writer = pool.get(4096).expect("fits");
    writer.put_zeros(8);
    writer.extend_from_slice(b"first");
    let first = writer.share(8..13);
    writer.put_zeros(8);
    writer.extend_from_slice(b"second");
    let second = writer.share(21..27);
    writer.write_at(0, &[1; 8]);
    writer.write_at(13, &[2; 8]);
    assert_eq!((&first[..], &second[..]), (&b"first"[..], &b"second"[..]));
    let all = writer.share(0..27);
    assert_eq!(
        &all[6..22],
        b"\x01\x01first\x02\x02\x02\x02\x02\x02\x02\x02s"
    );
    assert_eq!(writer.frozen.ranges.len(), 1, "filled gaps join the ranges");
}

#[test]
fn another_thread_reads_while_the_writer_writes() {
    let mut writer = BufferMut::unpooled(4096, 4096);
    writer.put_zeros(64);
    writer.extend_from_slice(&[9; 64]);
    let body = writer.share(64..128);
    let reader = std::thread::scope(|scope| {
        let reader = scope.spawn(move || body.iter().map(|&byte| u32::from(byte)).sum::<u32>());
        writer.write_at(0, &[1; 64]);
        writer.extend_from_slice(&[2; 64]);
        reader.join().expect("summing does not panic")
    });
    assert_eq!(reader, 9 * 64);
}

#[test]
#[should_panic(expected = "written after they were shared")]
fn a_frozen_byte_is_never_written_again() {
    let mut writer = BufferMut::unpooled(100, 1);
    writer.put_zeros(10);
    let _shared = writer.share(4..6);
    writer.write_at(5, &[1]);
}

#[test]
#[should_panic(expected = "not within the 10 bytes written")]
fn what_was_never_written_cannot_be_shared() {
    let mut writer = BufferMut::unpooled(100, 1);
    writer.put_zeros(10);
    let _shared = writer.share(4..11);
}

#[test]
fn a_dropped_share_stays_frozen() {
    let mut writer = BufferMut::unpooled(100, 1);
    writer.put_zeros(10);
    drop(writer.share(0..5));
    assert_eq!(writer.unshared_mut(5..10).len(), 5);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        writer.write_at(0, &[1]);
    }));
    assert!(outcome.is_err());
}

#[test]
fn headroom_takes_headers_in_front() {
    let pool = pool(64 << 10);
    let mut writer = pool.get_with_headroom(64, 100).expect("fits");
    writer.extend_from_slice(b"body");
    let body = writer.share(0..4);
    writer.prepend(b"header ");
    writer.prepend(b"the ");
    assert_eq!(writer.headroom(), 64 - 11);
    assert_eq!(writer.as_slice(), b"body");
    assert_eq!(&writer.freeze()[..], b"the header body");
    assert_eq!(&body[..], b"body");
}

#[test]
fn spare_room_is_read_into_and_advanced() {
    let mut writer = BufferMut::unpooled(4096, 4096);
    writer.spare_mut()[..3].copy_from_slice(b"abc");
    assert!(writer.is_empty());
    writer.advance(3);
    assert_eq!(writer.as_slice(), b"abc");
    assert_eq!(writer.remaining(), 4093);
}

#[test]
fn slices_of_every_kind_agree_with_a_slice() {
    let plain: Vec<u8> = (0..=255).collect();
    for buffer in [
        Buffer::from(plain.clone()),
        Buffer::aligned_copy(&plain, 4096),
        Buffer::from_owner(plain.clone()),
    ] {
        assert_eq!(&buffer.slice(..)[..], &plain[..]);
        assert_eq!(&buffer.slice(10..20).slice(5..)[..], &plain[15..20]);
        assert_eq!(&buffer.slice(3..=3)[..], &plain[3..=3]);
        assert!(buffer.slice(256..).is_empty());
        assert!(std::panic::catch_unwind(|| buffer.slice(..257)).is_err());
        assert_eq!(Bytes::from(buffer.clone()), plain);
    }
    assert!(Buffer::aligned_copy(&plain, 4096).is_aligned(4096));
    assert!(!Buffer::aligned_copy(&plain, 4096).slice(1..).is_aligned(2));
}

/// The frozen set against a naive model, byte by byte.
#[test]
fn frozen_ranges_agree_with_a_model() {
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let mut frozen = Frozen::default();
        let mut model = [false; 64];
        for _ in 0..12 {
            let (a, b) = (rng.usize(..=64), rng.usize(..=64));
            let range = a.min(b)..a.max(b);
            assert_eq!(
                frozen.overlaps(&range),
                model[range.clone()].contains(&true),
                "{range:?} in {:?}",
                frozen.ranges
            );
            frozen.insert(range.clone());
            model[range].fill(true);
        }
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
    bytes
}

#[test]
fn what_is_summed_while_it_is_written_sums_as_if_it_were_read() {
    let bytes = noise(5 * PIECE_BYTES + 777);
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..20 {
        let mut writer = BufferMut::unpooled(bytes.len(), 4096);
        while writer.len() < bytes.len() {
            let more = rng.usize(1..100_000).min(bytes.len() - writer.len());
            let at = writer.len();
            writer.extend_from_slice(&bytes[at..at + more]);
            writer.sum_written();
        }
        let buffer = writer.freeze();
        assert_eq!(buffer.crc32c(), crc32c(&bytes));
        for _ in 0..50 {
            let start = rng.usize(..=bytes.len());
            let end = rng.usize(start..=bytes.len());
            let part = buffer.slice(start..end);
            assert_eq!(part.crc32c(), crc32c(&bytes[start..end]), "{start}..{end}");
        }
        let edges = [0, 1, 2, 5].map(|piece| piece * PIECE_BYTES);
        for (start, end) in edges.iter().zip(&edges[1..]) {
            let part = buffer.slice(start..end);
            assert_eq!(
                part.crc32c(),
                crc32c(&bytes[*start..*end]),
                "{start}..{end}"
            );
        }
    }
}

#[test]
fn sums_go_with_the_bytes_into_a_larger_buffer() {
    let bytes = noise(3 * PIECE_BYTES);
    let (front, back) = bytes.split_at(2 * PIECE_BYTES + 5);
    let mut small = BufferMut::unpooled(front.len(), 4096);
    small.extend_from_slice(front);
    small.sum_written();
    let mut large = BufferMut::unpooled(bytes.len(), 4096);
    large.begin_with(&small);
    assert_eq!(large.sums, small.sums);
    large.extend_from_slice(back);
    large.sum_written();
    assert_eq!(large.sums.len(), 3);
    assert_eq!(large.freeze().crc32c(), crc32c(&bytes));
}

#[test]
fn what_stands_behind_a_headroom_is_read_to_be_summed() {
    let bytes = noise(2 * PIECE_BYTES);
    let mut writer = BufferMut::unpooled(64 + bytes.len(), 4096).with_headroom(64);
    writer.extend_from_slice(&bytes);
    writer.sum_written();
    writer.prepend(b"front");
    let buffer = writer.freeze();
    assert_eq!(buffer.slice(5..).crc32c(), crc32c(&bytes));
}

#[test]
#[should_panic(expected = "written after they were shared")]
fn what_is_summed_is_not_written_again() {
    let mut writer = BufferMut::unpooled(PIECE_BYTES, 4096);
    writer.extend_from_slice(&noise(PIECE_BYTES));
    writer.sum_written();
    writer.write_at(7, b"x");
}
