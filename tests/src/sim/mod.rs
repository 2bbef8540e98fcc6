//! Campaigns of the simulator: many seeds, a failure made small, a summary.

mod args;
mod campaign;
mod record;
mod seed;

pub use args::{HELP, Wanted, nodes_of_seed};
pub use campaign::{RECHECK_EVERY, hash_elsewhere, run};
pub use seed::{ACKED_MIN, Failure, Work, again, run_seed};
