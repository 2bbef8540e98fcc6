//! What services say to each other: somebody asks the controller's leader, and it answers.
//!
//! Little-endian. Version 1:
//!
//! | field | |
//! |---|---|
//! | version u16 | 1 |
//! | kind u8 | 1 ask, 2 answer |
//! | id u64 | the asker's name for it |
//! | ask: what u8 | 1 a client's request (its frame without the length, to the end); 2 producer ids; 3 registration (as in the controller's records) |
//! | answer: outcome u8 | 1 not the controller's leader; 2 busy; 3 unknown; 4 done: u64 index of group 0 to be applied first, and what came of it, to the end |
//!
//! What came of it is the whole response frame for a client's request, first i64 and count u32
//! for producer ids, and a UTF-8 text for a registration, empty if it is accepted.

use highwater_consensus::LogIndex;
use highwater_record::Buffer;

use crate::codec::{Put, Take, Truncated};
use crate::controller::{EventError, NodeRegistration};
use crate::service::SERVICE_MESSAGE_BYTES_MAX;

const VERSION: u16 = 1;
const ASK: u8 = 1;
const ANSWER: u8 = 2;

/// What a message has besides a client's request or the response to it, in bytes, and then some.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// The largest client's request that can be passed on, in bytes.
pub(in crate::kafka::cluster) const FORWARDED_BYTES_MAX: usize =
    SERVICE_MESSAGE_BYTES_MAX - MESSAGE_OVERHEAD_BYTES;

/// A message between services.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka::cluster) enum Message {
    /// A question to the controller's leader.
    Ask { id: u64, what: What },
    /// Its answer.
    Answer { id: u64, outcome: Outcome },
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka::cluster) enum What {
    /// A client's request to change topics: its frame, without the length.
    Request(Buffer),
    /// Producer ids for the asking node.
    ProducerIds,
    /// The asking node is to be registered.
    Register(NodeRegistration),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka::cluster) enum Outcome {
    /// Nothing: somebody else leads. Ask again, there.
    NotController,
    /// Nothing: too much is waiting. Ask again, later.
    Busy,
    /// Nobody knows: leadership was lost on the way. It may have happened, or happen yet.
    Unknown,
    /// It is committed, or was refused.
    Done {
        /// What must be applied where the client is, so that it finds what it was told.
        index: LogIndex,
        /// See the module's text.
        payload: Buffer,
    },
}

/// Why bytes are no message. Another version of the program, or a bug: they are dropped, and
/// whoever waits for an answer does so in vain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::kafka::cluster) enum MessageError {
    /// Of a version or kind that this program does not know.
    #[error("message of version {version}, kind {kind}, {variant} is not known")]
    Unknown { version: u16, kind: u8, variant: u8 },
    /// They end too early.
    #[error("message: {0}")]
    Truncated(#[from] Truncated),
    /// The registration cannot be read.
    #[error("registration: {0}")]
    Registration(#[from] EventError),
    /// They do not end where they should.
    #[error("{0} bytes follow the message")]
    TrailingBytes(usize),
}

impl Message {
    /// The message as bytes.
    pub(in crate::kafka::cluster) fn encode(&self) -> Buffer {
        let mut bytes = Vec::new();
        bytes.put_u16(VERSION);
        match self {
            Message::Ask { id, what } => {
                bytes.put_u8(ASK);
                bytes.put_u64(*id);
                match what {
                    What::Request(frame) => {
                        bytes.put_u8(1);
                        bytes.put(frame);
                    }
                    What::ProducerIds => bytes.put_u8(2),
                    What::Register(node) => {
                        bytes.put_u8(3);
                        node.encode(&mut bytes);
                    }
                }
            }
            Message::Answer { id, outcome } => {
                bytes.put_u8(ANSWER);
                bytes.put_u64(*id);
                match outcome {
                    Outcome::NotController => bytes.put_u8(1),
                    Outcome::Busy => bytes.put_u8(2),
                    Outcome::Unknown => bytes.put_u8(3),
                    Outcome::Done { index, payload } => {
                        bytes.put_u8(4);
                        bytes.put_u64(index.0);
                        bytes.put(payload);
                    }
                }
            }
        }
        Buffer::from(bytes)
    }

    /// The message in `bytes`.
    pub(in crate::kafka::cluster) fn decode(bytes: &Buffer) -> Result<Message, MessageError> {
        let from = &mut &bytes[..];
        let version = from.take_u16()?;
        let kind = from.take_u8()?;
        let id = from.take_u64()?;
        let variant = from.take_u8()?;
        let rest = |from: &[u8]| bytes.slice(bytes.len() - from.len()..);
        let message = match (version, kind, variant) {
            (VERSION, ASK, 1) => {
                let what = What::Request(rest(from));
                return Ok(Message::Ask { id, what });
            }
            (VERSION, ASK, 2) => {
                let what = What::ProducerIds;
                Message::Ask { id, what }
            }
            (VERSION, ASK, 3) => {
                let what = What::Register(NodeRegistration::decode(from)?);
                Message::Ask { id, what }
            }
            (VERSION, ANSWER, 1) => Message::Answer {
                id,
                outcome: Outcome::NotController,
            },
            (VERSION, ANSWER, 2) => Message::Answer {
                id,
                outcome: Outcome::Busy,
            },
            (VERSION, ANSWER, 3) => Message::Answer {
                id,
                outcome: Outcome::Unknown,
            },
            (VERSION, ANSWER, 4) => {
                let index = LogIndex(from.take_u64()?);
                let payload = rest(from);
                let outcome = Outcome::Done { index, payload };
                return Ok(Message::Answer { id, outcome });
            }
            _ => {
                return Err(MessageError::Unknown {
                    version,
                    kind,
                    variant,
                });
            }
        };
        match from.len() {
            0 => Ok(message),
            left => Err(MessageError::TrailingBytes(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater_consensus::NodeId;
    use highwater_log::Incarnation;

    use super::*;
    use crate::controller::Listener;

    fn examples() -> Vec<Message> {
        let node = NodeRegistration {
            node: NodeId(3),
            incarnation: Incarnation([7; 16]),
            boot: 9,
            record_versions: (1, 1),
            listeners: vec![Listener {
                name: "kafka".to_owned(),
                host: "localhost".to_owned(),
                port: 9092,
            }],
        };
        let ask = |what| Message::Ask { id: 5, what };
        let answer = |outcome| Message::Answer { id: 5, outcome };
        vec![
            ask(What::Request(Buffer::from(b"a frame".to_vec()))),
            ask(What::ProducerIds),
            ask(What::Register(node)),
            answer(Outcome::NotController),
            answer(Outcome::Busy),
            answer(Outcome::Unknown),
            answer(Outcome::Done {
                index: LogIndex(8),
                payload: Buffer::from(b"an answer".to_vec()),
            }),
        ]
    }

    #[test]
    fn messages_round_trip_and_are_not_believed_when_cut() {
        for message in examples() {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message));
            for length in 0..bytes.len() {
                // A payload to the end may be shorter; nothing else may.
                if let Ok(shorter) = Message::decode(&bytes.slice(..length)) {
                    assert_ne!(shorter, message);
                }
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let ask = Message::Ask {
            id: 0x0102,
            what: What::ProducerIds,
        };
        assert_eq!(&ask.encode()[..], [1, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 2]);
    }
}
