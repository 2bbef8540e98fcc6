//! A checker of histories: what clients asked, what they were told, and whether a log that keeps
//! its promises can have told them so.
//!
//! It judges the simulated world and real processes alike, and knows nothing of either: this
//! module uses the standard library only. A [`History`] is a list of [`Event`]s in order of time,
//! each the beginning or the end of an operation; a [`Checker`] takes them one by one and keeps a
//! few words for each record, so a history may be longer than memory. Every [`AnomalyKind`] names a
//! broken promise; an [`Anomaly`] names the events that show it.
//!
//! The method is that of Jepsen's `kafka` workload: values are unique, offsets say where each
//! must be, and no search for an order is needed.
//!
//! ```
//! use highwater_engine::testing::history::{Action, History, Partition, Rules, check};
//!
//! let mut history = History::default();
//! let orders = Partition::new("orders", 0);
//! let send = history.invoke(1, Action::send(&orders, &[17]));
//! history.ok(send, Action::sent(&orders, &[17], 0));
//! let read = history.invoke(2, Action::final_read(&orders, 1));
//! history.ok(read, Action::final_answer(&orders, 1, 0, &[(0, 17)]));
//! assert!(check(&history, Rules::default()).is_clean());
//! ```

mod anomaly;
mod checker;
mod consumer;
mod event;
mod group;
mod paged;
mod partition;
#[cfg(test)]
mod tests;

pub use anomaly::{Anomaly, AnomalyKind, Verdict};
pub use checker::{Checker, Rules, check};
pub use event::{Action, Event, History, Invocation, Partition, Phase, ReadRecord};
