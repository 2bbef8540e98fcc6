//! Producer, consumer and admin over QUIC or TCP.
