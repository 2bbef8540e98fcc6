//! One link: a peer, the session that stands with it, and what of it must not be forgotten
//! between sessions.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::handshake::{Hello, RefusalReason};
use super::outbox::Outbox;
use super::session::{LaneStream, Live};
use super::{DownReason, Lane, Peer, SessionNumber};
use crate::identity::Life;

/// A link, from the membership change that brought its peer to the one that takes it away.
pub(super) struct Link {
    pub(super) peer: Peer,
    state: Mutex<State>,
    stop: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// The session that stands.
    live: Option<Live>,
    /// As acceptor: the latest session that anybody has greeted us for. Earlier ones of the same
    /// incarnation are over for good.
    latest: Option<Latest>,
    /// The task whose end the next session must wait for: as dialer the link's own, as acceptor
    /// the latest session's.
    task: Option<JoinHandle<()>>,
}

/// A session that is being greeted for, or has been.
struct Latest {
    dialer: Life,
    number: SessionNumber,
    /// Which lanes have been greeted for.
    taken: [bool; 3],
    /// The lanes that stand, until all do.
    lanes: [Option<LaneStream>; 3],
}

impl Link {
    pub(super) fn new(peer: Peer) -> Arc<Link> {
        Arc::new(Link {
            peer,
            state: Mutex::default(),
            stop: watch::Sender::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds a link")
    }

    /// Ends it for good: no session is begun any more, the one that stands ends.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
        let state = self.state();
        if let Some(live) = &state.live {
            live.end(DownReason::Closed);
        }
    }

    /// Waits for [`stop`](Link::stop).
    pub(super) fn stopped(&self) -> Stopped {
        Stopped(self.stop.subscribe())
    }

    /// Spawns `next` behind the task before it, which has ended or is about to.
    pub(super) fn spawn(&self, next: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.state();
        let previous = state.task.take();
        state.task = Some(tokio::spawn(async move {
            if let Some(previous) = previous {
                // Its panic, if it had one, was told where it happened.
                let _ = previous.await;
            }
            next.await;
        }));
    }

    /// Hands over what must end before `self` announces anything: the last task of the link that
    /// it replaces.
    pub(super) fn follow(&self, replaced: &Link) {
        self.state().task = replaced.take_task();
    }

    /// The last task, to be waited for.
    pub(super) fn take_task(&self) -> Option<JoinHandle<()>> {
        self.state().task.take()
    }

    /// Opens a session for senders; `false` if the link has been stopped, or greeted for a later
    /// session.
    pub(super) fn install(&self, live: Live) -> bool {
        let mut state = self.state();
        let stale = state
            .latest
            .as_ref()
            .is_some_and(|latest| latest.number != live.number);
        if stale || *self.stop.borrow() {
            return false;
        }
        assert!(state.live.is_none(), "the session before it has ended");
        state.live = Some(live);
        true
    }

    /// Closes a session for senders.
    pub(super) fn remove(&self, number: SessionNumber) {
        let removed = self.state().live.take();
        let removed = removed.expect("it was installed, and nobody else removes it");
        assert_eq!(removed.number, number);
        for outbox in removed.outboxes {
            outbox.close();
        }
    }

    /// The outbox of a lane of a session, if that session stands.
    pub(super) fn outbox(&self, number: SessionNumber, lane: Lane) -> Option<Arc<Outbox>> {
        let state = self.state();
        let live = state.live.as_ref().filter(|live| live.number == number)?;
        Some(live.outboxes[lane.index()].clone())
    }

    /// Ends a session, if it still stands.
    pub(super) fn end(&self, number: SessionNumber, reason: DownReason) {
        if let Some(live) = &self.state().live
            && live.number == number
        {
            live.end(reason);
        }
    }

    /// As acceptor: takes a lane for the session that `hello` greets for. A later session ends
    /// the one that stands: its dialer has given it up.
    pub(super) fn take_lane(&self, hello: &Hello) -> Result<(), RefusalReason> {
        let mut state = self.state();
        if *self.stop.borrow() {
            return Err(RefusalReason::UnknownNode);
        }
        let old = state.latest.as_ref().is_some_and(|latest| {
            latest.dialer.incarnation == hello.from.incarnation && hello.session < latest.number
        });
        if old {
            return Err(RefusalReason::OldSession);
        }
        let known = state
            .latest
            .as_ref()
            .is_some_and(|latest| (latest.dialer, latest.number) == (hello.from, hello.session));
        if !known {
            if let Some(live) = &state.live {
                live.end(DownReason::Superseded);
            }
            state.latest = Some(Latest {
                dialer: hello.from,
                number: hello.session,
                taken: [false; 3],
                lanes: [None, None, None],
            });
        }
        let latest = state.latest.as_mut().expect("it was just made");
        match std::mem::replace(&mut latest.taken[hello.lane.index()], true) {
            false => Ok(()),
            true => Err(RefusalReason::OldSession),
        }
    }

    /// As acceptor: puts a lane in place that has been answered; gives all three when they stand.
    pub(super) fn put_lane(&self, hello: &Hello, stream: LaneStream) -> Option<[LaneStream; 3]> {
        let mut state = self.state();
        let latest = state
            .latest
            .as_mut()
            .filter(|latest| (latest.dialer, latest.number) == (hello.from, hello.session))?;
        latest.lanes[hello.lane.index()] = Some(stream);
        if latest.lanes.iter().any(Option::is_none) {
            return None;
        }
        let lanes = latest.lanes.each_mut().map(Option::take);
        Some(lanes.map(|lane| lane.expect("all three stand")))
    }
}

/// See [`Link::stopped`].
pub(super) struct Stopped(watch::Receiver<bool>);

impl Stopped {
    pub(super) async fn wait(&mut self) {
        // The sender lives in the link; if that is gone, the link is over all the more.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
