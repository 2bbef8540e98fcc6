//! Bytes between machines: QUIC and TCP endpoints, links, TLS, cluster identity.
