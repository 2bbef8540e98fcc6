//! One contract for every backend of `Storage`.

#![allow(missing_docs)]

mod differential;
mod driver;
mod faults;
mod power_cut;
mod properties;
mod real;

use driver::Subject;
use highwater_log::storage::{Faults, FaultyStorage, MemoryDisk, MemoryStorage};

/// One test per property for each backend named; a backend is a function that gives a fresh
/// [`Subject`], or nothing if this machine has no such backend.
macro_rules! contract {
    ($($backend:ident),*; $($property:ident),* $(,)?) => {
        contract!(@each [$($backend)*] [$($property)*]);
    };
    (@each [$($backend:ident)*] $properties:tt) => {
        $(contract!(@backend $backend $properties);)*
    };
    (@backend $backend:ident [$($property:ident)*]) => {
        mod $backend {
            $(
                #[test]
                fn $property() {
                    if let Some(subject) = super::subject::$backend() {
                        crate::properties::$property(&subject);
                    }
                }
            )*
        }
    };
}

contract! {
    memory, faulty, portable, portable_buffered, uring;
    create_makes_the_whole_file,
    create_refuses_what_is_there,
    create_refuses_bad_sizes,
    what_is_written_is_read_back,
    a_large_write_is_whole,
    a_part_of_a_shared_buffer_can_be_written,
    a_read_ends_with_the_file,
    a_file_cut_at_any_byte_reads_to_its_end,
    misaligned_is_refused,
    a_write_stays_within_the_file,
    what_is_not_there_is_not_found,
    paths_do_not_leave_the_directory,
    an_id_ends_with_its_file,
    closing_waits_for_what_was_submitted,
    an_unlinked_file_is_closed_in_the_middle_of_a_write,
    an_id_for_reading_changes_nothing,
    the_next_life_finds_what_was_written,
    a_life_may_end_in_the_middle,
    an_unlinked_file_lives_until_it_is_closed,
    rename_replaces,
    directories_can_be_renamed,
    lists_are_in_order,
    directories_come_and_go,
    sync_answers,
    truncate_cuts,
    a_cut_is_seen_by_all_ids_of_the_file,
    what_was_not_written_can_be_zeroed,
    a_file_can_be_made_longer,
    a_protected_file_is_not_opened_for_writing,
    a_mapping_shows_the_file_and_outlives_it,
    nothing_cannot_be_mapped,
    space_is_told,
    wait_returns_when_nothing_is_in_flight,
    everything_completes_once,
    many_writes_to_one_file_overlap_in_time,
    counters_count,
}

mod subject {
    use std::sync::Arc;

    use highwater_log::storage::{
        Access, DataDirectory, OpenError, PortableStorage, Storage, UringStorage,
    };
    use highwater_record::{Budget, BufferPool};

    use super::*;

    /// A data directory that goes when the subject goes.
    pub(crate) struct Scratch(tempfile::TempDir);

    impl Scratch {
        pub(crate) fn new() -> Self {
            let scratch = tempfile::tempdir().expect("a temporary directory");
            DataDirectory::create(scratch.path()).expect("a new data directory");
            Self(scratch)
        }

        pub(crate) fn open(&self) -> Arc<DataDirectory> {
            DataDirectory::open(self.0.path(), Access::ReadWrite).expect("nobody else has it")
        }

        pub(crate) fn path(&self) -> &std::path::Path {
            self.0.path()
        }

        fn resize(&self, path: &str, len: u64) {
            let file = std::fs::File::options()
                .write(true)
                .open(self.0.path().join(path));
            file.and_then(|file| file.set_len(len))
                .expect("the file is there");
        }
    }

    fn pool(directory: &DataDirectory) -> BufferPool {
        BufferPool::new(Budget::new(256 << 20), directory.alignment())
    }

    pub(crate) fn portable() -> Option<Subject> {
        Some(on_scratch(|directory, pool| {
            Box::new(PortableStorage::new(directory, pool).expect("threads are left"))
        }))
    }

    pub(crate) fn portable_buffered() -> Option<Subject> {
        Some(on_scratch(|directory, pool| {
            Box::new(PortableStorage::buffered(directory, pool).expect("threads are left"))
        }))
    }

    /// Skipped, with a word, where the kernel refuses a ring.
    pub(crate) fn uring() -> Option<Subject> {
        let scratch = Scratch::new();
        let directory = scratch.open();
        let pool = pool(&directory);
        match UringStorage::new(directory, pool) {
            Err(why @ (OpenError::NoRing { .. } | OpenError::Buffered { .. })) => {
                println!("skipped: {why}");
                None
            }
            probed => {
                drop(probed.expect("resources are left"));
                Some(on_scratch(|directory, pool| {
                    Box::new(UringStorage::new(directory, pool).expect("it was there before"))
                }))
            }
        }
    }

    fn on_scratch(storage: fn(Arc<DataDirectory>, BufferPool) -> Box<dyn Storage>) -> Subject {
        let scratch = Arc::new(Scratch::new());
        let on = scratch.clone();
        let open = move || {
            let directory = on.open();
            let pool = pool(&directory);
            storage(directory, pool)
        };
        Subject {
            open: Box::new(open),
            resize: Box::new(move |path, len| scratch.resize(path, len)),
        }
    }

    /// Without faults, but late and out of order.
    pub(crate) fn faulty() -> Option<Subject> {
        let disk = MemoryDisk::new();
        let on = disk.clone();
        let delay_max = std::time::Duration::from_millis(20);
        let faults = Faults {
            delay_max,
            ..Faults::default()
        };
        Some(Subject {
            open: Box::new(move || Box::new(FaultyStorage::new(&on, faults.clone(), 42))),
            resize: Box::new(move |path, len| disk.resize_file(path, len).expect("it is there")),
        })
    }

    pub(crate) fn memory() -> Option<Subject> {
        let disk = MemoryDisk::new();
        let on = disk.clone();
        Some(Subject {
            open: Box::new(move || Box::new(MemoryStorage::new(&on))),
            resize: Box::new(move |path, len| disk.resize_file(path, len).expect("it is there")),
        })
    }
}
