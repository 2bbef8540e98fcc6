//! A network that can be spoilt: every process of a cluster lives in a namespace whose only way
//! out is a TUN device, and a thread of ours carries the packets between them.
//!
//! Nothing of it outlives this process. Namespaces have no name in the file system; they are kept
//! by the threads that live in them and go with the last process inside, and a TUN device goes
//! with its descriptor.

mod link;
mod namespace;
mod packet;
mod router;
mod tun;

pub(crate) use link::Link;
pub(crate) use namespace::Namespace;
pub(crate) use router::{Carried, Router, Spoilt};

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::Context;

/// The first three bytes of all addresses: nobody outside of the namespaces sees them.
const SUBNET: [u8; 3] = [10, 66, 0];

/// The last byte of the first namespace's address; the others follow.
const FIRST_HOST: u8 = 10;

/// The address of a namespace, by its number.
pub(crate) fn address(end: usize) -> Ipv4Addr {
    let [a, b, c] = SUBNET;
    let end = u8::try_from(end).expect("a few namespaces");
    Ipv4Addr::new(a, b, c, FIRST_HOST + end)
}

/// Which namespace has an address.
fn end_of(address: Ipv4Addr) -> Option<usize> {
    let [a, b, c, host] = address.octets();
    let end = host.checked_sub(FIRST_HOST)?;
    ([a, b, c] == SUBNET).then_some(usize::from(end))
}

/// Whether this process may make namespaces and devices; if not, why.
pub(crate) fn is_possible() -> Result<(), String> {
    let tried = Namespace::new("probe").and_then(|namespace| namespace.inside(|| tun::open("hw")));
    tried.map(drop).map_err(|error| {
        format!("no network namespaces or TUN devices here ({error}); that takes root")
    })
}

/// Namespaces with a router between them.
pub(crate) fn connect(ends: usize, seed: u64) -> anyhow::Result<(Vec<Namespace>, Router)> {
    let mut namespaces = Vec::new();
    let mut devices = Vec::new();
    for end in 0..ends {
        let namespace = Namespace::new(&format!("chaos-net-{end}"))?;
        let address = address(end);
        let device = namespace.inside(move || {
            let device = tun::open(DEVICE).context("a TUN device")?;
            ip(&["link", "set", "lo", "up"])?;
            ip(&["addr", "add", &format!("{address}/24"), "dev", DEVICE])?;
            ip(&["link", "set", DEVICE, "up"])?;
            anyhow::Ok(device)
        })?;
        devices.push(device);
        namespaces.push(namespace);
    }
    Ok((namespaces, Router::start(devices, seed)?))
}

/// The device's name, the same in each namespace.
const DEVICE: &str = "hw0";

/// `ip`, in the namespace of the calling thread.
fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let done = Command::new("ip").args(arguments).output();
    let done = done.context("ip (of the package iproute2)")?;
    let error = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    anyhow::ensure!(done.status.success(), "ip {}: {error}", arguments.join(" "));
    Ok(())
}

/// What a system call said, as an error of the standard library.
fn io_error(error: rustix::io::Errno) -> io::Error {
    error.into()
}
