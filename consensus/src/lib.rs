//! The rules of agreement: Raft, without clocks, threads or I/O.
