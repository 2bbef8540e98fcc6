//! What a writer tells of its life, a line each, before the disk hears of it.

use std::cell::RefCell;
use std::io::{self, Stdout, Write};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// A step of a writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// A group is new, with this number.
    Create { group: u64 },
    /// A group is to be removed.
    Drop { group: u64 },
    /// A promise is staged.
    Promise {
        group: u64,
        write: u64,
        term: u32,
        vote: Option<u32>,
    },
    /// An entry is staged; the checksum is that of its body.
    Append {
        group: u64,
        write: u64,
        index: u64,
        term: u32,
        end_offset: u64,
        crc: u32,
    },
    /// A cut is staged: `first` is the next index.
    Cut { group: u64, write: u64, first: u64 },
    /// A base is staged: the log begins behind this entry.
    Base {
        group: u64,
        write: u64,
        index: u64,
        term: u32,
        chain: u64,
        offset: u64,
    },
    /// Entries are committed.
    Commit { group: u64, index: u64 },
    /// The log starts there.
    LogStart { group: u64, offset: u64 },
    /// What is acknowledged: all of the group's writes up to this one are durable. `at` is when
    /// this was known, in nanoseconds of the clock that all processes share.
    Persisted { group: u64, write: u64, at: u64 },
    /// A range of a file is written, and in memory only.
    Dirty {
        path: String,
        offset: u64,
        bytes: u64,
    },
    /// Nothing comes back from the disk any more: now the power is to be cut.
    Held,
    /// The store has closed itself for good, or has raised an alarm.
    Failed { why: String },
}

impl Message {
    /// Whose step it is.
    pub(super) const fn group(&self) -> Option<u64> {
        match *self {
            Message::Create { group }
            | Message::Drop { group }
            | Message::Promise { group, .. }
            | Message::Append { group, .. }
            | Message::Cut { group, .. }
            | Message::Base { group, .. }
            | Message::Commit { group, .. }
            | Message::LogStart { group, .. }
            | Message::Persisted { group, .. } => Some(group),
            Message::Dirty { .. } | Message::Held | Message::Failed { .. } => None,
        }
    }
}

/// Where a writer's messages go.
#[derive(Debug)]
pub(super) struct Outlet<W> {
    to: W,
    line: Vec<u8>,
}

/// That of a writer, which its disk has a say in too.
pub(super) type SharedOutlet = Rc<RefCell<Outlet<Stdout>>>;

impl<W: Write> Outlet<W> {
    pub(super) fn new(to: W) -> Outlet<W> {
        Outlet {
            to,
            line: Vec::new(),
        }
    }

    /// Keeps a message until the next [`flush`](Self::flush).
    pub(super) fn say(&mut self, message: &Message) {
        serde_json::to_writer(&mut self.line, message).expect("memory takes all that is written");
        self.line.push(b'\n');
    }

    /// Hands over what was said, in one call: a process that is killed has said it or not.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.line)?;
        self.line.clear();
        self.to.flush()
    }
}

/// The message of a line; nothing of one that its writer did not live to end.
pub(super) fn parse(line: &str) -> Option<Message> {
    serde_json::from_str(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard_and_half_a_line_is_nothing() {
        let messages = [
            Message::Held,
            Message::Persisted {
                group: 3,
                write: 9,
                at: 27,
            },
            Message::Promise {
                group: 1,
                write: 2,
                term: 3,
                vote: None,
            },
        ];
        let mut outlet = Outlet::new(Vec::new());
        messages.iter().for_each(|message| outlet.say(message));
        outlet.flush().unwrap();
        let text = String::from_utf8(outlet.to).unwrap();
        let heard: Vec<Message> = text.lines().filter_map(parse).collect();
        assert_eq!(heard, messages);
        assert_eq!(parse(&text.lines().nth(1).unwrap()[..20]), None);
    }
}
