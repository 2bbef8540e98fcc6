//! Whether all nodes of the cluster have the same `peer_transport`.
//!
//! A node that has another than its peers can have no links to them, and is told so by their
//! certificates (`net`'s probe). At its start that ends it; but one node with a wrong setting does
//! not end those that have links among themselves.

use std::time::Duration;

/// How long a node that was told waits for a link: longer than the dialing of all peers takes, so
/// that of three nodes that start together only the odd one ends.
const GRACE: Duration = Duration::from_secs(4);

/// What a node knows of its peers' transports.
#[derive(Debug, Default)]
pub(crate) struct Mixed {
    /// Whether there was a link in this life.
    linked: bool,
    warned: bool,
    /// When it was first told, and what.
    told: Option<(Duration, String)>,
}

impl Mixed {
    /// A link stands.
    pub(crate) fn link_up(&mut self) {
        self.linked = true;
    }

    /// A node of the cluster has the other transport. Gives whether that is another's mistake, and
    /// new.
    pub(crate) fn tell(&mut self, now: Duration, what: String) -> bool {
        self.told.get_or_insert((now, what));
        self.linked && !std::mem::replace(&mut self.warned, true)
    }

    /// What ends this node: it was told long ago, and still has no link.
    pub(crate) fn verdict(&self, now: Duration) -> Option<&str> {
        let (told_at, what) = self.told.as_ref()?;
        let overdue = now.saturating_sub(*told_at) >= GRACE;
        (overdue && !self.linked).then_some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Duration = Duration::from_secs(100);

    fn told() -> Mixed {
        let mut mixed = Mixed::default();
        assert!(!mixed.tell(BEGIN, "why".to_owned()));
        mixed
    }

    #[test]
    fn who_never_had_a_link_ends_after_a_while() {
        let mixed = told();
        let just_before = BEGIN + GRACE - Duration::from_nanos(1);
        assert_eq!(mixed.verdict(just_before), None);
        assert_eq!(mixed.verdict(BEGIN + GRACE), Some("why"));
    }

    #[test]
    fn the_first_word_counts() {
        let mut mixed = told();
        mixed.tell(BEGIN + GRACE, "again".to_owned());
        assert_eq!(mixed.verdict(BEGIN + GRACE), Some("why"));
    }

    #[test]
    fn who_has_had_a_link_warns_once_and_goes_on() {
        let mut mixed = told();
        mixed.link_up();
        assert!(mixed.tell(BEGIN + GRACE, "again".to_owned()));
        assert!(!mixed.tell(BEGIN + GRACE, "again".to_owned()));
        assert_eq!(mixed.verdict(BEGIN + 2 * GRACE), None);
    }
}
