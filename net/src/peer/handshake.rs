//! The first bytes on every lane: who is there, for which session.
//!
//! Both sides send the same fixed form, little-endian. The dialer's offers a range of versions;
//! the acceptor's answers with the one that both will speak, twice. A refusal is not a message but
//! the end of the connection, with the reason as the code that it is closed with.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `HWpl` |
//! | 2 | length of what follows this field, at least 78; more is of a later version and ignored |
//! | 2 + 2 | lowest and highest version spoken |
//! | 16 | cluster id |
//! | 4, 16, 8 | sender: node id, incarnation, boot counter |
//! | 4, 16 | receiver: node id, incarnation (zeros from a dialer that knows none) |
//! | 8 | session number |
//! | 1 | lane |
//! | 1 | zero |

use super::transport::{Lost, Receiver};
use super::{Lane, SessionNumber};
use crate::identity::{Boot, ClusterId, Incarnation, Life, NodeId};

/// The lowest version of the protocol between nodes that this release speaks.
pub const PEER_VERSION_MIN: u16 = 1;

/// The highest version of the protocol between nodes that this release speaks.
pub const PEER_VERSION_MAX: u16 = 1;

const MAGIC: [u8; 4] = *b"HWpl";

/// Magic and length.
pub const HELLO_PREFIX_BYTES: usize = 6;

/// What follows the prefix in version 1.
const BODY_BYTES: usize = 2 + 2 + 16 + (4 + 16 + 8) + (4 + 16) + 8 + 1 + 1;

/// The longest handshake that is read, in bytes behind the prefix: room for later versions.
const BODY_BYTES_MAX: usize = 1_024;

const _: () = assert!(BODY_BYTES == 78);

/// Why a node does not let another begin a session. The number is the code that the connection is
/// closed with, less a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u32)]
pub enum RefusalReason {
    /// The TLS handshake failed: no certificate, one of another authority, of another role or
    /// expired, another protocol (ALPN) or version.
    #[error("TLS handshake failed")]
    Tls = 0,
    /// The certificate is good but makes its holder no node.
    #[error("the certificate is not a node's")]
    NotANode = 1,
    /// A node of another cluster.
    #[error("a node of another cluster")]
    OtherCluster = 2,
    /// Its node id is not in the membership.
    #[error("no such node in the membership")]
    UnknownNode = 3,
    /// The membership has another incarnation for this node id.
    #[error("the membership names another incarnation")]
    OtherIncarnation = 4,
    /// The handshake is not of the form above.
    #[error("malformed handshake")]
    Malformed = 5,
    /// There is no version that both speak.
    #[error("no version in common")]
    Version = 6,
    /// The handshake's sender is not the certificate's holder.
    #[error("the handshake names another sender than the certificate")]
    NotTheSender = 7,
    /// The handshake is meant for another node, or another incarnation of this one.
    #[error("the handshake is meant for another node")]
    NotTheReceiver = 8,
    /// The dialer's id is not lower than the acceptor's.
    #[error("the higher node id dials the lower")]
    WrongDirection = 9,
    /// A later session has begun, or this lane of this session is taken.
    #[error("an old session, or a lane twice")]
    OldSession = 10,
    /// The handshake took too long.
    #[error("handshake timed out")]
    Timeout = 11,
    /// Too many handshakes at once.
    #[error("too many handshakes at once")]
    Busy = 12,
    /// Said by a dialer, in place of its handshake: it is of the other
    /// [`PeerTransport`](super::PeerTransport), and only wants to know whether we are not.
    #[error("it has the other peer_transport")]
    OtherTransport = 13,
}

impl RefusalReason {
    /// How many reasons there are.
    pub const COUNT: usize = 14;

