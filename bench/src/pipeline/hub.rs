//! A process's end of its links.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use highwater_net::NodeId;
use highwater_net::peer::{Lane, PeerEndpoint, PeerEvent, PeerEvents, SendError, SessionNumber};
use highwater_record::Buffer;
use tokio::time::timeout;

use super::Role;

/// How long the processes may take to meet.
const MEETING_MAX: Duration = Duration::from_secs(30);

/// The links, and which of them stand.
#[derive(Debug)]
pub(super) struct Hub {
    endpoint: PeerEndpoint,
    events: PeerEvents,
    up: BTreeMap<NodeId, SessionNumber>,
}

/// Something that came.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) lane: Lane,
    pub(super) frame: Buffer,
}

pub(super) fn node_id(role: Role) -> NodeId {
    NodeId::new(role.number()).expect("it is a small number")
}

impl Hub {
    pub(super) fn new(endpoint: PeerEndpoint, events: PeerEvents) -> Hub {
        Hub {
            endpoint,
            events,
            up: BTreeMap::new(),
        }
    }

    /// Waits until so many links stand.
    pub(super) async fn wait_for(&mut self, links: usize) -> Result<()> {
        while self.up.len() < links {
            let event = timeout(MEETING_MAX, self.events.recv()).await;
            let event = event.context("the processes do not meet")?;
            if self.take(event)?.is_some() {
                bail!("somebody sends before all have met");
            }
        }
        Ok(())
    }

    /// The next thing that comes.
    pub(super) async fn receive(&mut self) -> Result<Arrival> {
        loop {
            let event = self.events.recv().await;
            if let Some(arrival) = self.take(event)? {
                return Ok(arrival);
            }
        }
    }

    /// What has come already.
    pub(super) fn try_receive(&mut self) -> Result<Option<Arrival>> {
        while let Some(event) = self.events.try_recv() {
            if let Some(arrival) = self.take(event)? {
                return Ok(Some(arrival));
            }
        }
        Ok(None)
    }

    fn take(&mut self, event: PeerEvent) -> Result<Option<Arrival>> {
        match event {
            PeerEvent::Up { peer, session } => {
                self.up.insert(peer.node, session.number);
                Ok(None)
            }
            PeerEvent::Frame { lane, body, .. } => Ok(Some(Arrival { lane, frame: body })),
            PeerEvent::Down { peer, reason, .. } => bail!("the link to {peer} has ended: {reason}"),
            PeerEvent::DialFailed { .. } => Ok(None),
            PeerEvent::Refused { address, reason } => bail!("{address} was refused: {reason}"),
        }
    }

    pub(super) fn send(&self, to: Role, lane: Lane, chunks: &[Bytes]) -> Result<()> {
        match self.send_if_room(to, lane, chunks)? {
            true => Ok(()),
            false => bail!("no room for a frame on lane {lane:?} to {to:?}"),
        }
    }

    /// Whether there was room for it.
    pub(super) fn send_if_room(&self, to: Role, lane: Lane, chunks: &[Bytes]) -> Result<bool> {
        let node = node_id(to);
        let session = self.up.get(&node).context("its link stands")?;
        match self.endpoint.send(node, *session, lane, chunks) {
            Err(SendError::OutboxFull { .. }) => Ok(false),
            sent => Ok(sent.map(|()| true)?),
        }
    }
}
