//! Pitfalls that history has shown (FAULTS.md, section 3), a test for each, under its number.
//! P01, P05, P11, P12 in part, P13 in part, P22 to P24 and P72 lie beside what they concern;
//! P25, P28 and P29 concern disks: crate `log`.

pub(crate) mod bases;
mod durability;
pub(crate) mod elections;
pub(crate) mod reads;
pub(crate) mod replication;
