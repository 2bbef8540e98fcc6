//! Who somebody is: cluster, node, incarnation, boot.
//!
//! A *node id* is a place in the cluster, an *incarnation* the data directory that fills it. The
//! same id with another incarnation is another member (it has not the promises of the first), so
//! certificates, the peer handshake and the membership all carry both.

use std::fmt;
use std::str::FromStr;

use rustls::crypto::CryptoProvider;

use crate::tls::crypto_provider;

/// The scheme of the URI in a node's certificate.
const URI_SCHEME: &str = "highwater://";

/// Hexadecimal digits of a 128-bit number.
const HEX_DIGITS: usize = 32;

/// A text that does not name what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdentityError {
    /// A cluster id or incarnation is 32 lower-case hexadecimal digits.
    #[error("{0:?} is not 32 lower-case hexadecimal digits")]
    NotHex(String),
    /// A node id is a decimal number from 0 to `i32::MAX`.
    #[error("{0:?} is not a node id: a decimal number from 0 to 2147483647")]
    NotNodeId(String),
    /// A node's URI is `highwater://<cluster>/<node>/<incarnation>`.
    #[error("{0:?} is not of the form highwater://<cluster>/<node>/<incarnation>")]
    NotNodeUri(String),
}

/// The system has no randomness to give: nothing that needs an identity can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

macro_rules! id_of_128_bits {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Its text is 32 lower-case hexadecimal digits, most significant first; its bytes on the
        /// wire are in the same order.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id of these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0
            }

            /// A new one from the system's secure randomness.
            ///
            /// # Errors
            ///
            /// [`NoRandomness`] if the system has none.
            pub fn random() -> Result<Self, NoRandomness> {
                random_bytes(&crypto_provider()).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdentityError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse_hex(text).map(Self)
            }
        }
    };
}

id_of_128_bits! {
    /// A cluster, named once, when it is made. Nodes of different clusters refuse each other.
    ClusterId
}

id_of_128_bits! {
    /// A data directory's random name, made when it is formatted.
    Incarnation
}

fn random_bytes(provider: &CryptoProvider) -> Result<[u8; 16], NoRandomness> {
    let mut bytes = [0; 16];
    provider
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// Strict: one text per id, so that texts may be compared.
fn parse_hex(text: &str) -> Result<[u8; 16], ParseIdentityError> {
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != HEX_DIGITS || !text.bytes().all(lower_hex) {
        return Err(ParseIdentityError::NotHex(text.to_owned()));
    }
    let number = u128::from_str_radix(text, 16).expect("32 hexadecimal digits are 128 bits");
    Ok(number.to_be_bytes())
}

/// A node's place in the cluster, from 0 to `i32::MAX` (Kafka's broker ids are `i32`). Never
/// given to another member once its first has gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The node id `number`; nothing if it is above `i32::MAX`.
    #[must_use]
    pub const fn new(number: u32) -> Option<NodeId> {
        if number <= i32::MAX as u32 {
            Some(NodeId(number))
        } else {
            None
        }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

impl FromStr for NodeId {
    type Err = ParseIdentityError;

    fn from_str(text: &str) -> Result<NodeId, ParseIdentityError> {
        text.parse()
            .ok()
            .and_then(NodeId::new)
            .filter(|node| node.to_string() == text)
            .ok_or_else(|| ParseIdentityError::NotNodeId(text.to_owned()))
    }
}

/// How many times a data directory has been started, from 1: tells one life of an incarnation
/// from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(pub u64);

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A member of a cluster: what its certificate says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIdentity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its place there.
    pub node: NodeId,
    /// The data directory that fills the place.
    pub incarnation: Incarnation,
}

impl NodeIdentity {
    /// The name that its certificate answers to when a peer dials it. It never reaches a
    /// resolver: `.internal` is reserved for private use.
    #[must_use]
    pub fn peer_name(&self) -> String {
        peer_name(self.cluster, self.node)
    }
}

/// See [`NodeIdentity::peer_name`]; the incarnation has no part in it.
pub(crate) fn peer_name(cluster: ClusterId, node: NodeId) -> String {
    format!("node-{node}.{cluster}.highwater.internal")
}

/// The URI in the certificate: `highwater://<cluster>/<node>/<incarnation>`.
impl fmt::Display for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NodeIdentity {
            cluster,
            node,
            incarnation,
        } = self;
        write!(f, "{URI_SCHEME}{cluster}/{node}/{incarnation}")
    }
}

impl FromStr for NodeIdentity {
    type Err = ParseIdentityError;

    fn from_str(text: &str) -> Result<NodeIdentity, ParseIdentityError> {
        let not_uri = || ParseIdentityError::NotNodeUri(text.to_owned());
        let path = text.strip_prefix(URI_SCHEME).ok_or_else(not_uri)?;
        let mut parts = path.split('/');
        let mut part = || parts.next().ok_or_else(not_uri);
        let identity = NodeIdentity {
            cluster: part()?.parse()?,
            node: part()?.parse()?,
            incarnation: part()?.parse()?,
        };
        match parts.next() {
            None => Ok(identity),
            Some(_) => Err(not_uri()),
        }
    }
}

/// One life of one incarnation of a node: what a session is between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    /// The node.
    pub node: NodeId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// How often that has been started.
    pub boot: Boot,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> NodeIdentity {
        NodeIdentity {
            cluster: ClusterId::from_bytes([0xab; 16]),
            node: NodeId::new(7).unwrap(),
            incarnation: Incarnation::from_bytes([0; 16]),
        }
    }

    #[test]
    fn text_forms_are_read_back() {
        let text = identity().to_string();
        assert_eq!(
            text,
            "highwater://abababababababababababababababab/7/00000000000000000000000000000000"
        );
        assert_eq!(text.parse(), Ok(identity()));
        let id = ClusterId::random().unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_ne!(id, ClusterId::random().unwrap());
    }

    #[test]
    fn a_label_of_the_peer_name_fits_dns() {
        let name = NodeIdentity {
            node: NodeId::new(i32::MAX as u32).unwrap(),
            ..identity()
        }
        .peer_name();
        assert!(name.len() <= 253);
        assert!(name.split('.').all(|label| label.len() <= 63));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "AB", "abababababababababababababababAB", "+1"] {
            assert!(text.parse::<ClusterId>().is_err(), "{text:?}");
        }
        for text in ["", "00", "01", "+1", "-1", "2147483648", "1 ", "x"] {
            assert!(text.parse::<NodeId>().is_err(), "{text:?}");
        }
        let good = identity().to_string();
        for text in [
            format!("{good}/"),
            format!("{good}/x"),
            good.replace("highwater", "http"),
            good.replace("/7/", "/07/"),
            good.replace("/7/", "//"),
            good[..good.len() - 1].to_owned(),
        ] {
            assert!(text.parse::<NodeIdentity>().is_err(), "{text:?}");
        }
    }
}
