//! Bugs of the log's own list (`log/src/mutants.rs`), planted to show that power cuts find them.

#[cfg(feature = "mutants")]
use highwater_log::mutants::Mutant;

/// The place of a bug in the list, by its name.
#[cfg(feature = "mutants")]
pub(super) fn find(name: &str) -> Option<usize> {
    let mut all = Mutant::ALL.iter();
    all.position(|mutant| format!("{mutant:?}") == name)
}

/// Without the feature there are none.
#[cfg(not(feature = "mutants"))]
pub(super) fn find(_name: &str) -> Option<usize> {
    None
}

/// Plants a bug in all logs of this thread.
#[cfg(feature = "mutants")]
pub(super) fn plant(place: usize) {
    highwater_log::mutants::plant(Some(Mutant::ALL[place]));
}

/// Nobody has found one to plant.
#[cfg(not(feature = "mutants"))]
pub(super) fn plant(_place: usize) {
    unreachable!("without the feature no mutant has a name");
}
