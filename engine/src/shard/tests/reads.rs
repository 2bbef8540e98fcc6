//! Fetches that the disk answers, since nothing of what they want is in memory.

use highwater_record::Offset;

use super::cluster::{Cluster, batch};
use super::produce;
use crate::ops::{Fetch, Fetched, Op, Outcome, ReadFrom};

/// A node with eight batches of one size, all on disk only. Gives the size too.
fn on_disk() -> (Cluster, usize) {
    let value = "v".repeat(1_000);
    let mut cluster = Cluster::new(1);
    for _ in 0..8 {
        cluster.ask(1, produce(&value));
    }
    cluster.restart(1);
    cluster.elect(1);
    (cluster, batch(&value).bytes.len())
}

fn fetched(cluster: &mut Cluster, offset: u64, max_bytes: usize) -> Fetched {
    let fetch = Op::Fetch(Fetch {
        offset: Offset(offset),
        max_bytes,
        must_progress: true,
        current_leader_epoch: None,
        from: ReadFrom::Leader,
    });
    match cluster.ask(1, fetch) {
        Some(Ok(Outcome::Fetched(fetched))) => fetched,
        other => panic!("not fetched: {other:?}"),
    }
}

#[test]
fn what_would_likely_not_fit_is_not_read() {
    let (mut cluster, size) = on_disk();
    for (max_bytes, batches) in [(size * 3 / 2, 1), (size * 13 / 4, 3)] {
        let before = cluster.report(1).log;
        assert_eq!(fetched(&mut cluster, 0, max_bytes).spans.len(), batches);
        let after = cluster.report(1).log;
        assert!(after.direct_bytes > before.direct_bytes, "it lies on disk");
        assert_eq!(after.cache_misses - before.cache_misses, 1, "{max_bytes}");
    }
}

/// The way to the wanted batch leads past others, which are nothing that the fetch could have.
#[test]
fn the_first_batch_is_found_even_by_who_wants_no_bytes() {
    let (mut cluster, _) = on_disk();
    for offset in 0..8 {
        let fetched = fetched(&mut cluster, offset, 0);
        assert_eq!(fetched.spans.len(), 1);
        assert_eq!(fetched.next_offset, Offset(offset + 1));
    }
}
