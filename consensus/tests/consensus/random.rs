//! Random networks and disks: safety all the time, progress once they heal.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_consensus::{LogIndex, Membership, MessageError, NodeId, Quarantine};

use crate::suite::cluster::Cluster;
use crate::suite::image::{Image, Stored};

const STEPS: u32 = 8_000;
const SEEDS: u64 = 400;

struct Run {
    cluster: Cluster,
    rng: fastrand::Rng,
}

/// Three to five nodes: voters, now and then with a learner, or in a joint configuration.
fn any_membership(rng: &mut fastrand::Rng) -> Membership {
    let size = rng.u32(3..=5);
    let nodes = |range: std::ops::RangeInclusive<u32>| range.map(NodeId).collect();
    let mut membership = Membership::of_voters((1..=size).map(NodeId));
    match rng.u32(0..6) {
        0 => membership.learners = nodes(size + 1..=size + 1),
        1 => membership.joint = Some(nodes(2..=size - 1)),
        2 => membership.joint = Some(nodes(1..=1)),
        _ => {}
    }
    membership
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut rng = fastrand::Rng::with_seed(seed);
        let membership = any_membership(&mut rng);
        // Small limits, so that all of them are met.
        let tail = rng.usize(1..12);
        let window = rng.u64(200..4_000);
        let cluster = Cluster::build(
            membership,
            seed,
            |config| {
                config.tail_entries_max = tail;
                config.window_bytes_max = window;
                config.append_bytes_max = window / 2;
                config.uncommitted_bytes_max = 10_000;
            },
            |_| Image::default(),
        );
        Run { cluster, rng }
    }

    fn any_node(&mut self) -> NodeId {
        let nodes: Vec<NodeId> = self.cluster.members.keys().copied().collect();
        nodes[self.rng.usize(..nodes.len())]
    }

    fn any_running(&mut self) -> Option<NodeId> {
        let nodes = self.cluster.running();
        (!nodes.is_empty()).then(|| nodes[self.rng.usize(..nodes.len())])
    }

    fn step(&mut self) {
        match self.rng.u32(0..1_000) {
            0..500 => self.deliver_any(),
            500..750 => self.sync_any(),
            750..820 => self.pass_time(),
            820..900 => self.propose_any(),
            900..930 => self.read_any(),
            930..945 => self.read_chunk_any(),
            945..960 => self.lose_any(),
            960..970 => self.duplicate_any(),
            970..978 => self.cut_or_mend_direction(),
            978..984 => self.renew_link(),
            984..986 => self.crash_any(),
            986..991 => self.start_any(),
            991..995 => self.transfer_any(),
            995..997 => self.move_log_start(),
            997 => self.repair_any(),
            _ => self.toggle_full(),
        }
    }

    fn deliver_any(&mut self) {
        if self.cluster.packets.is_empty() {
            return self.pass_time();
        }
        // Mostly in order, as within a lane; now and then not, as between lanes.
        let at = if self.rng.u32(0..10) == 0 {
            self.rng.usize(..self.cluster.packets.len())
        } else {
            0
        };
        let packet = self.cluster.packets.remove(at);
        self.cluster.deliver(packet);
    }

    fn sync_any(&mut self) {
        if let Some(n) = self.any_running() {
            self.cluster.sync_one(n);
        }
    }

    fn read_chunk_any(&mut self) {
        if let Some(n) = self.any_running() {
            self.cluster.read_chunk(n);
        }
    }

    fn pass_time(&mut self) {
        self.cluster.now += Duration::from_millis(self.rng.u64(1..60));
        self.cluster.beats_and_timeouts();
    }

    fn propose_any(&mut self) {
        if let Some(leader) = self.cluster.leader() {
            let sizes: Vec<u32> = (0..self.rng.u32(1..4))
                .map(|_| self.rng.u32(0..900))
                .collect();
            let _ = self.cluster.propose_sized(leader, &sizes);
        }
    }

    fn read_any(&mut self) {
        if let Some(n) = self.any_running() {
            self.cluster.read(n.0);
        }
    }

    fn lose_any(&mut self) {
        if !self.cluster.packets.is_empty() {
            let at = self.rng.usize(..self.cluster.packets.len());
            self.cluster.packets.remove(at);
        }
    }

    fn duplicate_any(&mut self) {
        if !self.cluster.packets.is_empty() {
            let at = self.rng.usize(..self.cluster.packets.len());
            let packet = self.cluster.packets[at].clone();
            self.cluster.packets.push(packet);
        }
    }

    fn cut_or_mend_direction(&mut self) {
        if self.rng.u32(0..3) > 0 {
            let mended: Vec<_> = self.cluster.lost.iter().copied().collect();
            if let Some(direction) = self.rng.choice(mended) {
                self.cluster.lost.remove(&direction);
            }
        } else {
            let direction = (self.any_node(), self.any_node());
            self.cluster.lost.insert(direction);
        }
    }

    fn renew_link(&mut self) {
        if let (Some(a), Some(b)) = (self.any_running(), self.any_running())
            && a != b
        {
            self.cluster.disconnect(a, b);
            self.cluster.connect(a, b);
        }
    }

    fn crash_any(&mut self) {
        if let Some(n) = self.any_running() {
            self.cluster.crash(n.0);
        }
    }

    fn start_any(&mut self) {
        let n = self.any_node();
        if self.cluster.members[&n].raft.is_none() {
            self.rot(n);
            self.start(n);
        }
    }

    /// Starts `n` with what its recovery would find.
    fn start(&mut self, n: NodeId) {
        let must_rejoin = self.cluster.members[&n].must_rejoin;
        let disk = self.cluster.disks.get_mut(&n).unwrap();
        let last = disk.durable.last().index;
        let first_hole = disk.durable.holes.first().copied();
        let quarantine = match first_hole {
            Some(first) if disk.durable.holes.last() == Some(&last) || must_rejoin => {
                disk.lose_from(first);
                Quarantine::ToEnd { first }
            }
            Some(first) => Quarantine::Hole { first },
            None if must_rejoin => Quarantine::ToEnd { first: last.next() },
            None => Quarantine::None,
        };
        self.cluster.start(n, quarantine);
    }

    /// Now and then an entry of a disk rots; of one disk at a time, for what every copy has
    /// lost is lost, and not where the others are no quorum, for then all would wait.
    fn rot(&mut self, n: NodeId) {
        let is_ill = |m: &NodeId| {
            let disk = &self.cluster.disks[m];
            let has_holes = !disk.durable.holes.is_empty() || !disk.memory.holes.is_empty();
            has_holes || self.cluster.members[m].must_rejoin
        };
        let durable = &self.cluster.disks[&n].durable;
        let membership = &self.cluster.membership;
        let is_needed = !membership.has_quorum(|voter| voter != n);
        if self.cluster.disks.keys().any(is_ill) || is_needed || durable.entries.is_empty() {
            return;
        }
        let (first, last) = (durable.before.index.0 + 1, durable.last().index.0);
        let hole = LogIndex(self.rng.u64(first..=last));
        let disk = self.cluster.disks.get_mut(&n).unwrap();
        match self.rng.u32(0..3) {
            0 => {
                disk.durable.holes.insert(hole);
                disk.crash();
            }
            1 => {
                disk.lose_from(hole);
                self.cluster.members.get_mut(&n).unwrap().must_rejoin = true;
            }
            _ => {}
        }
    }

    /// Fills the holes of `n` from those peers that run and have the entries, and drops those
    /// that others have dropped by retention.
    fn repair(&mut self, n: NodeId) {
        let log = &self.cluster.disks[&n].memory;
        let holes = log.holes.iter().filter_map(|at| log.get(*at).copied());
        for hole in holes.collect::<Vec<Stored>>() {
            let index = hole.meta.id.index;
            let peers = self.cluster.running().into_iter().filter(|peer| *peer != n);
            let logs: Vec<&Image> = peers
                .map(|peer| &self.cluster.disks[&peer].durable)
                .collect();
            let is_kept = logs.iter().any(|log| log.get(index) == Some(&hole));
            let is_dropped = logs.iter().any(|log| log.before.index >= index);
            if is_kept {
                self.cluster.disks.get_mut(&n).unwrap().repair(&hole);
            } else if is_dropped && self.cluster.raft(n.0).commit_index() >= index {
                self.start_log_at(n, index.next());
            }
        }
        let disk = &self.cluster.disks[&n];
        if disk.memory.holes.is_empty() && disk.durable.holes.is_empty() {
            self.cluster.call(n.0, |raft, _| raft.handle_repaired());
        }
    }

    fn repair_any(&mut self) {
        if let Some(n) = self.any_running() {
            self.repair(n);
        }
    }

    fn transfer_any(&mut self) {
        if let Some(leader) = self.cluster.leader() {
            let to = self.any_node();
            let _ = self
                .cluster
                .call(leader, |raft, now| raft.transfer_leadership(now, to));
        }
    }

    /// Retention: what is committed and durable here may go.
    fn move_log_start(&mut self) {
        let Some(n) = self.any_running() else {
            return;
        };
        let raft = self.cluster.raft(n.0);
        let durable = &self.cluster.disks[&n].durable;
        let least = raft.before().index.0.max(durable.before.index.0);
        let most = raft.commit_index().min(raft.synced_index()).0;
        if least < most {
            let first = LogIndex(self.rng.u64(least + 1..=most + 1));
            self.start_log_at(n, first);
        }
    }

    fn start_log_at(&mut self, n: NodeId, first: LogIndex) {
        if !self.cluster.disks[&n].queue.is_empty() {
            return;
        }
        let disk = self.cluster.disks.get_mut(&n).unwrap();
        disk.memory.start_at(first);
        disk.durable.start_at(first);
        self.cluster
            .call(n.0, |raft, _| raft.handle_log_start(first));
    }

    fn toggle_full(&mut self) {
        if let Some(n) = self.any_running() {
            let full = self.rng.u32(0..3) == 0;
            self.cluster
                .call(n.0, |raft, _| raft.handle_disk_full(full));
        }
    }

    /// The faults end: everything must come to rest, with a leader, and all logs alike.
    fn heal_and_check(&mut self) {
        for n in self.cluster.members.keys().copied().collect::<Vec<_>>() {
            if self.cluster.members[&n].raft.is_none() {
                self.start(n);
            }
            self.cluster
                .call(n.0, |raft, _| raft.handle_disk_full(false));
        }
        self.cluster.heal();
        for _ in 0..5 {
            self.cluster.run_for(4_000);
            for n in self.cluster.running() {
                self.repair(n);
            }
        }
        let leader = self.cluster.leader().expect("a leader after healing");
        self.cluster.propose(leader).expect("it takes proposals");
        let read = self.cluster.read(leader).expect("it takes reads");
        self.cluster.run_for(1_500);
        assert_eq!(self.cluster.leader(), Some(leader), "it stays");
        let raft = self.cluster.raft(leader);
        let last = raft.last();
        assert_eq!(raft.commit_index(), last.index);
        for n in self.cluster.running() {
            let follower = self.cluster.raft(n.0);
            assert_eq!(follower.last(), last, "{n} has caught up");
            assert_eq!(follower.commit_index(), last.index, "{n} knows it");
            assert_eq!(follower.synced_index(), last.index);
            assert_eq!(self.cluster.raft(leader).in_flight_bytes(n), 0, "P44");
            assert!(!follower.is_quarantined(), "{n} is whole again");
        }
        let answered = &self.cluster.members[&NodeId(leader)].answered;
        assert!(
            answered.iter().any(|&(r, _)| r == read),
            "the read is answered"
        );
    }

    fn check_errors(&mut self) {
        for error in std::mem::take(&mut self.cluster.errors) {
            let is_expected = matches!(error, MessageError::OtherSession { .. });
            assert!(is_expected, "honest nodes, and yet: {error}");
        }
    }
}

