//! What agreement costs beside disk and network: a round of three nodes, and beats of many groups.
//!
//! Beats by row are what is sent of groups that have changed; those of others are repeated by number,
//! at no cost of their own.
//!
//! `cargo bench -p highwater-consensus --bench consensus`

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_main};
use highwater_consensus::{
    BeatRound, Config, EntryKind, LogIndex, Membership, NodeId, Output, ProposedEntry, Raft,
    Restored, RoleKind, Session,
};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const SESSION: Session = Session(1);
const NOW: Duration = Duration::from_secs(1);

/// Three members whose disks and links take no time; the first leads.
struct Group {
    members: [Raft; 3],
}

impl Group {
    fn new(seed: u64) -> Group {
        let mut group = Group {
            members: NODES.map(|node| member(node, seed)),
        };
        for member in &mut group.members {
            let node = member.node();
            for peer in NODES.into_iter().filter(|peer| *peer != node) {
                member.handle_peer_up(NOW, peer, SESSION);
            }
        }
        group.settle();
        group.members[0].campaign(NOW);
        group.settle();
        assert_eq!(group.members[0].role(), RoleKind::Leader);
        group
    }

    /// Entries of 1 KiB are proposed together, written and acknowledged by all, and committed.
    fn commit(&mut self, entries: &[ProposedEntry]) -> LogIndex {
        self.members[0].propose(entries).expect("it leads");
        self.settle();
        self.members[0].commit_index()
    }

    /// Does what the members want, until they want nothing more.
    fn settle(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            for from in 0..NODES.len() {
                while let Some(output) = self.members[from].poll_output() {
                    moved = true;
                    self.carry_out(from, output);
                }
            }
        }
    }

    fn carry_out(&mut self, from: usize, output: Output) {
        match output {
            Output::HardState { write, .. } | Output::Append { write, .. } => {
                self.members[from].handle_persisted(NOW, write);
            }
            Output::Send {
                to,
                session,
                message,
                ..
            } => {
                let to = NODES.iter().position(|node| *node == to);
                let to = &mut self.members[to.expect("a member")];
                let handled = to.handle_message(NOW, NODES[from], session, message);
                handled.expect("a message of this session");
            }
            Output::Committed { .. } | Output::RoleChanged { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    /// The leader's row to each follower, and that nobody has anything against it.
    fn beat(&mut self, round: BeatRound) {
        let [leader, followers @ ..] = &mut self.members;
        for follower in followers {
            let row = leader.beat_row(follower.node(), round);
            let row = row.expect("it leads, and the link is up");
            let exception = follower.handle_beat(NOW, leader.node(), SESSION, row);
            leader.handle_beat_ack(NOW, follower.node(), SESSION, round, exception);
        }
    }
}

fn member(node: NodeId, seed: u64) -> Raft {
    let config = Config::new(node, Membership::of_voters(NODES));
    let seed = seed * 4 + u64::from(node.0);
    Raft::new(config, Restored::default(), seed, NOW).expect("a member of the group")
}

fn committing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit_of_three");
    for count in [1_usize, 32] {
        let entry = ProposedEntry {
            kind: EntryKind::Data,
            size: 1024,
        };
        let entries = vec![entry; count];
        let mut members = Group::new(1);
        let elements = u64::try_from(count).expect("few entries");
        group.throughput(Throughput::Elements(elements));
        group.bench_with_input(
            BenchmarkId::new("entries", count),
            &entries,
            |bencher, entries| bencher.iter(|| members.commit(entries)),
        );
        let last = members.members[0].last().index;
        assert_eq!(members.members[0].commit_index(), last);
    }
    group.finish();
}

fn beating(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("beat_of_three");
    for count in [1_000, 10_000] {
        let mut groups: Vec<Group> = (0..count).map(Group::new).collect();
        let mut round = BeatRound::default();
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("groups", count), |bencher| {
            bencher.iter(|| {
                round = BeatRound(round.0 + 1);
                for group in &mut groups {
                    group.beat(round);
                }
            });
        });
    }
    group.finish();
}

/// In a module of their own, since the macro makes them public without a description.
mod groups {
    use super::{beating, committing};

    criterion::criterion_group!(benches, committing, beating);
}

criterion_main!(groups::benches);
