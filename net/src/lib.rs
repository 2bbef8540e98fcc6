//! Bytes between machines: QUIC and TCP endpoints, links, TLS, cluster identity, framing.
//!
//! This crate moves frames and knows who sent them. It does not know what they mean: no terms, no
//! offsets, no disks.

mod ca;
mod counter;
mod gather;
mod identity;
pub mod kafka;
mod memory;
pub mod peer;
mod pem;
mod quic;
mod tls;

pub use ca::{CERTIFICATE_DAYS, CaError, ClusterCa, Credentials};
pub use identity::{
    Boot, ClusterId, Incarnation, Life, NoRandomness, NodeId, NodeIdentity, ParseIdentityError,
};
pub use pem::{PEM_BYTES_MAX, PemError};
pub use quic::Datagrams;
pub use tls::{
    ALPN_KAFKA, ALPN_PEER, ALPN_PEER_TCP, CertificateError, ClientTls, ListenerTls, PeerTls,
    TlsError, Trust, identity_of,
};
