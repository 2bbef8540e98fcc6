//! Finds out why a peer does not answer: whether it is there by the other transport.
//!
//! A node listens by its own transport only, so one whose peers have the other would wait for them
//! without a word. Until a link has first stood, its dialer therefore also knocks by the other one
//! now and then. Who opens with the peer's certificate shows what the peer's `peer_transport` is,
//! and the dialer's goodbye tells the peer.

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::dial::DIAL_TIMEOUT;
use super::events::{DialError, PeerEvent};
use super::handshake::RefusalReason;
use super::transport::{Endpoint, Goodbye, Target};
use super::{Lane, Peer, Shared};
use crate::identity::peer_name;

/// The pause before each knock. Peers that are about to start are not knocked at by both.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// Knocks until the link `stands`, and tells each time that the peer opens.
pub(super) async fn knock(shared: &Shared, peer: &Peer, mut stands: watch::Receiver<bool>) {
    tokio::select! {
        // Its sender lives as long as the link.
        _ = stands.wait_for(|stands| *stands) => {}
        () = knock_for_ever(shared, peer) => {}
    }
}

async fn knock_for_ever(shared: &Shared, peer: &Peer) {
    let ours = shared.config.transport;
    let theirs = ours.other();
    loop {
        sleep(PAUSE).await;
        if let Ok(true) = timeout(DIAL_TIMEOUT, opens(shared, peer)).await {
            tracing::debug!(peer = %peer.node, %theirs, %ours, "a peer of another transport");
            shared.queue.push_notice(PeerEvent::DialFailed {
                peer: peer.node,
                reason: DialError::OtherTransport { theirs, ours },
            });
        }
    }
}

/// Whether the peer is there by the other transport; it is told that we are not.
async fn opens(shared: &Shared, peer: &Peer) -> bool {
    let Ok(endpoint) = Endpoint::dialer(shared.config.transport.other(), &shared.config) else {
        return false;
    };
    let name = peer_name(shared.identity.cluster, peer.node);
    let target = Target {
        address: peer.address,
        name: &name,
        lane: Lane::Control,
    };
    let Ok(connection) = endpoint.connect(&shared.tls().client, target).await else {
        return false;
    };
    let known = connection.identity();
    let is_peer = known.is_ok_and(|known| shared.check_member(&known, peer).is_ok());
    let told = Goodbye::Refused(RefusalReason::OtherTransport);
    connection.close(told).await;
    endpoint.shut().await;
    is_peer
}
