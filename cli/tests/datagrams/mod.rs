//! QUIC's datagrams as strangers send them.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use highwater_client::{Client, blocking};

/// The largest datagram that is sent, in bytes.
const DATAGRAM_BYTES_MAX: usize = 1_500;

/// How long a client waits for a node that does not answer.
const IN_VAIN: Duration = Duration::from_millis(500);

/// After so much silence nothing more is expected.
const SILENCE: Duration = Duration::from_millis(500);

pub(crate) fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// What our client says first, and again, to somebody who does not answer.
pub(crate) fn first_words(ca: &Path) -> Vec<Vec<u8>> {
    let deaf = socket();
    let address = deaf.local_addr().unwrap().to_string();
    let client = Client::builder().bootstrap(&address).quic(ca);
    let connected = blocking::Client::connect(client.connect_timeout(IN_VAIN));
    assert!(connected.is_err(), "nobody answers");
    deaf.set_nonblocking(true).unwrap();
    let words = std::iter::from_fn(|| receive(&deaf));
    let words: Vec<_> = words.collect();
    assert!(!words.is_empty(), "a client begins");
    words
}

fn receive(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut datagram = vec![0; 1 << 16];
    let length = socket.recv(&mut datagram).ok()?;
    datagram.truncate(length);
    Some(datagram)
}

/// Says something and nothing more: how many bytes come back.
pub(crate) fn bytes_back(to: SocketAddr, datagram: &[u8]) -> usize {
    let socket = socket();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket.send(datagram).unwrap();
    std::iter::from_fn(|| receive(&socket))
        .map(|it| it.len())
        .sum()
}

/// A datagram that differs from a good one.
pub(crate) fn spoilt(good: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut datagram = rng.choice(good).unwrap().clone();
    datagram.truncate(DATAGRAM_BYTES_MAX);
    match rng.u8(..6) {
        0 => datagram.truncate(rng.usize(..datagram.len())),
        1 => datagram.resize(rng.usize(..DATAGRAM_BYTES_MAX), rng.u8(..)),
        2 => rng.fill(&mut datagram),
        3 => {
            // The front is in the clear: form, version, lengths of connection ids and token.
            let at = rng.usize(..32.min(datagram.len()));
            datagram[at] = rng.u8(..);
        }
        _ => {
            for _ in 0..rng.usize(1..8) {
                let at = rng.usize(..datagram.len());
                datagram[at] ^= 1 << rng.u8(..8);
            }
        }
    }
    datagram
}
