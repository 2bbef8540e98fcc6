//! Campaigns of the simulator: many seeds, a failure made small, a summary.

mod args;
mod campaign;
mod record;
mod seed;

pub use args::{HELP, Wanted, nodes_of_seed};
pub use campaign::run;
pub use seed::{Failure, again, run_seed};
