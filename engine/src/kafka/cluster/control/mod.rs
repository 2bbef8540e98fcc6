//! How a service follows the controller, asks it for decisions, and, where group 0's leader is,
//! makes them.

mod ask;
mod follow;
mod lead;
mod message;

pub(super) use ask::{AskId, AskOutput, Asks, Repeat};
pub(super) use follow::{Followed, Follower};
pub(super) use lead::{Lead, Origin};
pub(super) use message::{FORWARDED_BYTES_MAX, Message, What};