    /// All reasons, by [`index`](RefusalReason::index).
    pub const ALL: [RefusalReason; RefusalReason::COUNT] = [
        RefusalReason::Tls,
        RefusalReason::NotANode,
        RefusalReason::OtherCluster,
        RefusalReason::UnknownNode,
        RefusalReason::OtherIncarnation,
        RefusalReason::Malformed,
        RefusalReason::Version,
        RefusalReason::NotTheSender,
        RefusalReason::NotTheReceiver,
        RefusalReason::WrongDirection,
        RefusalReason::OldSession,
        RefusalReason::Timeout,
        RefusalReason::Busy,
        RefusalReason::OtherTransport,
    ];

    /// Its place in [`RefusalReason::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A handshake message of either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The lowest version that its sender speaks.
    pub version_min: u16,
    /// The highest version that its sender speaks.
    pub version_max: u16,
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender.
    pub from: Life,
    /// Whom it is meant for.
    pub to: NodeId,
    /// The receiver's incarnation, if the sender knows it.
    pub to_incarnation: Option<Incarnation>,
    /// The session that is to begin.
    pub session: SessionNumber,
    /// The lane that it came over.
    pub lane: Lane,
}

impl Hello {
    /// Its bytes, prefix included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HELLO_PREFIX_BYTES + BODY_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&(BODY_BYTES as u16).to_le_bytes());
        bytes.extend_from_slice(&self.version_min.to_le_bytes());
        bytes.extend_from_slice(&self.version_max.to_le_bytes());
        bytes.extend_from_slice(&self.cluster.to_bytes());
        bytes.extend_from_slice(&self.from.node.get().to_le_bytes());
        bytes.extend_from_slice(&self.from.incarnation.to_bytes());
        bytes.extend_from_slice(&self.from.boot.0.to_le_bytes());
        bytes.extend_from_slice(&self.to.get().to_le_bytes());
        let to_incarnation = self.to_incarnation.map_or([0; 16], Incarnation::to_bytes);
        bytes.extend_from_slice(&to_incarnation);
        bytes.extend_from_slice(&self.session.0.to_le_bytes());
        bytes.push(self.lane.index() as u8);
        bytes.push(0);
        debug_assert_eq!(bytes.len(), HELLO_PREFIX_BYTES + BODY_BYTES);
        bytes
    }

    /// How long the body is that follows this prefix; nothing if it is not one of ours.
    #[must_use]
    pub fn body_bytes(prefix: [u8; HELLO_PREFIX_BYTES]) -> Option<usize> {
        let [a, b, c, d, low, high] = prefix;
        let length = usize::from(u16::from_le_bytes([low, high]));
        ([a, b, c, d] == MAGIC && (BODY_BYTES..=BODY_BYTES_MAX).contains(&length)).then_some(length)
    }

    /// Reads a body; nothing if it is malformed.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Hello> {
        let mut fields = Fields(body);
        let hello = Hello {
            version_min: u16::from_le_bytes(fields.take()?),
            version_max: u16::from_le_bytes(fields.take()?),
            cluster: ClusterId::from_bytes(fields.take()?),
            from: Life {
                node: NodeId::new(u32::from_le_bytes(fields.take()?))?,
                incarnation: Incarnation::from_bytes(fields.take()?),
                boot: Boot(u64::from_le_bytes(fields.take()?)),
            },
            to: NodeId::new(u32::from_le_bytes(fields.take()?))?,
            to_incarnation: {
                let bytes: [u8; 16] = fields.take()?;
                (bytes != [0; 16]).then_some(Incarnation::from_bytes(bytes))
            },
            session: SessionNumber(u64::from_le_bytes(fields.take()?)),
            lane: {
                let [lane] = fields.take()?;
                *Lane::ALL.get(usize::from(lane))?
            },
        };
        let [reserved] = fields.take()?;
        (reserved == 0 && hello.version_min <= hello.version_max).then_some(hello)
    }

    /// The version that its sender and we both speak.
    #[must_use]
    pub fn common_version(&self) -> Option<u16> {
        let version = self.version_max.min(PEER_VERSION_MAX);
        (version >= self.version_min.max(PEER_VERSION_MIN)).then_some(version)
    }
}

