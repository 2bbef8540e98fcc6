//! A node's end of all its links.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use highwater_record::{ALIGNMENT_MIN, Budget, BufferPool};

use super::accept;
use super::counters::{Counters, PeerCounters};
use super::dial;
use super::events::{EventQueue, PeerEvents};
use super::handshake::RefusalReason;
use super::link::Link;
use super::transport::Endpoint;
use super::{
    CONTROL_FRAME_BYTES_MAX, DownReason, FRAME_BYTES_MAX, Lane, Peer, PeerConfig, PeerTransport,
    SendError, SessionNumber,
};
use crate::identity::{Boot, Life, NodeId, NodeIdentity};
use crate::tls::PeerTls;

/// Memory for control frames that have been received, in bytes, all peers together. Apart from
/// the node's budget, so that votes are read when everything else is full.
const CONTROL_MEMORY_BYTES: usize = 64 << 20;

const _: () = assert!(FRAME_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(2 * CONTROL_FRAME_BYTES_MAX <= CONTROL_MEMORY_BYTES);

/// A node's end of its links cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen for peers on {} {listen}: {source}", transport.protocol())]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What would have listened there.
        transport: PeerTransport,
        /// What the system said.
        source: io::Error,
    },
    /// The boot counter is 0, which means never started, or above `u32::MAX`.
    #[error("boot counter {0} is not from 1 to 4294967295")]
    Boot(Boot),
}

/// A node's end of its links: sends frames, knows who is up. Clones are the same end, which stops
/// when the last of them is dropped.
#[derive(Clone)]
pub struct PeerEndpoint {
    owner: Arc<Owner>,
}

/// Stops everything with the last handle; the tasks have only what is inside.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What handles and tasks share.
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    listening: SocketAddr,
    pub(super) identity: NodeIdentity,
    pub(super) config: PeerConfig,
    pub(super) control_pool: BufferPool,
    pub(super) counters: Counters,
    pub(super) queue: Arc<EventQueue>,
    tls: Mutex<PeerTls>,
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    /// How many sessions this life has tried to begin, with whomever.
    attempts: AtomicU32,
}

impl PeerEndpoint {
    /// Listens, and begins to dial the peers with higher ids. All its work is done by the tokio
    /// runtime in whose context this is called.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened on, or the boot counter is out of its range.
    pub fn start(
        config: PeerConfig,
        tls: PeerTls,
    ) -> Result<(PeerEndpoint, PeerEvents), StartError> {
        if config.boot.0 == 0 || u32::try_from(config.boot.0).is_err() {
            return Err(StartError::Boot(config.boot));
        }
        let listen = config.listen;
        let transport = config.transport;
        let not_listening = |source| StartError::Listen {
            listen,
            transport,
            source,
        };
        let endpoint = Endpoint::listen(&config, &tls).map_err(not_listening)?;
        let listening = endpoint.local_addr().map_err(not_listening)?;
        let (queue, events) = EventQueue::new();
        let peers = config.peers.clone();
        let shared = Arc::new(Shared {
            endpoint,
            listening,
            identity: tls.identity(),
            config,
            control_pool: BufferPool::new(Budget::new(CONTROL_MEMORY_BYTES), ALIGNMENT_MIN),
            counters: Counters::default(),
            queue,
            tls: Mutex::new(tls),
            links: Mutex::default(),
            attempts: AtomicU32::new(0),
        });
        tokio::spawn(accept::accept_all(shared.clone()));
        let endpoint = PeerEndpoint {
            owner: Arc::new(Owner(shared)),
        };
        endpoint.set_peers(&peers);
        Ok((endpoint, events))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.0
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared().listening
    }

    /// Who this end is.
    #[must_use]
    pub fn life(&self) -> Life {
        self.shared().life()
    }

