//! The dialer's side: begins sessions with a peer of a higher id, again and again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join3;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::events::{DialError, PeerEvent};
use super::handshake::{self, Hello, PEER_VERSION_MAX, PEER_VERSION_MIN, RefusalReason};
use super::link::Link;
use super::session::{self, LaneStream};
use super::transport::{Connection, Goodbye, Lost, Receiver, Sender, Target};
use super::{Lane, Peer, Session, SessionNumber, Shared, probe};
use crate::identity::{Life, NodeIdentity, peer_name};

/// How long an attempt may take, its three lanes together.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause after a failed attempt doubles from one bound to the other.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A session that stood for so long was a good one: the next attempt comes soon.
const GOOD_SESSION: Duration = Duration::from_secs(1);

/// Pauses between attempts, each drawn from the upper half of its bound so that nodes that lost
/// one peer together do not come back together.
struct Backoff {
    bound: Duration,
    rng: fastrand::Rng,
}

impl Backoff {
    fn new(seed: u64) -> Backoff {
        Backoff {
            bound: BACKOFF_MIN,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    fn reset(&mut self) {
        self.bound = BACKOFF_MIN;
    }

    fn next(&mut self) -> Duration {
        let pause = self.bound.mul_f64(0.5 + 0.5 * self.rng.f64());
        self.bound = BACKOFF_MAX.min(self.bound * 2);
        pause
    }
}

/// Keeps up a link until it is stopped.
pub(super) async fn keep_up(shared: Arc<Shared>, link: Arc<Link>) {
    let mut stopped = link.stopped();
    let (stands, seen) = watch::channel(false);
    let knocking = async {
        tokio::select! {
            () = probe::knock(&shared, &link.peer, seen) => {}
            () = stopped.wait() => {}
        }
    };
    tokio::join!(knocking, dial_again(&shared, &link, stands));
}

/// Begins a session whenever there is none, and notes when one has stood.
async fn dial_again(shared: &Arc<Shared>, link: &Arc<Link>, stands: watch::Sender<bool>) {
    let mut stopped = link.stopped();
    let mut backoff = Backoff::new(shared.config.seed ^ u64::from(link.peer.node.get()));
    let mut last_failure = None;
    loop {
        let number = shared.next_session();
        let dialled = tokio::select! {
            dialled = timeout(DIAL_TIMEOUT, dial(shared, &link.peer, number)) => dialled,
            () = stopped.wait() => return,
        };
        match dialled.unwrap_or(Err(DialError::Timeout)) {
            Err(error) => tell_failure(shared, &link.peer, error, &mut last_failure),
            Ok((session, lanes)) => {
                last_failure = None;
                stands.send_replace(true);
                let begun = Instant::now();
                session::run(shared.clone(), link.clone(), session, lanes).await;
                if begun.elapsed() >= GOOD_SESSION {
                    backoff.reset();
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = stopped.wait() => return,
        }
    }
}

/// Warns once about a reason, however often it repeats.
fn tell_failure(shared: &Shared, peer: &Peer, error: DialError, last: &mut Option<DialError>) {
    shared.counters.dials_failed.add(1);
    let Peer { node, address, .. } = peer;
    if last.as_ref() == Some(&error) {
        tracing::debug!(peer = %node, %address, %error, "cannot reach peer");
    } else {
        tracing::warn!(peer = %node, %address, %error, "cannot reach peer");
        *last = Some(error.clone());
    }
    shared.queue.push_notice(PeerEvent::DialFailed {
        peer: *node,
        reason: error,
    });
}

/// Opens the three lanes of a session. A lane that stands is closed again by its drop if another
/// fails.
async fn dial(
    shared: &Shared,
    peer: &Peer,
    number: SessionNumber,
) -> Result<(Session, [LaneStream; 3]), DialError> {
    let [control, append, bulk] = Lane::ALL.map(|lane| dial_lane(shared, peer, number, lane));
    let ((acceptor, control), (by_append, append), (by_bulk, bulk)) =
        try_join3(control, append, bulk).await?;
    // It may have been started anew between two lanes.
    if acceptor != by_append || acceptor != by_bulk {
        return Err(DialError::NotThePeer(RefusalReason::OldSession));
    }
    let session = Session {
        number,
        dialer: shared.life(),
        acceptor,
    };
    Ok((session, [control, append, bulk]))
}

async fn dial_lane(
    shared: &Shared,
    peer: &Peer,
    number: SessionNumber,
    lane: Lane,
) -> Result<(Life, LaneStream), DialError> {
    let tls = shared.tls().client;
    let name = peer_name(shared.identity.cluster, peer.node);
    let target = Target {
        address: peer.address,
        name: &name,
        lane,
    };
    let mut connection = shared.endpoint.connect(&tls, target).await?;
    match greet(shared, peer, number, lane, &mut connection).await {
        Ok((life, send, receive)) => Ok((
            life,
            LaneStream {
                connection,
                send,
                receive,
            },
        )),
        Err(error) => {
            if let DialError::NotThePeer(reason) = &error {
                connection.close(Goodbye::Refused(*reason)).await;
            }
            Err(error)
        }
    }
}

/// Sends our handshake and checks the answer against the certificate and the membership.
async fn greet(
    shared: &Shared,
    peer: &Peer,
    number: SessionNumber,
    lane: Lane,
    connection: &mut Connection,
) -> Result<(Life, Sender, Receiver), DialError> {
    let identity = connection
        .identity()
        .map_err(|_| DialError::NotThePeer(RefusalReason::NotANode))?;
    shared
        .check_member(&identity, peer)
        .map_err(DialError::NotThePeer)?;
    let (mut send, mut receive) = connection.open_stream().await?;
    let hello = Hello {
        version_min: PEER_VERSION_MIN,
        version_max: PEER_VERSION_MAX,
        cluster: shared.identity.cluster,
        from: shared.life(),
        to: peer.node,
        to_incarnation: peer.incarnation,
        session: number,
        lane,
    };
    let sent = send.write_all(&mut [Bytes::from(hello.encode())]).await;
    // Where it cannot be sent, what comes says why.
    let answer = handshake::read(&mut receive)
        .await?
        .ok_or(DialError::NotThePeer(RefusalReason::Malformed))?;
    sent?;
    check_answer(&answer, &hello, &identity).map_err(DialError::NotThePeer)?;
    Ok((answer.from, send, receive))
}

fn check_answer(
    answer: &Hello,
    hello: &Hello,
    identity: &NodeIdentity,
) -> Result<(), RefusalReason> {
    let speaks = answer.version_min == answer.version_max && answer.common_version().is_some();
    if !speaks {
        return Err(RefusalReason::Version);
    }
    if answer.cluster != hello.cluster {
        return Err(RefusalReason::OtherCluster);
    }
    if (answer.from.node, answer.from.incarnation) != (identity.node, identity.incarnation) {
        return Err(RefusalReason::NotTheSender);
    }
    if (answer.to, answer.to_incarnation) != (hello.from.node, Some(hello.from.incarnation)) {
        return Err(RefusalReason::NotTheReceiver);
    }
    if (answer.session, answer.lane) != (hello.session, hello.lane) {
        return Err(RefusalReason::OldSession);
    }
    Ok(())
}

impl From<Lost> for DialError {
    fn from(lost: Lost) -> DialError {
        match lost.refusal {
            Some(reason) => DialError::Refused(reason),
            None => DialError::Connection(lost.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_anew() {
        let mut backoff = Backoff::new(7);
        let mut bound = BACKOFF_MIN;
        for _ in 0..20 {
            let pause = backoff.next();
            assert!(
                bound / 2 <= pause && pause <= bound,
                "{pause:?} for {bound:?}"
            );
            bound = BACKOFF_MAX.min(bound * 2);
        }
        assert_eq!(bound, BACKOFF_MAX);
        backoff.reset();
        assert!(backoff.next() <= BACKOFF_MIN);
    }
}
