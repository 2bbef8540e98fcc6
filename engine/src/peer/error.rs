//! Why a frame was dropped.

use highwater_consensus::{NodeId, Session};

/// A frame that cannot be believed. It is dropped whole and counted; the link stays, for
/// consensus survives what is lost, unless its owner sees fit to close it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It ends before it should, or goes on behind its end.
    #[error("the frame is {what}")]
    Length {
        /// Too short, or too long.
        what: &'static str,
    },
    /// Not a peer frame.
    #[error("the frame has no magic")]
    Magic,
    /// A newer node speaks a version that is not known here.
    #[error("the frame has version {found}, known is {known}")]
    Version {
        /// Its version.
        found: u16,
        /// The one known here.
        known: u16,
    },
    /// The headers are not as they were sent.
    #[error("the checksum of the frame's headers does not hold")]
    HeaderCrc,
    /// A body is not as it was sent.
    #[error("the checksum of entry {index} does not hold")]
    BodyCrc {
        /// Its index.
        index: u64,
    },
    /// A message between services is not as it was sent.
    #[error("the checksum of a message between services does not hold")]
    MessageCrc,
    /// It was meant for, or comes from, somebody else.
    #[error("the frame comes from {from} of another cluster or life, or was meant for another")]
    Identity {
        /// Who it says it comes from.
        from: NodeId,
    },
    /// It belongs to another life of the link.
    #[error("the frame belongs to session {found:?}, the link has {expected:?}")]
    Session {
        /// Its session.
        found: Session,
        /// The link's.
        expected: Session,
    },
    /// A field has a value that it cannot have.
    #[error("{field} has the impossible value {value}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A batch is not what its entry says.
    #[error("entry {index} is not the batch that it says it is")]
    Batch {
        /// Its index.
        index: u64,
    },
}