    /// By its certificate.
    #[cfg(test)]
    pub(super) fn owner_identity(&self) -> NodeIdentity {
        self.shared().identity
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> PeerCounters {
        self.shared().counters.snapshot()
    }

    /// Sends a frame that consists of `chunks`, in one session and no other. It is on its way
    /// when the peer's turn comes; that it arrives is known from its answer only.
    ///
    /// Chunks are not copied, unless they are small.
    ///
    /// # Errors
    ///
    /// [`SendError`]; the frame is not sent then.
    pub fn send(
        &self,
        to: NodeId,
        session: SessionNumber,
        lane: Lane,
        chunks: &[Bytes],
    ) -> Result<(), SendError> {
        let bytes = chunks.iter().map(Bytes::len).sum();
        let max = lane.frame_bytes_max();
        if bytes > max {
            return Err(SendError::TooLarge { lane, bytes, max });
        }
        let not_up = SendError::NotUp { to, session };
        let shared = self.shared();
        let link = shared.link(to).ok_or(not_up)?;
        let outbox = link.outbox(session, lane).ok_or(not_up)?;
        let length = u32::try_from(bytes).expect("a lane's limit is below 4 GiB");
        if let Err(full) = outbox.push(chunks, length) {
            shared.counters.outbox_full.add(1);
            if lane != Lane::Control {
                return Err(SendError::OutboxFull {
                    to,
                    lane,
                    waiting: full.waiting,
                    bytes,
                });
            }
            let limit = shared.config.outbox.control;
            link.end(session, DownReason::ControlOverflow { limit });
            return Err(not_up);
        }
        shared.counters.frames_sent.add(1);
        shared.counters.bytes_sent.add(bytes as u64);
        Ok(())
    }

    /// Waits until a lane's outbox is at most half full, for those who have been told
    /// [`SendError::OutboxFull`] and can wait.
    ///
    /// # Errors
    ///
    /// [`SendError::NotUp`] if the session does not stand; one that ends meanwhile ends the wait,
    /// and the next send tells.
    pub async fn room(
        &self,
        to: NodeId,
        session: SessionNumber,
        lane: Lane,
    ) -> Result<(), SendError> {
        let not_up = SendError::NotUp { to, session };
        let link = self.shared().link(to).ok_or(not_up)?;
        link.outbox(session, lane).ok_or(not_up)?.room().await;
        Ok(())
    }

    /// Sets the membership. Links to those who are new begin, links to those who are gone end;
    /// one whose incarnation or address has changed is both. Must be called in the context of a
    /// tokio runtime.
    pub fn set_peers(&self, peers: &[Peer]) {
        let shared = self.shared();
        let own = shared.identity.node;
        let mut links = shared.links();
        links.retain(|node, link| {
            let stays = peers.iter().any(|peer| peer.node == *node);
            if !stays {
                link.stop();
            }
            stays
        });
        for peer in peers {
            if peer.node == own || links.get(&peer.node).is_some_and(|link| link.peer == *peer) {
                continue;
            }
            let link = Link::new(*peer);
            if let Some(replaced) = links.insert(peer.node, link.clone()) {
                replaced.stop();
                link.follow(&replaced);
            }
            if own < peer.node {
                link.spawn(dial::keep_up(shared.clone(), link.clone()));
            }
        }
    }

    /// Uses another certificate, or another authority, from the next handshake on. Sessions that
    /// stand are not touched.
    ///
    /// # Panics
    ///
    /// If the certificate is of another identity.
    pub fn replace_tls(&self, tls: PeerTls) {
        assert_eq!(tls.identity(), self.shared().identity);
        *self.shared().tls_lock() = tls;
    }

    /// Ends all sessions, tells the peers, and waits until everything is over and the port free.
    pub async fn close(&self) {
        let shared = self.shared();
        let links: Vec<_> = shared.links().values().cloned().collect();
        for link in &links {
            link.stop();
        }
        for link in &links {
            if let Some(task) = link.take_task() {
                // Its panic, if it had one, was told where it happened.
                let _ = task.await;
            }
        }
        shared.endpoint.shut().await;
    }
}

impl std::fmt::Debug for PeerEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PeerEndpoint({})", self.shared().identity)
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Link>>> {
        self.links
            .lock()
            .expect("nothing panics while it holds the links")
    }

    fn tls_lock(&self) -> MutexGuard<'_, PeerTls> {
        self.tls
            .lock()
            .expect("nothing panics while it holds the certificates")
    }

    fn stop(&self) {
        for link in self.links().values() {
            link.stop();
        }
        self.endpoint.close();
    }

    pub(super) fn link(&self, node: NodeId) -> Option<Arc<Link>> {
        self.links().get(&node).cloned()
    }

    pub(super) fn tls(&self) -> PeerTls {
        self.tls_lock().clone()
    }

    pub(super) fn life(&self) -> Life {
        Life {
            node: self.identity.node,
            incarnation: self.identity.incarnation,
            boot: self.config.boot,
        }
    }

    /// A number that this node has never given to a session, and will not.
    pub(super) fn next_session(&self) -> SessionNumber {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        assert!(attempt < u32::MAX, "a life has fewer attempts");
        SessionNumber::new(self.config.boot, attempt + 1)
    }

    /// Whether the holder of a verified certificate is the `peer` of the membership.
    pub(super) fn check_member(
        &self,
        identity: &NodeIdentity,
        peer: &Peer,
    ) -> Result<(), RefusalReason> {
        if identity.cluster != self.identity.cluster {
            return Err(RefusalReason::OtherCluster);
        }
        if identity.node != peer.node {
            return Err(RefusalReason::UnknownNode);
        }
        match peer.incarnation {
            Some(incarnation) if incarnation != identity.incarnation => {
                Err(RefusalReason::OtherIncarnation)
            }
            _ => Ok(()),
        }
    }
}
