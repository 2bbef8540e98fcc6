//! The acceptor's side: greets those with lower ids, and refuses everybody else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, Incoming, SendStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::events::PeerEvent;
use super::handshake::{self, Hello, RefusalReason};
use super::link::Link;
use super::session::{self, LaneStream};
use super::{INCOMING_MAX, Lane, Session, Shared, lane_shape};
use crate::gather::Gather;
use crate::identity::NodeIdentity;
use crate::tls::peer_identity;

/// How long a newcomer has for TLS and its handshake.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// With fewer places left, a newcomer must first prove that its address is its own.
const RETRY_BELOW: usize = INCOMING_MAX / 2;

/// Greets newcomers until the endpoint is closed.
pub(super) async fn accept_all(shared: Arc<Shared>, endpoint: Endpoint) {
    let places = Arc::new(Semaphore::new(INCOMING_MAX));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(place) = places.clone().try_acquire_owned() else {
            refuse(&shared, incoming.remote_address(), RefusalReason::Busy);
            incoming.refuse();
            continue;
        };
        if places.available_permits() < RETRY_BELOW && incoming.may_retry() {
            incoming.retry().expect("it may retry");
            continue;
        }
        let shared = shared.clone();
        tokio::spawn(async move {
            greet_in_time(&shared, incoming).await;
            drop(place);
        });
    }
}

async fn greet_in_time(shared: &Arc<Shared>, incoming: Incoming) {
    let address = incoming.remote_address();
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
    let path = shared.config.path_to(incoming.remote_address().ip());
    let connecting = incoming
        .accept_with(shared.server_config(path))
        .map_err(|_| RefusalReason::Tls)?;
    let connection = connecting.await.map_err(|_| RefusalReason::Tls)?;
    let refused = take_lane(shared, &connection).await;
    if let Err(reason) = &refused {
        connection.close(reason.code(), reason.to_string().as_bytes());
    }
    refused
}

async fn take_lane(shared: &Arc<Shared>, connection: &Connection) -> Result<(), RefusalReason> {
    let identity = peer_identity(connection).map_err(|_| RefusalReason::NotANode)?;
    if identity.cluster != shared.identity.cluster {
        return Err(RefusalReason::OtherCluster);
    }
    let link = shared
        .link(identity.node)
        .ok_or(RefusalReason::UnknownNode)?;
    shared.check_member(&identity, &link.peer)?;
    let (send, receive) = connection
        .accept_bi()
        .await
        .map_err(|_| RefusalReason::Malformed)?;
    let mut receive = Gather::new(receive);
    let hello = handshake::read(&mut receive)
        .await
        .ok()
        .flatten()
        .ok_or(RefusalReason::Malformed)?;
    let version = check_hello(shared, &hello, &identity)?;
    link.take_lane(&hello)?;
    shape(connection, hello.lane);
    let stream = LaneStream {
        connection: connection.clone(),
        send: answer(shared, &hello, version, send).await?,
        receive,
    };
    begin_when_whole(shared, &link, &hello, stream);
    Ok(())
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

/// What only the handshake tells: which lane this connection is. Its stream window, settled
/// before, stays that of the append lane.
fn shape(connection: &Connection, lane: Lane) {
    let shape = lane_shape(lane);
    connection.set_send_window(shape.send_window);
    connection.set_receive_window(shape.receive_window.into());
}

async fn answer(
    shared: &Shared,
    hello: &Hello,
    version: u16,
    mut send: SendStream,
) -> Result<SendStream, RefusalReason> {
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
    match send.write_all(&answer.encode()).await {
        Ok(()) => Ok(send),
        Err(_) => Err(RefusalReason::Malformed),
    }
}

/// Puts the lane in place; the last one of the three begins the session.
fn begin_when_whole(shared: &Arc<Shared>, link: &Arc<Link>, hello: &Hello, stream: LaneStream) {
    if let Some(lanes) = link.put_lane(hello, stream) {
        let session = Session {
            number: hello.session,
            dialer: hello.from,
            acceptor: shared.life(),
        };
        link.spawn(session::run(shared.clone(), link.clone(), session, lanes));
    }
}
