//! What is produced, and how much at a time.

use std::time::Duration;

use highwater_protocol::ErrorCode;
use highwater_record::Buffer;

use super::requests::{Producer, produced};
use super::{Cluster, EPOCH_MS};

/// Records of a batch of about 1 MiB, the largest that a topic takes by default.
const RECORDS_OF_A_LARGE_BATCH: usize = 1_000;

/// Large batches that are written before anything is measured. A group's files grow eightfold,
/// from 64 KiB: behind 36.6 MiB begins one of 256 MiB, in which the measured part ends too, so that
/// no file is sealed and none made while it is measured.
const WARM_UP_BATCHES: usize = 40;

/// How often, how many and how large batches are produced, and by how many nodes they are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) nodes: u32,
    pub(crate) records: usize,
    /// Requests that are sent at once; the next follow when these are answered.
    pub(crate) together: usize,
    pub(crate) rounds: usize,
}

impl Load {
    /// Batches of one record of 1 KiB, each sent when the one before is answered.
    pub(crate) const fn one_record(nodes: u32) -> Load {
        Load {
            nodes,
            records: 1,
            together: 1,
            rounds: 512,
        }
    }

    /// The same, 32 at a time: what a group commit shares is shared.
    pub(crate) const fn one_record_by_32(nodes: u32) -> Load {
        Load {
            nodes,
            records: 1,
            together: 32,
            rounds: 32,
        }
    }

    /// Batches of 1,000 records of 1 KiB.
    pub(crate) const fn one_mebibyte(nodes: u32) -> Load {
        Load {
            nodes,
            records: RECORDS_OF_A_LARGE_BATCH,
            together: 1,
            rounds: 16,
        }
    }

    /// Batches that a run produces.
    pub(crate) const fn batches(self) -> usize {
        self.together * self.rounds
    }
}

/// A cluster that is warm and at rest, and the requests that it is to serve.
pub(crate) struct Run {
    cluster: Cluster,
    rounds: Vec<Vec<Buffer>>,
    batches: usize,
}

impl Run {
    pub(crate) fn new(load: Load) -> Run {
        let mut cluster = Cluster::new(load.nodes);
        let mut producer = Producer::new(EPOCH_MS);
        cluster.insist(&producer.produce(1), produced);
        for _ in 0..WARM_UP_BATCHES {
            cluster.ask(vec![producer.produce(RECORDS_OF_A_LARGE_BATCH)]);
        }
        cluster.run_for(Duration::from_secs(2));
        check(&mut cluster, WARM_UP_BATCHES);
        cluster.drop_writes();
        let mut round = |_| {
            let requests = 0..load.together;
            requests.map(|_| producer.produce(load.records)).collect()
        };
        Run {
            rounds: (0..load.rounds).map(&mut round).collect(),
            batches: load.batches(),
            cluster,
        }
    }

    /// Produces all, from frame to committed answer.
    pub(crate) fn produce(mut self) -> Run {
        for round in std::mem::take(&mut self.rounds) {
            self.cluster.ask(round);
        }
        self
    }

    /// That everything was committed.
    pub(crate) fn check(mut self) {
        check(&mut self.cluster, self.batches);
    }
}

fn check(cluster: &mut Cluster, batches: usize) {
    let answers = cluster.answers();
    assert_eq!(answers.len(), batches);
    for answer in answers {
        assert_eq!(produced(&answer), ErrorCode::None);
    }
}
