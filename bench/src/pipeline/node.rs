//! The leader, and a follower.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::thread;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use highwater_net::peer::Lane;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::backlog::Backlog;
use super::disk::Disk;
use super::hub::{Arrival, Hub};
use super::setup::{Meeting, meet, read_tls};
use super::wire::{self, Batch};
use super::{Role, Start};

/// On how many disks a batch is in the end.
const REPLICAS: u8 = 3;

/// On how many of them it is durable when it is acknowledged.
const QUORUM: u8 = 2;

/// Serves, as the line on the standard input says, until that ends.
///
/// # Errors
/// When the line is not what [`measure`](super::measure) writes, the disk fails, or a link ends.
pub fn run() -> Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let start = lines.next().context("nothing on the standard input")??;
    let start: Start = serde_json::from_str(&start)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let Meeting {
            endpoint,
            events,
            pool,
            address,
        } = meet(read_tls(&start.folder)?, start.links)?;
        let disk = Disk::open(&start.folder.join("data"), start.files, pool)?;
        writeln!(std::io::stdout(), "{address}")?;
        let peers = lines.next().context("nobody says who the others are")??;
        drop(lines);
        let peers: Vec<(u32, String)> = serde_json::from_str(&peers)?;
        let peers = super::setup::peers(&peers)?;
        endpoint.set_peers(&peers);
        let mut hub = Hub::new(endpoint, events);
        hub.wait_for(peers.len()).await?;
        writeln!(std::io::stdout(), "ready")?;
        let node = Node {
            role: start.role,
            hub,
            disk,
            backlogs: [0, 1].map(|nth| Backlog::new(Role::Follower(nth))),
            copies: Copies::default(),
        };
        node.serve(end_of_input()).await
    })
}

/// Told when whoever has started this process has gone, or wants it to end.
fn end_of_input() -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    end
}

struct Node {
    role: Role,
    hub: Hub,
    disk: Disk,
    backlogs: [Backlog; 2],
    copies: Copies,
}

/// On how many disks each batch is, as far as the leader knows.
#[derive(Debug, Default)]
struct Copies(BTreeMap<u64, u8>);

impl Copies {
    /// There is one more. Whether it is the one that makes the batch acknowledged.
    fn add(&mut self, number: u64) -> bool {
        let copies = self.0.entry(number).or_default();
        *copies += 1;
        let is_acknowledged = *copies == QUORUM;
        if *copies == REPLICAS {
            self.0.remove(&number);
        }
        is_acknowledged
    }
}

impl Node {
    async fn serve(mut self, mut end: oneshot::Receiver<()>) -> Result<()> {
        #[expect(
            deprecated,
            reason = "it is sound for an OwnedFd, which keeps its number; the other way is unsafe"
        )]
        let ready = AsyncFd::new(self.disk.event_fd()?)?;
        let mut durable = Vec::new();
        loop {
            while let Some(arrival) = self.hub.try_receive()? {
                self.take(arrival)?;
            }
            self.disk.poll(&mut durable)?;
            for number in durable.drain(..) {
                self.is_durable(number)?;
            }
            tokio::select! {
                arrival = self.hub.receive() => self.take(arrival?)?,
                guard = ready.readable() => guard?.clear_ready(),
                _ = &mut end => return Ok(()),
            }
        }
    }

    fn take(&mut self, arrival: Arrival) -> Result<()> {
        match (arrival.lane, self.role) {
            (Lane::Append, _) => self.take_batch(wire::batch(arrival.frame)?),
            (Lane::Control, Role::Leader) => {
                self.copy_is_durable(wire::acknowledged(&arrival.frame)?)?;
                let mut backlogs = self.backlogs.iter_mut();
                backlogs.try_for_each(|backlog| backlog.forward(&self.hub))
            }
            (lane, role) => bail!("{role:?} is sent something on lane {lane:?}"),
        }
    }

    fn take_batch(&mut self, batch: Batch) -> Result<()> {
        if self.role == Role::Leader {
            let frame = Bytes::from(batch.frame);
            for backlog in &mut self.backlogs {
                backlog.push(vec![frame.clone()], &self.hub)?;
            }
        }
        self.disk.write(batch.number, batch.data);
        Ok(())
    }

    /// A batch is durable here.
    fn is_durable(&mut self, number: u64) -> Result<()> {
        match self.role {
            Role::Leader => self.copy_is_durable(number),
            _ => {
                let chunks = [wire::acknowledgement(number)];
                self.hub.send(Role::Leader, Lane::Control, &chunks)
            }
        }
    }

    /// A batch is durable on one more of the three.
    fn copy_is_durable(&mut self, number: u64) -> Result<()> {
        if self.copies.add(number) {
            let chunks = [wire::acknowledgement(number)];
            self.hub.send(Role::Client, Lane::Control, &chunks)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_copy_is_acknowledged_and_no_other() {
        let mut copies = Copies::default();
        let added: Vec<bool> = [7, 8, 7, 7, 8].map(|number| copies.add(number)).to_vec();
        assert_eq!(added, [false, false, true, false, true]);
        assert_eq!(copies.0.len(), 1, "what is on all disks is forgotten");
    }
}
