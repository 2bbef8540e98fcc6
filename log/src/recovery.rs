//! What a crash has left, and what may be concluded from it.
//!
//! Recovery is the dangerous operation: it decides what of a log was acknowledged. So the
//! decision is a pure function, [`classify`](classify::classify), over a description of the
//! files ([`view`]): the explorer runs it over every state within small bounds, and the driver
//! over what it reads through [`Storage`](crate::storage::Storage).

pub(crate) mod build;
pub(crate) mod classify;
pub(crate) mod driver;
pub(crate) mod view;

#[cfg(test)]
mod classify_tests;
#[cfg(test)]
mod explorer;