/// Reads a handshake message; nothing if what comes is none, or not whole.
pub(super) async fn read(stream: &mut Receiver) -> Result<Option<Hello>, Lost> {
    let mut prefix = [0; HELLO_PREFIX_BYTES];
    if !stream.read_array(&mut prefix).await? {
        return Ok(None);
    }
    let Some(length) = Hello::body_bytes(prefix) else {
        return Ok(None);
    };
    let mut body = [0; BODY_BYTES_MAX];
    let whole = stream.read_array(&mut body[..length]).await?;
    Ok(if whole {
        Hello::decode(&body[..length])
    } else {
        None
    })
}

/// Fixed-size fields, one behind the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            version_min: 1,
            version_max: 2,
            cluster: ClusterId::from_bytes([1; 16]),
            from: Life {
                node: NodeId::new(1).unwrap(),
                incarnation: Incarnation::from_bytes([2; 16]),
                boot: Boot(3),
            },
            to: NodeId::new(2).unwrap(),
            to_incarnation: Some(Incarnation::from_bytes([4; 16])),
            session: SessionNumber(5),
            lane: Lane::Bulk,
        }
    }

    fn body(hello: Hello) -> Vec<u8> {
        hello.encode()[HELLO_PREFIX_BYTES..].to_vec()
    }

    #[test]
    fn golden_bytes() {
        let mut golden = b"HWpl\x4e\x00\x01\x00\x02\x00".to_vec();
        golden.extend([1; 16]);
        golden.extend([1, 0, 0, 0]);
        golden.extend([2; 16]);
        golden.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([2, 0, 0, 0]);
        golden.extend([4; 16]);
        golden.extend([5, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([2, 0]);
        assert_eq!(hello().encode(), golden);
    }

    #[test]
    fn what_is_written_is_read() {
        let without = Hello {
            to_incarnation: None,
            lane: Lane::Control,
            ..hello()
        };
        for hello in [hello(), without] {
            let bytes = hello.encode();
            let prefix = bytes[..HELLO_PREFIX_BYTES].try_into().unwrap();
            let length = Hello::body_bytes(prefix).unwrap();
            assert_eq!(length, bytes.len() - HELLO_PREFIX_BYTES);
            assert_eq!(Hello::decode(&bytes[HELLO_PREFIX_BYTES..]), Some(hello));
        }
    }

    #[test]
    fn a_later_version_may_say_more() {
        let mut bytes = body(hello());
        bytes.extend([0xff; 100]);
        assert_eq!(Hello::decode(&bytes), Some(hello()));
        assert_eq!(Hello::body_bytes(*b"HWpl\x00\x04"), Some(BODY_BYTES_MAX));
        assert_eq!(Hello::body_bytes(*b"HWpl\x01\x04"), None);
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(Hello::body_bytes(*b"HWpl\x4d\x00"), None);
        assert_eq!(Hello::body_bytes(*b"GET / "), None);
        let good = body(hello());
        for length in 0..good.len() {
            assert_eq!(Hello::decode(&good[..length]), None, "{length} bytes");
        }
        for (position, byte) in [(76, 3), (77, 1), (3, 0xff), (23, 0x80), (51, 0x80)] {
            let mut bytes = good.clone();
            if position == 3 {
                // The lowest version above the highest.
                bytes[0] = byte;
            } else {
                bytes[position] = byte;
            }
            assert_eq!(Hello::decode(&bytes), None, "byte {position}");
        }
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        let offer = |version_min, version_max| {
            Hello {
                version_min,
                version_max,
                ..hello()
            }
            .common_version()
        };
        assert_eq!(offer(1, 1), Some(1));
        assert_eq!(offer(0, 9), Some(PEER_VERSION_MAX));
        assert_eq!(offer(0, 0), None);
        assert_eq!(offer(PEER_VERSION_MAX + 1, u16::MAX), None);
    }

    #[test]
    fn reasons_have_their_places() {
        for (index, reason) in RefusalReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
    }
}
