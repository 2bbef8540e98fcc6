//! Rot on one node of three, again and again, while nothing else goes wrong: holes are filled with
//! what the others have, nothing wrong is served meanwhile, and the scrubber finds what nobody
//! reads (F14 to F16, F29).

use std::time::Duration;

use highwater_engine::NodeId;
use highwater_engine::testing::{Fault, FaultKind, Plan, Profile, Report};
use highwater_tests::sim::run_seed;

/// How often the disk of one node rots in a run.
const ROTS: u64 = 8;

/// A run in which nothing happens but that.
fn plan_of(seed: u64) -> Plan {
    let mut plan = Plan::new(seed, 3, Profile::Calm);
    let node = NodeId(u32::try_from(seed % 3 + 1).expect("1 to 3"));
    let times = (1..=ROTS).map(|rot| Fault {
        at: Duration::from_secs(6 * rot),
        kind: FaultKind::Rot {
            node,
            pick: seed << 8 | rot,
            down: Duration::from_millis(100 * rot),
        },
    });
    plan.faults = times.collect();
    plan
}

#[test]
fn f16_what_rots_on_one_replica_is_mended_from_the_others() {
    let mut total = Report::default();
    for seed in 1..=24 {
        match run_seed(&plan_of(seed), false) {
            Ok(outcome) => total.merge(&outcome.result.expect("only what has passed is given")),
            Err(failure) => panic!("seed {seed}: {}", failure.why),
        }
    }
    assert_eq!(total.faults["bit rot"], 24 * ROTS);
    for reached in ["a damaged file is repaired", "the scrubber finds rot"] {
        let times = total.reached.count(reached);
        assert!(times > 10, "{reached} only {times} times");
    }
}
