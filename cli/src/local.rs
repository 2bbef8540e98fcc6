//! A cluster in this process: where its nodes listen on loopback, and how they are configured.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use highwater::config::{Config, Layers};
use highwater::setup::CONFIG_FILE;

use crate::exit::{Failure, Kind};

/// Where one node listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    kafka: SocketAddr,
    peer: SocketAddr,
    metrics: SocketAddr,
}

impl Addresses {
    /// For so many nodes: Kafka's port of node 0 is `port`, the others follow; 0 takes free ones.
    ///
    /// # Errors
    /// When ports run out.
    pub(crate) fn of_nodes(nodes: usize, port: u16) -> Result<Vec<Self>, Failure> {
        match port {
            0 => Ok(Self::free(nodes)?),
            port => (0..nodes).map(|node| Self::at(port, node)).collect(),
        }
    }

    fn at(port: u16, node: usize) -> Result<Self, Failure> {
        let at = |above: u16| {
            let node = u16::try_from(node).ok()?;
            let port = port.checked_add(above)?.checked_add(node)?;
            Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        };
        match (at(0), at(100), at(200)) {
            (Some(kafka), Some(peer), Some(metrics)) => Ok(Self {
                kafka,
                peer,
                metrics,
            }),
            _ => Err(Failure::new(
                Kind::Setup,
                format!("--port {port} leaves no room for the ports above it"),
            )),
        }
    }

    /// Ports that are free now, for TCP and UDP alike.
    fn free(nodes: usize) -> std::io::Result<Vec<Self>> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        // Held together, so that they differ.
        let mut held = Vec::new();
        while held.len() < 3 * nodes {
            let tcp = TcpListener::bind(any)?;
            let address = tcp.local_addr()?;
            // What is free for one may be taken for the other.
            if let Ok(udp) = UdpSocket::bind(address) {
                held.push((address, tcp, udp));
            }
        }
        let of_node = |ports: &[(SocketAddr, TcpListener, UdpSocket)]| Self {
            kafka: ports[0].0,
            peer: ports[1].0,
            metrics: ports[2].0,
        };
        Ok(held.chunks_exact(3).map(of_node).collect())
    }
}

/// The nodes' configurations, at the addresses of this run. `options` are set over what the
/// files and the environment say.
///
/// # Errors
/// When a file cannot be read, or there is no such option.
pub(crate) fn configs(
    folders: &[PathBuf],
    addresses: &[Addresses],
    options: &[(&str, &str)],
) -> Result<Vec<Config>, Failure> {
    let mut configs = folders
        .iter()
        .zip(addresses)
        .map(|(folder, addresses)| config(folder, addresses, options))
        .collect::<Result<Vec<_>, Failure>>()?;
    for config in &mut configs {
        for (node, addresses) in config.cluster.nodes.iter_mut().zip(addresses) {
            node.peer = addresses.peer;
        }
    }
    Ok(configs)
}

fn config(
    folder: &Path,
    addresses: &Addresses,
    options: &[(&str, &str)],
) -> Result<Config, Failure> {
    let mut layers = Layers::new();
    layers.file(&folder.join(CONFIG_FILE))?;
    layers.environment(std::env::vars())?;
    layers.set("listen.kafka", &addresses.kafka.to_string())?;
    layers.set("listen.peer", &addresses.peer.to_string())?;
    layers.set("listen.metrics", &addresses.metrics.to_string())?;
    for (key, value) in options {
        layers.set(key, value)?;
    }
    Ok(layers.finish()?)
}
