//! What other threads say to a shard's thread: a bounded queue and a wake-up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_engine::{GroupId, Input, Lane, NodeId, Op, OpResult, Session, ShardReport, Ticket};
use highwater_net::peer::PeerCounters;
use highwater_record::{Buffer, TopicPartition};
use tokio::sync::{Notify, oneshot};

/// One thing said to a shard's thread.
#[derive(Debug)]
pub(crate) enum Mail {
    /// For the shard itself.
    Input(Input),
    /// An operation of the embedding service, and where its answer goes.
    Ask {
        /// What it is called, unique in the node.
        ticket: Ticket,
        /// On which group.
        group: GroupId,
        /// What.
        op: Op,
        /// Where the answer goes.
        reply: oneshot::Sender<OpResult>,
    },
    /// Nobody waits for that answer any more.
    Forget {
        /// What it is called.
        ticket: Ticket,
        /// On which group it was asked.
        group: GroupId,
    },
    /// A frame of another shard for a peer: only shard 0's thread holds the links.
    Send {
        /// To whom.
        to: NodeId,
        /// In which life of the link.
        session: Session,
        /// By which lane.
        lane: Lane,
        /// The frame, in pieces.
        chunks: Vec<Buffer>,
    },
    /// A whole Kafka request of the embedding service, and where its response goes.
    Request {
        /// The request, without its length prefix.
        frame: Buffer,
        /// Where the response goes, in pieces, without its length prefix.
        reply: oneshot::Sender<Vec<bytes::Bytes>>,
    },
    /// Which group a partition is, as this shard knows the cluster.
    Locate {
        /// The topic and the partition.
        partition: TopicPartition,
        /// Where the answer goes.
        reply: oneshot::Sender<Option<Located>>,
    },
    /// Wait until this shard has a replica of a group.
    AwaitReplica {
        /// Which group.
        group: GroupId,
        /// Where the news go.
        reply: oneshot::Sender<()>,
    },
    /// What the shard has counted, and on shard 0 the links.
    Count {
        /// Where the answer goes.
        reply: oneshot::Sender<ThreadReport>,
    },
    /// Hand leadership over, then end.
    Stop,
    /// End at once, without a flush or a hand-over: as a crash would.
    Abort,
}

/// What one thread of a node tells of itself in numbers.
#[derive(Debug, Clone)]
pub(crate) struct ThreadReport {
    /// Its shard's numbers.
    pub(crate) shard: ShardReport,
    /// Those of the links to the peers, from shard 0.
    pub(crate) peers: Option<PeerCounters>,
}

/// Where a partition is, as the cluster has decided.
#[derive(Debug)]
pub(crate) struct Located {
    /// Its group.
    pub(crate) group: GroupId,
    /// The nodes that have a replica of it.
    pub(crate) replicas: Vec<NodeId>,
}

/// More mail than this waits at its sender.
pub(crate) const MAIL_MAX: usize = 64 * 1024;

/// The queue of one shard's thread. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    mail: VecDeque<Mail>,
    closed: bool,
}

/// Why mail was not taken. It is given back.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// The queue is full: try later.
    Full(Box<Mail>),
    /// The thread has ended.
    Closed,
}

/// The thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// How often a full mailbox is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// Waits without a runtime's timer, since none may be there. For what is rare, as that a mailbox
/// is full: it takes a thread.
pub(crate) async fn pause(time: Duration) {
    let (done, waited) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        std::thread::sleep(time);
        drop(done);
    });
    // It ends by the sender's end.
    let _ = waited.await;
}

impl Mailbox {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                queue: Mutex::new(Queue::default()),
                wake: Notify::new(),
            }),
        }
    }

    /// Puts mail at the end and wakes the thread.
    pub(crate) fn send(&self, mail: Mail) -> Result<(), NotTaken> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(NotTaken::Closed);
        }
        if queue.mail.len() >= MAIL_MAX {
            return Err(NotTaken::Full(Box::new(mail)));
        }
        queue.mail.push_back(mail);
        drop(queue);
        self.wake();
        Ok(())
    }

    /// Puts mail at the end, once there is room.
    pub(crate) async fn deliver(&self, mut mail: Mail) -> Result<(), Closed> {
        loop {
            match self.send(mail) {
                Ok(()) => return Ok(()),
                Err(NotTaken::Closed) => return Err(Closed),
                Err(NotTaken::Full(back)) => mail = *back,
            }
            pause(RETRY).await;
        }
    }

    /// Takes up to `most` pieces of mail.
    pub(crate) fn take(&self, most: usize, into: &mut Vec<Mail>) {
        let mut queue = self.lock();
        let count = queue.mail.len().min(most);
        into.extend(queue.mail.drain(..count));
    }

    /// Refuses mail from now on and drops what waits.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.mail.clear();
    }

    /// Wakes the thread without mail.
    pub(crate) fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Waits until somebody wakes the thread; a wake-up before the call counts.
    pub(crate) async fn woken(&self) {
        self.shared.wake.notified().await;
    }

    /// A panic of a sender leaves the queue as it was before or after its one step.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(number: u64) -> Mail {
        Mail::Forget {
            ticket: Ticket(number),
            group: GroupId(1),
        }
    }

    fn number(mail: &Mail) -> u64 {
        match mail {
            Mail::Forget { ticket, .. } => ticket.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mail_comes_out_in_order_and_no_more_than_asked() {
        let mailbox = Mailbox::new();
        for number in 0..3 {
            mailbox.send(ticket(number)).unwrap();
        }
        let mut taken = Vec::new();
        mailbox.take(2, &mut taken);
        assert_eq!(taken.iter().map(number).collect::<Vec<_>>(), [0, 1]);
        mailbox.take(2, &mut taken);
        assert_eq!(taken.len(), 3);
    }

    #[test]
    fn a_full_queue_gives_the_mail_back() {
        let mailbox = Mailbox::new();
        for number in 0..MAIL_MAX {
            mailbox.send(ticket(number as u64)).unwrap();
        }
        let refused = mailbox.send(ticket(7)).unwrap_err();
        assert!(matches!(refused, NotTaken::Full(mail) if number(&mail) == 7));
    }

    #[test]
    fn a_closed_queue_takes_nothing() {
        let mailbox = Mailbox::new();
        mailbox.close();
        assert!(matches!(mailbox.send(ticket(0)), Err(NotTaken::Closed)));
    }
}
