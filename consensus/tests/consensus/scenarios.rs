//! Scenario files with expected traces.

use highwater_consensus::{NodeId, Output};

/// An output in words.
pub(crate) fn describe(n: NodeId, output: &Output) -> String {
    format!("{n}: {output:?}")
}
