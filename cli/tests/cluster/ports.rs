//! Ports at which nobody listens.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// Below the range that the system itself gives away, so that no client gets one of them.
const BASES: std::ops::Range<u16> = 10_000..30_000;

/// What `highwater init` adds to the base port for Kafka, peers and metrics.
const ABOVE: [u16; 3] = [0, 100, 200];

/// A base port for `highwater init`: it and those that follow from it are free, TCP and UDP alike.
pub(crate) fn free_base_port(nodes: u16) -> u16 {
    let are_free = |base: &u16| {
        let mut all = ABOVE
            .into_iter()
            .flat_map(|above| (0..nodes).map(move |id| above + id));
        all.all(|above| is_free(base + above))
    };
    let mut bases = std::iter::repeat_with(|| fastrand::u16(BASES));
    bases.find(are_free).unwrap()
}

/// Whether nobody listens at a port, TCP and UDP alike.
pub(crate) fn is_free(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}
