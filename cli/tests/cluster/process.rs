//! What a process takes, from proc(5).

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often memory is looked at.
const SAMPLED_EVERY: Duration = Duration::from_millis(20);

/// Memory that is the process's own and in use (`RssAnon`), in KiB.
pub(crate) fn anonymous_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

/// How many files a process has open.
pub(crate) fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

/// Does something; gives with what comes of it the most memory that each process was seen to have
/// meanwhile, in KiB.
pub(crate) fn watch_memory<T>(pids: &[u32], does: impl FnOnce() -> T) -> (T, Vec<u64>) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = vec![0; pids.len()];
            while !is_over.load(Ordering::Relaxed) {
                for (most, pid) in most.iter_mut().zip(pids) {
                    *most = anonymous_kib(*pid).max(*most);
                }
                std::thread::sleep(SAMPLED_EVERY);
            }
            most
        });
        // The watch ends also if it panics, or that would never be told.
        let done = catch_unwind(AssertUnwindSafe(does));
        is_over.store(true, Ordering::Relaxed);
        let most = watch.join().unwrap();
        match done {
            Ok(done) => (done, most),
            Err(panic) => resume_unwind(panic),
        }
    })
}
