//! The path's first hop alone: the client, and a receiver in another thread that acknowledges what
//! has come. No disk, no followers.

use std::net::SocketAddr;
use std::thread;

use anyhow::{Context, Result, anyhow};
use highwater_net::peer::Lane;
use highwater_net::{ClusterCa, ClusterId, Incarnation, NodeIdentity, PeerTls};
use tokio::sync::oneshot;

use super::hub::{Hub, node_id};
use super::setup::{Meeting, meet, peers};
use super::{Links, PipelineLoad, PipelineReport, Role, client, wire};

/// Measures a link alone.
///
/// # Errors
/// When the two do not meet, or the load cannot be sent.
pub(crate) async fn measure(load: &PipelineLoad) -> Result<PipelineReport> {
    load.check()?;
    let [own, other] = credentials()?;
    let meeting = meet(own, load.links())?;
    let (tell, told) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let receiver = Receiver {
        tls: other,
        links: load.links(),
        client: meeting.address,
        tell,
        ended,
    };
    let receiving = thread::spawn(move || receiver.run());
    let measured = send(meeting, told, load).await;
    drop(end);
    let received = receiving.join();
    let received = received.map_err(|_| anyhow!("the receiver has panicked"))?;
    // Why the receiver has failed says more than that the link has ended.
    measured.or_else(|error| received.and(Err(error)))
}

/// Those of the client and of the receiver.
fn credentials() -> Result<[PeerTls; 2]> {
    let cluster = ClusterId::random()?;
    let ca = ClusterCa::generate(cluster)?;
    let issue = |role| -> Result<PeerTls> {
        let identity = NodeIdentity {
            cluster,
            node: node_id(role),
            incarnation: Incarnation::random()?,
        };
        Ok(PeerTls::new(&ca.trust(), &ca.issue_node(&identity)?)?)
    };
    Ok([issue(Role::Client)?, issue(Role::Leader)?])
}

async fn send(
    meeting: Meeting,
    address: oneshot::Receiver<SocketAddr>,
    load: &PipelineLoad,
) -> Result<PipelineReport> {
    let address = address.await.context("the receiver has ended")?;
    client::measure(join(meeting, Role::Leader, address).await?, load, &[]).await
}

/// Waits for the link with the one other.
async fn join(meeting: Meeting, other: Role, address: SocketAddr) -> Result<Hub> {
    let other = peers(&[(other.number(), address.to_string())])?;
    meeting.endpoint.set_peers(&other);
    let mut hub = Hub::new(meeting.endpoint, meeting.events);
    hub.wait_for(1).await?;
    Ok(hub)
}

/// A client's end and a receiver's, in one runtime.
#[cfg(test)]
pub(super) async fn joined() -> Result<(Hub, Hub)> {
    let mut meetings = Vec::new();
    for tls in credentials()? {
        meetings.push(meet(tls, PipelineLoad::default().links())?);
    }
    let [receiver, client] = [meetings.pop(), meetings.pop()].map(|it| it.context("there are two"));
    let (client, receiver) = (client?, receiver?);
    let (own, other) = (client.address, receiver.address);
    tokio::try_join!(
        join(client, Role::Leader, other),
        join(receiver, Role::Client, own)
    )
}

struct Receiver {
    tls: PeerTls,
    links: Links,
    client: SocketAddr,
    tell: oneshot::Sender<SocketAddr>,
    ended: oneshot::Receiver<()>,
}

impl Receiver {
    fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let meeting = meet(self.tls, self.links)?;
            if self.tell.send(meeting.address).is_err() {
                return Ok(());
            }
            tokio::select! {
                _ = self.ended => Ok(()),
                failed = acknowledge(meeting, self.client) => failed,
            }
        })
    }
}

async fn acknowledge(meeting: Meeting, client: SocketAddr) -> Result<()> {
    let mut hub = join(meeting, Role::Client, client).await?;
    loop {
        let arrival = hub.receive().await?;
        let number = wire::number(&arrival.frame)?;
        let chunks = [wire::acknowledgement(number)];
        hub.send(Role::Client, Lane::Control, &chunks)?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pipeline::PeerTransport;

    const SHORT: Duration = Duration::from_millis(40);

    fn over_tcp() -> PipelineLoad {
        PipelineLoad {
            peer_transport: PeerTransport::Tcp,
            runs: 1,
            warm_up: SHORT,
            duration: SHORT,
            ..PipelineLoad::default()
        }
    }

    #[tokio::test]
    async fn a_link_over_tcp_has_a_rate_and_no_datagrams() {
        let report = measure(&over_tcp()).await.unwrap();
        assert!(report.mb_per_second.median > 0.0, "{report:?}");
        assert_eq!(report.peer_transport, PeerTransport::Tcp);
        assert_eq!(report.datagram_bytes, None);
    }

    #[tokio::test]
    async fn datagrams_over_tcp_are_refused() {
        let load = PipelineLoad {
            datagram_bytes: Some(1_452),
            ..over_tcp()
        };
        assert!(measure(&load).await.is_err());
    }
}
