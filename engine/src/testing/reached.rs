//! Which rare paths runs have reached, by name.

use std::collections::BTreeMap;

/// How often each was reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached(BTreeMap<&'static str, u64>);

impl Reached {
    /// It was reached once more.
    ///
    /// # Panics
    ///
    /// If it is neither in [`REACHABLE`] nor in [`POSSIBLE`]: a campaign would not notice that it
    /// is never reached.
    pub(super) fn hit(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    /// It was reached so often.
    pub(super) fn add(&mut self, name: &'static str, times: u64) {
        if times == 0 {
            return;
        }
        // Looked up in the lists once a run only: some paths are reached all the time.
        let count = self.0.entry(name).or_insert_with(|| {
            assert!(
                REACHABLE.contains(&name) || POSSIBLE.contains(&name),
                "{name:?} is not in the lists of what is reachable"
            );
            0
        });
        *count += times;
    }

    /// How often this was reached.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// All that was reached, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count))
    }

    /// What should have been reached and was not.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> {
        REACHABLE
            .iter()
            .copied()
            .filter(|name| self.count(name) == 0)
    }

    /// Adds what another run has reached.
    pub fn merge(&mut self, other: &Reached) {
        for (name, count) in other.iter() {
            *self.0.entry(name).or_default() += count;
        }
    }
}

/// What a campaign of the profile `swarm` must reach.
pub const REACHABLE: &[&str] = &[
    // What clients meet.
    "a batch behind a refused one is refused",
    "a client finds its leader",
    "a client finds no leader",
    "a client's connection breaks before the answer",
    "a client's node dies before the answer",
    "a consumer goes on at the log start",
    "a fetch finds records",
    "a fetch is not answered in time",
    "a fetch is out of range",
    "a fetch meets a follower",
    "a fetch meets a leader that is too new",
    "a fetch meets no such topic",
    "a fetch waits in vain",
    "a produce has an unknown outcome",
    "a produce is acknowledged after another try",
    "a produce is not answered in time",
    "a produce meets a follower",
    "a produce meets a full window or disk",
    "a produce meets no such topic",
    "a producer gets its id",
    "a topic is created",
    "a topic is deleted",
    "a topic wants more nodes than there are",
    "a topic was created unheard",
    "a topic was deleted unheard",
    "an administrator has to ask again",
    "several batches of a producer are under way",
    // What replicas do.
    "a beat is repeated",
    "a repeated beat is not known",
    "a repeated beat stays away",
    "a repeated row is refused",
    "a commit index jumps by more than a hundred",
    "a follower is more than a hundred entries behind",
    "a high watermark passes ten thousand",
    "a leader has more than a hundred entries that are not committed",
    "a leader leads though its disk is slow",
    "a log start moves on a follower",
    "a log start moves on a leader",
    "a partition has had ten leaders",
    "a deposed leader has entries that nobody else has",
    "a follower is chosen to lead",
    "a follower's log starts anew behind the leader's start",
    "a leader gives way to one of a higher term",
    "a leader is chosen while another believes to lead",
    "a log ends earlier than before: a conflict is cut",
    "a node is wiped of a deleted topic",
    "a replica learns a term without a leader",
    "all nodes are down at once",
    "an election is begun",
    "an election is lost",
    "records are deleted",
    "two replicas believe to lead",
    // What disks and nodes meet.
    "a disk fails and its node ends",
    "a file is begun",
    "a file is sealed",
    "a file is unlinked",
    "a file is recycled",
    "a group waits for its next file",
    "a file is zeroed ahead",
    "a journal is written",
    "a follower serves a read",
    "a node cannot start for want of room",
    "a node is refused with an empty disk",
    "a node starts with torn writes",
    "a replica is in quarantine",
    "a paused leader comes back after another was chosen",
    "a power cut hits a follower",
    "a power cut hits a leader",
    "a quorum is down",
    "a read is served from a mapping",
    "a read is served from memory",
    "a read is served from the disk",
    "a sealed file is what a node starts from",
    "several appends are on their way to one follower",
    "several entries are in one append",
    "several entries are in one write",
    // What the network does.
    "a frame comes twice",
    "a frame is garbled",
    "a frame is lost",
    "a frame is refused",
    "a frame of an earlier session is dropped",
    "a frame overtakes another",
    "a leader is cut from all others",
    "a link goes down unnoticed",
    "a section is ignored",
    "a turn leaves work for the next",
    "nothing passes one way",
    // What clocks and load do.
    "a clock runs fast",
    "a clock runs slowly",
    "a controller's state is taken over whole",
    "a flood closes a connection",
    "a leadership transfer is under way",
    "a wall clock goes back",
    "a wall clock jumps ahead",
    "retention by time is suspended",
];

/// What may be reached, and is too rare, or too much a matter of load, to be demanded.
pub const POSSIBLE: &[&str] = &[
    "a crash interrupts the removal of a topic",
    "a damaged file is repaired",
    "a file that is gone is made anew",
    "a fetch meets a busy node",
    "a fetch meets a damaged or failing disk",
    "a fetch meets no leader",
    "a fetch times out in the node",
    "a hot node takes no more input",
    "a produce meets a damaged disk",
    "a produce meets no leader",
    "a producer is forgotten",
    "a producer gets no id yet",
    "the scrubber finds rot",
    "the scrubber has seen all files",
];
