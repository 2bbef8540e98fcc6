//! One seed: run, and if it fails, made small.

use highwater_engine::testing::{Outcome, Plan, Report, World, shrink};

/// How often a failing plan is run again to make it smaller.
const SHRINK_RUNS_MAX: u32 = 60;

/// Records that a run acknowledges, where its faults let it.
pub const ACKED_MIN: u64 = 1_000;

/// The share of a run's time, in per cent, from which on what hinders clients excuses any result;
/// below it a run has to do its share of the rest.
const EXCUSE_PERCENT: u64 = 40;

/// Whether a run has done enough to prove something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// At least [`ACKED_MIN`] records are acknowledged.
    Enough,
    /// Fewer, since faults have kept clients from being served for so much of the time.
    Excused(&'static str),
    /// Fewer, and nobody knows why.
    Short,
}

impl Work {
    /// What a run has done.
    #[must_use]
    pub fn of(report: &Report) -> Work {
        let hindered = report.hindrance.percent();
        let is_in_keeping = report.acked * 100 >= ACKED_MIN * (100 - hindered);
        match report.hindrance.worst() {
            _ if report.acked >= ACKED_MIN => Work::Enough,
            Some(cause) if is_in_keeping || hindered >= EXCUSE_PERCENT => Work::Excused(cause),
            _ => Work::Short,
        }
    }
}

/// A seed that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub why: String,
    /// The command that repeats it.
    pub again: String,
    /// What is left of the faults, one a line.
    pub faults: Vec<String>,
}

/// Runs a plan; a panic in it is a failure like any other.
fn outcome(plan: &Plan, trace: bool) -> Result<Outcome, String> {
    let plan = plan.clone();
    let run = move || {
        let world = World::new(plan);
        if trace {
            world.traced().run()
        } else {
            world.run()
        }
    };
    std::panic::catch_unwind(run).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        format!("it panicked: {}", text.unwrap_or("see above"))
    })
}

/// The same, and only what it came to.
fn verdict(plan: &Plan) -> Result<Report, String> {
    let outcome = outcome(plan, false)?;
    outcome.result.map_err(|violation| violation.to_string())
}

/// Runs a plan; the outcome, or how to repeat the failure.
///
/// # Errors
///
/// [`Failure`], after it was made small.
pub fn run_seed(plan: &Plan, trace: bool) -> Result<Outcome, Box<Failure>> {
    let why = match outcome(plan, trace) {
        Ok(outcome) => match &outcome.result {
            Ok(_) => return Ok(outcome),
            Err(violation) => {
                print!("{}", outcome.trace);
                violation.to_string()
            }
        },
        Err(why) => why,
    };
    // Any other failure of the same plan is as good: there is one to be found.
    let small = match trace {
        true => plan.clone(),
        false => shrink(plan, SHRINK_RUNS_MAX, |smaller| verdict(smaller).is_err()),
    };
    let faults = small.faults.iter();
    Err(Box::new(Failure {
        why,
        again: again(plan, &small),
        faults: faults
            .map(|it| format!("{:?} {:?}", it.at, it.kind))
            .collect(),
    }))
}

/// The command that runs what is left of a plan.
#[must_use]
pub fn again(whole: &Plan, left: &Plan) -> String {
    let Plan {
        seed,
        nodes,
        profile,
        ..
    } = left;
    let profile = profile.name();
    let mut command = format!(
        "cargo run -p highwater-tests --bin sim -- --seeds 1 --first {seed} --nodes {nodes} \
         --profile {profile} --trace"
    );
    // Of a plan that was cut before, the numbers are the caller's; only whole ones are numbered.
    let all = Plan::new(*seed, *nodes, left.profile).faults;
    if left.faults.len() < all.len() || whole.faults.len() < all.len() {
        let kept = all.iter().enumerate();
        let kept = kept.filter(|(_, fault)| left.faults.contains(fault));
        let numbers: Vec<String> = kept.map(|(number, _)| number.to_string()).collect();
        command += &format!(" --only {},", numbers.join(","));
    }
    command
}
