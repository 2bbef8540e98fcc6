//! Retention by time, and clocks that jump (F30).

use std::time::Duration;

use highwater_record::Offset;

use super::cluster::{Cluster, batch_at};
use super::produce;
use crate::ops::{GroupConfig, Op, Produce};

const MINUTE: Duration = Duration::from_secs(60);

/// Ten years, in milliseconds.
const YEARS_MS: i64 = 10 * 365 * 24 * 3_600_000;

/// Some full files, which may go when they are so old.
fn filled(retention: Duration) -> Cluster {
    filled_while_off_by(0, retention)
}

/// The same, all of it written while the clocks were off by so much.
fn filled_while_off_by(ms: i64, retention: Duration) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.jump(ms);
    cluster.elect(1);
    cluster.configure(GroupConfig {
        retention_ms: Some(u64::try_from(retention.as_millis()).unwrap()),
        segment_bytes: 64 << 10,
        log_append_time: true,
        ..GroupConfig::default()
    });
    for _ in 0..40 {
        let answer = cluster.ask(1, produce(&"x".repeat(5_000)));
        assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
    }
    cluster.jump(-ms);
    cluster
}

fn is_whole(cluster: &Cluster) -> bool {
    (1..=3).all(|number| cluster.status(number).log_start_offset == Offset::ZERO)
}

fn is_suspended(cluster: &Cluster) -> bool {
    (1..=3).all(|number| cluster.report(number).gauges.retention_suspended == 1)
}

#[test]
fn what_has_grown_old_is_removed() {
    let mut cluster = filled(3 * MINUTE);
    cluster.run(2 * MINUTE);
    assert!(is_whole(&cluster));
    cluster.run(2 * MINUTE);
    assert!(!is_whole(&cluster));
}

/// What a producer claims is kept as it is; a file is no younger than its last entry for it.
#[test]
fn f32_records_from_the_future_are_removed_in_time() {
    for timestamp in [i64::MAX, YEARS_MS * 1_000] {
        let mut cluster = Cluster::new(3);
        cluster.elect(1);
        cluster.configure(GroupConfig {
            retention_ms: Some(180_000),
            segment_bytes: 64 << 10,
            ..GroupConfig::default()
        });
        for _ in 0..40 {
            let batches = vec![batch_at(timestamp, &"x".repeat(5_000))];
            let answer = cluster.ask(1, Op::Produce(Produce { batches }));
            assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
        }
        cluster.run(2 * MINUTE);
        assert!(is_whole(&cluster), "{timestamp}");
        cluster.run(2 * MINUTE);
        assert!(!is_whole(&cluster), "{timestamp}");
    }
}

#[test]
fn f30_a_clock_that_is_years_ahead_removes_nothing() {
    let mut cluster = filled(60 * MINUTE);
    cluster.jump(YEARS_MS);
    cluster.run(2 * MINUTE);
    assert!(is_suspended(&cluster));
    assert!(is_whole(&cluster));
    cluster.jump(-YEARS_MS);
    cluster.run(2 * MINUTE);
    assert!(!is_suspended(&cluster));
    assert!(is_whole(&cluster));
}

#[test]
fn f30_nor_does_it_after_a_restart() {
    let mut cluster = filled(60 * MINUTE);
    cluster.jump(YEARS_MS);
    (1..=3).for_each(|number| cluster.restart(number));
    cluster.run(2 * MINUTE);
    assert!(is_suspended(&cluster));
    assert!(is_whole(&cluster));
}

#[test]
fn f30_what_was_written_under_a_clock_that_was_years_behind_is_not_old() {
    let mut cluster = filled_while_off_by(-YEARS_MS, 60 * MINUTE);
    cluster.run(2 * MINUTE);
    assert!(!is_suspended(&cluster));
    assert!(is_whole(&cluster));
}

#[test]
fn a_clock_that_goes_on_is_believed_in_the_end() {
    let mut cluster = filled(12 * MINUTE);
    let ten_minutes_ms = 600_000;
    cluster.jump(ten_minutes_ms);
    cluster.run(9 * MINUTE);
    assert!(is_suspended(&cluster));
    assert!(is_whole(&cluster), "though the clock calls it old");
    cluster.run(2 * MINUTE);
    assert!(!is_suspended(&cluster));
    assert!(!is_whole(&cluster));
}

#[cfg(feature = "mutants")]
#[test]
fn planted_clocks_are_believed() {
    use crate::mutants::{Mutant, is_found};
    let ahead = f30_a_clock_that_is_years_ahead_removes_nothing;
    let restarted = f30_nor_does_it_after_a_restart;
    let behind = f30_what_was_written_under_a_clock_that_was_years_behind_is_not_old;
    is_found(Mutant::RetentionBelievesClock, ahead);
    is_found(Mutant::StartBelievesClock, restarted);
    is_found(Mutant::StampsGoBack, behind);
}