pub(crate) fn run(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut run = Run::new(seed);
    for step in 0..STEPS {
        run.step();
        if step % 64 == 0 {
            run.cluster.oracle.check_logs(&run.cluster.disks);
        }
    }
    run.heal_and_check();
    run.check_errors();
    run.cluster.seen
}

#[test]
fn random_faults_break_no_rule_and_progress_resumes() {
    let mut seen = BTreeMap::new();
    for seed in 0..SEEDS {
        let Ok(events) = std::panic::catch_unwind(|| run(seed)) else {
            panic!("seed {seed} fails: call run({seed}) alone");
        };
        for (event, count) in events {
            *seen.entry(event).or_insert(0) += count;
        }
    }
    // A run in which nothing happens proves nothing: each of these was met, often.
    let expected = [
        ("commit", 20 * SEEDS),
        ("leader", 3 * SEEDS),
        ("conflict", 3 * SEEDS),
        ("busy", 3 * SEEDS),
        ("cut", SEEDS),
        ("base", SEEDS / 2),
        ("catch-up", 3 * SEEDS),
        ("read", 3 * SEEDS),
        ("transfer", SEEDS / 4),
        ("quarantine ended", SEEDS / 4),
    ];
    for (event, least) in expected {
        let count = seen.get(event).copied().unwrap_or(0);
        assert!(count >= least, "{event}: only {count} times");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| {
        let mut run = Run::new(seed);
        run.cluster.trace = Some(Vec::new());
        for _ in 0..STEPS {
            run.step();
        }
        run.cluster.trace.unwrap()
    };
    let first = trace(7);
    assert!(first.len() > 500, "only {} outputs", first.len());
    assert_eq!(first, trace(7));
}
