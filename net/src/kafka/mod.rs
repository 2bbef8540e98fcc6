//! Kafka's framing between clients and servers, over any byte stream: TCP, or a QUIC stream.
//!
//! A frame is a length of four bytes, big-endian and signed, and as many bytes of message. Each
//! is read once, into a pooled buffer that is charged before the first byte of it is read; while
//! the budget is exhausted the stream is not read, so that flow control stops the sender.

mod admission;
mod frame;
mod quic;
mod tcp;

pub use admission::{Admission, AdmissionLimits, Permit, Refused};
pub use frame::{ChunkWrite, FrameReader, LENGTH_BYTES, ReadError, ReadLimits, write_chunks};
pub use quic::{
    QuicConnectError, QuicConnection, QuicDialer, QuicListener, QuicListenerConfig, QuicReader,
    QuicStream, QuicWriter, STREAMS_PER_CONNECTION_MAX,
};
pub use tcp::{TcpAcceptor, bind_tcp};
