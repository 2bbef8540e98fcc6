//! The acceptor's side: greets those with lower ids, and refuses everybody else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::events::PeerEvent;
use super::handshake::{self, Hello, RefusalReason};
use super::link::Link;
use super::session::{self, LaneStream};
use super::transport::{Connection, Goodbye, Incoming, Lost, Receiver, Sender};
use super::{INCOMING_MAX, Session, Shared};
use crate::identity::NodeIdentity;

/// How long a newcomer has for TLS and its handshake.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// With fewer places left, a newcomer must first prove that its address is its own.
const PROOF_BELOW: usize = INCOMING_MAX / 2;

/// Greets newcomers until the endpoint is closed.
pub(super) async fn accept_all(shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(INCOMING_MAX));
    // Who is still being greeted when the endpoint is closed, is dropped with it.
    let mut greetings = JoinSet::new();
    while let Some(incoming) = shared.endpoint.accept().await {
        // Its panic, if one had any, was told where it happened.
        while greetings.try_join_next().is_some() {}
        let Ok(place) = places.clone().try_acquire_owned() else {
            refuse(&shared, incoming.address(), RefusalReason::Busy);
            incoming.turn_away();
            continue;
        };
        let crowded = places.available_permits() < PROOF_BELOW;
        let proven = if crowded {
            incoming.prove_address()
        } else {
            Some(incoming)
        };
        let Some(incoming) = proven else { continue };
        let shared = shared.clone();
        greetings.spawn(async move {
            greet_in_time(&shared, incoming).await;
            drop(place);
        });
    }
}

async fn greet_in_time(shared: &Arc<Shared>, incoming: Incoming) {
    let address = incoming.address();
    let greeted = timeout(GREETING_TIMEOUT, greet(shared, incoming)).await;
    if let Err(reason) = greeted.unwrap_or(Err(RefusalReason::Timeout)) {
        refuse(shared, address, reason);
    }
}

fn refuse(shared: &Shared, address: SocketAddr, reason: RefusalReason) {
    shared.counters.refuse(reason);
    tracing::debug!(%address, %reason, "peer connection refused");
    let refused = PeerEvent::Refused { address, reason };
    shared.queue.push_notice(refused);
}

/// Takes a newcomer from its first packet to a lane of a session.
async fn greet(shared: &Arc<Shared>, incoming: Incoming) -> Result<(), RefusalReason> {
    let tls = shared.tls();
    let accepted = incoming.accept(&tls).await;
    let mut connection = accepted.map_err(|_| RefusalReason::Tls)?;
    match take_lane(shared, &mut connection).await {
        Ok(taken) => {
            taken.begin_when_whole(shared, connection);
            Ok(())
        }
        Err(reason) => {
            connection.close(Goodbye::Refused(reason)).await;
            Err(reason)
        }
    }
}

/// A lane that has been greeted and answered.
struct Taken {
    link: Arc<Link>,
    hello: Hello,
    send: Sender,
    receive: Receiver,
}

async fn take_lane(
    shared: &Arc<Shared>,
    connection: &mut Connection,
) -> Result<Taken, RefusalReason> {
    let identity = connection.identity().map_err(|_| RefusalReason::NotANode)?;
    if identity.cluster != shared.identity.cluster {
        return Err(RefusalReason::OtherCluster);
    }
    let link = shared
        .link(identity.node)
        .ok_or(RefusalReason::UnknownNode)?;
    shared.check_member(&identity, &link.peer)?;
    let (mut send, mut receive) = connection.accept_stream().await.map_err(no_handshake)?;
    let hello = handshake::read(&mut receive)
        .await
        .map_err(no_handshake)?
        .ok_or(RefusalReason::Malformed)?;
    let version = check_hello(shared, &hello, &identity)?;
    link.take_lane(&hello)?;
    connection.set_lane(hello.lane);
    answer(shared, &hello, version, &mut send).await?;
    Ok(Taken {
        link,
        hello,
        send,
        receive,
    })
}

/// Why there was a goodbye in place of a handshake.
fn no_handshake(lost: Lost) -> RefusalReason {
    match lost.refusal {
        Some(reason @ RefusalReason::OtherTransport) => reason,
        _ => RefusalReason::Malformed,
    }
}

/// The version to speak with whoever says `hello` and has shown `identity`.
fn check_hello(
    shared: &Shared,
    hello: &Hello,
    identity: &NodeIdentity,
) -> Result<u16, RefusalReason> {
    let version = hello.common_version().ok_or(RefusalReason::Version)?;
    if hello.cluster != shared.identity.cluster {
        return Err(RefusalReason::OtherCluster);
    }
    if (hello.from.node, hello.from.incarnation) != (identity.node, identity.incarnation) {
        return Err(RefusalReason::NotTheSender);
    }
    let own = shared.life();
    let meant = hello.to_incarnation.unwrap_or(own.incarnation);
    if (hello.to, meant) != (own.node, own.incarnation) {
        return Err(RefusalReason::NotTheReceiver);
    }
    if hello.from.node >= own.node {
        return Err(RefusalReason::WrongDirection);
    }
    if !hello.session.is_of(hello.from.boot) {
        return Err(RefusalReason::Malformed);
    }
    Ok(version)
}

async fn answer(
    shared: &Shared,
    hello: &Hello,
    version: u16,
    send: &mut Sender,
) -> Result<(), RefusalReason> {
    let answer = Hello {
        version_min: version,
        version_max: version,
        cluster: shared.identity.cluster,
        from: shared.life(),
        to: hello.from.node,
        to_incarnation: Some(hello.from.incarnation),
        session: hello.session,
        lane: hello.lane,
    };
    let written = send.write_all(&mut [Bytes::from(answer.encode())]).await;
    written.map_err(|_| RefusalReason::Malformed)
}

impl Taken {
    /// Puts the lane in place; the last one of the three begins the session.
    fn begin_when_whole(self, shared: &Arc<Shared>, connection: Connection) {
        let Taken {
            link,
            hello,
            send,
            receive,
        } = self;
        let stream = LaneStream {
            connection,
            send,
            receive,
        };
        if let Some(lanes) = link.put_lane(&hello, stream) {
            let session = Session {
                number: hello.session,
                dialer: hello.from,
                acceptor: shared.life(),
            };
            link.spawn(session::run(shared.clone(), link.clone(), session, lanes));
        }
    }
}
