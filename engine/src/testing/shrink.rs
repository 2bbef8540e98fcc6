//! A failing plan made smaller: delta debugging over its faults (Zeller and Hildebrandt, "Simplifying
//! and Isolating Failure-Inducing Input", 2002).

use super::plan::Plan;
use super::schedule::Fault;

/// A plan with as few faults as are found to be needed to fail, of the same seed.
///
/// `fails` runs a plan; it is called `runs_max` times at most.
pub fn shrink(plan: &Plan, runs_max: u32, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut runs = 0;
    let mut still_fails = |plan: &Plan| {
        runs += 1;
        (runs <= runs_max).then(|| fails(plan))
    };
    let mut small = plan.clone();
    let mut parts = 2;
    while !small.faults.is_empty() {
        let Some(found) = drop_a_part(&small, parts, &mut still_fails) else {
            return small;
        };
        match found {
            Some(smaller) => {
                small = smaller;
                parts = parts.saturating_sub(1).max(2);
            }
            None if parts >= small.faults.len() => return small,
            None => parts = (parts * 2).min(small.faults.len()),
        }
    }
    small
}

/// The plan without one of so many parts of its faults, if it still fails; none if there are no
/// more runs.
fn drop_a_part(
    plan: &Plan,
    parts: usize,
    still_fails: &mut impl FnMut(&Plan) -> Option<bool>,
) -> Option<Option<Plan>> {
    let size = plan.faults.len().div_ceil(parts);
    for part in 0..plan.faults.len().div_ceil(size) {
        let (from, to) = (part * size, (part + 1) * size);
        let stays = |(at, _): &(usize, &Fault)| *at < from || *at >= to;
        let faults = plan.faults.iter().enumerate().filter(stays);
        let smaller = Plan {
            faults: faults.map(|(_, fault)| fault.clone()).collect(),
            ..plan.clone()
        };
        if still_fails(&smaller)? {
            return Some(Some(smaller));
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_left() {
        let plan = (1..).map(|seed| Plan::of_seed(seed, 3));
        let plan = plan
            .into_iter()
            .find(|plan| plan.faults.len() > 20)
            .unwrap();
        let needed = [plan.faults[3].clone(), plan.faults[17].clone()];
        let small = shrink(&plan, 1_000, |plan| {
            needed.iter().all(|fault| plan.faults.contains(fault))
        });
        assert_eq!(small.faults, needed);
    }

    #[test]
    fn no_more_runs_than_allowed() {
        let plan = (1..).map(|seed| Plan::of_seed(seed, 3));
        let plan = plan
            .into_iter()
            .find(|plan| plan.faults.len() > 20)
            .unwrap();
        let mut runs = 0;
        let small = shrink(&plan, 5, |_| {
            runs += 1;
            false
        });
        assert_eq!((runs, small), (5, plan));
    }
}
