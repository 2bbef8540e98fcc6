//! The trace of a run: what happened when, as text if it is asked for, and always as a hash.

use std::fmt::Write as _;
use std::time::Duration;

use crate::{Lane, NodeId};

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: u64,
    lines: Option<String>,
}

impl Trace {
    /// A trace that keeps its text too.
    pub(super) fn with_text() -> Trace {
        Trace {
            lines: Some(String::new()),
            ..Trace::default()
        }
    }

    /// Something has happened.
    pub(super) fn note(&mut self, now: Duration, what: impl FnOnce() -> String) {
        let what = what();
        self.mix(&now.as_nanos().to_le_bytes());
        self.mix(what.as_bytes());
        self.write(now, &what);
    }

    /// A frame was sent: the most frequent thing, so its text is made only to be kept.
    pub(super) fn frame(
        &mut self,
        now: Duration,
        from: NodeId,
        to: NodeId,
        lane: Lane,
        bytes: &[u8],
    ) {
        self.mix(&now.as_nanos().to_le_bytes());
        self.mix(&[from.0.to_le_bytes(), to.0.to_le_bytes()].concat());
        self.mix(bytes);
        if self.lines.is_some() {
            let what = format!("{from} to {to} by {lane:?}: {} bytes", bytes.len());
            self.write(now, &what);
        }
    }

    /// A client has its answers: their checksums are part of the trace.
    pub(super) fn told(&mut self, now: Duration, client: usize, answers: &[u32]) {
        self.mix(&now.as_nanos().to_le_bytes());
        self.mix(&client.to_le_bytes());
        for answer in answers {
            self.mix(&answer.to_le_bytes());
        }
        if self.lines.is_some() {
            self.write(now, &format!("client {client} is told {answers:08x?}"));
        }
    }

    fn write(&mut self, now: Duration, what: &str) {
        if let Some(lines) = &mut self.lines {
            let seconds = now.as_secs_f64();
            writeln!(lines, "{seconds:12.6} {what}").expect("a string takes everything");
        }
    }

    /// Bytes that belong to what has happened.
    fn mix(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix_word(*word);
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.mix_word(word);
        }
    }

    /// FNV-1a over eight bytes at a time: only equality matters.
    fn mix_word(&mut self, word: [u8; 8]) {
        let mixed = (self.hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
        self.hash = mixed.rotate_left(23);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn text(self) -> String {
        self.lines.unwrap_or_default()
    }
}
