//! Reads that take their time: while one is under way its file is sealed, or closed because too
//! many are open. What is whole is read, and nothing stays open behind it.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod common;

use std::collections::BTreeSet;

use common::{GROUP, Node, check_body, config, format, open_disk, open_with, small_files};
use highwater_log::storage::{
    Completion, Counters, FileId, MemoryDisk, MemoryStorage, Op, Output, Storage, Token,
};
use highwater_log::{
    Entry, Event, GroupId, LogIndex, Read, ReadError, Snapshot, StoreConfig, Ticket,
};
use highwater_record::Buffer;

/// So large that a read of it takes two steps.
const LARGE: usize = 200_000;

const OTHER: GroupId = GroupId(8);

/// A storage that delays one operation: an open does not begin before it is released, anything
/// else does not complete.
struct Slow {
    inner: MemoryStorage,
    /// How many operations pass before one is held.
    passing: Option<usize>,
    /// An open that has not begun.
    waiting: Option<(Token, Op)>,
    /// What has begun and may not complete.
    held: Option<Token>,
    completed: Option<Completion>,
    open: BTreeSet<FileId>,
}

impl Slow {
    fn new(disk: &MemoryDisk) -> Slow {
        Slow {
            inner: MemoryStorage::new(disk),
            passing: None,
            waiting: None,
            held: None,
            completed: None,
            open: BTreeSet::new(),
        }
    }

    fn holds(&self) -> bool {
        self.waiting.is_some() || self.completed.is_some()
    }

    fn release(&mut self) {
        self.held = None;
        if let Some((token, op)) = self.waiting.take() {
            self.inner.submit(token, op);
        }
    }
}

impl Storage for Slow {
    fn alignment(&self) -> usize {
        self.inner.alignment()
    }

    fn submit(&mut self, token: Token, op: Op) {
        if let Op::Close { file } = op {
            assert!(self.open.remove(&file), "closed twice");
        }
        match self.passing {
            Some(0) => {
                self.passing = None;
                if matches!(op, Op::Open { .. }) {
                    self.waiting = Some((token, op));
                    return;
                }
                self.held = Some(token);
            }
            Some(left) => self.passing = Some(left - 1),
            None => {}
        }
        self.inner.submit(token, op);
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        let mut completions = Vec::new();
        self.inner.poll(&mut completions);
        if self.held.is_none() {
            out.extend(self.completed.take());
        }
        for completion in completions {
            if let Ok(Output::Opened { file, .. }) = completion.result {
                self.open.insert(file);
            }
            if Some(completion.token) == self.held {
                self.completed = Some(completion);
            } else {
                out.push(completion);
            }
        }
    }

    fn wait(&mut self) {
        self.inner.wait();
    }

    fn in_flight(&self) -> usize {
        let held = usize::from(self.waiting.is_some()) + usize::from(self.completed.is_some());
        self.inner.in_flight() + held
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

/// Two groups whose first files are full and closed, and none of them open.
fn closed_files() -> MemoryDisk {
    let disk = MemoryDisk::new();
    format(&disk);
    let (mut node, _) = open_disk(&disk);
    for group in [GROUP, OTHER] {
        node.create_with(group, small_files());
        for _ in 0..3 {
            node.append_sized(group, 1, LARGE);
            node.settle();
        }
    }
    drop(node);
    disk
}

fn open(disk: &MemoryDisk, config: StoreConfig) -> Node<Slow> {
    let (node, recovered) = open_with(Slow::new(disk), config).unwrap();
    assert_eq!(recovered.alarms, []);
    node
}

fn start_read(node: &mut Node<Slow>, group: GroupId, ticket: u64) {
    let read = node.store.read(group, LogIndex(1), 1, Ticket(ticket));
    assert!(matches!(read, Ok(Read::Pending)));
}

/// Turns until the held operation has come as far as it may.
fn turn_until_held(node: &mut Node<Slow>) {
    for _ in 0..10 {
        node.turn();
        if node.store.storage().holds() {
            return;
        }
    }
    panic!("nothing is held");
}

/// Asks for the seal of all files that are closed.
fn seal_all(node: &mut Node<Slow>) {
    for group in [GROUP, OTHER] {
        let last = node.last(group).index;
        node.store.commit(group, last);
    }
    for event in std::mem::take(&mut node.events) {
        if let Event::Closed {
            group, sequence, ..
        } = event
        {
            let snapshot = Snapshot {
                at: LogIndex(1),
                state: Buffer::from(b"state".to_vec()),
            };
            node.store.seal(group, sequence, snapshot).unwrap();
        }
    }
}

fn turn_until_sealed(node: &mut Node<Slow>) {
    let files = node.store.counters().files_sealed;
    for _ in 0..100 {
        node.turn();
        if node.store.counters().files_sealed > files {
            return;
        }
    }
    panic!("nothing is sealed");
}

fn take_read(node: &mut Node<Slow>, ticket: u64) -> Result<Vec<Entry>, ReadError> {
    let is_it = |event: &Event| matches!(event, Event::ReadDone { ticket: of, .. } if *of == Ticket(ticket));
    let at = node.events.iter().position(is_it).expect("the read ends");
    match node.events.swap_remove(at) {
        Event::ReadDone { result, .. } => result,
        _ => unreachable!(),
    }
}

fn check_read(node: &mut Node<Slow>, ticket: u64) {
    let entries = take_read(node, ticket).unwrap();
    assert_eq!(entries[0].id.index, LogIndex(1));
    check_body(&entries[0]);
    assert_eq!(node.alarms(), Vec::<String>::new());
}

/// What a read does one after the other: opening, and two steps of reading.
const STEPS: usize = 3;

#[test]
fn a_read_goes_on_while_its_file_is_sealed() {
    let disk = closed_files();
    for held in 0..STEPS {
        let copy = disk.fork();
        let mut node = open(&copy, config());
        node.settle();
        let before = node.store.storage().open.len();
        node.store.storage_mut().passing = Some(held);
        start_read(&mut node, GROUP, 1);
        turn_until_held(&mut node);
        seal_all(&mut node);
        turn_until_sealed(&mut node);
        node.store.storage_mut().release();
        node.settle();
        check_read(&mut node, 1);
        // It may have been left open for the next read, but no more than that.
        let after = node.store.storage().open.len();
        assert!(after <= before + 1, "{} stay open", after - before);
        assert_eq!(node.read(GROUP, 1, 1).unwrap()[0].id.index, LogIndex(1));
    }
}

#[test]
fn reads_that_open_the_same_file_at_the_same_time_all_read_it() {
    let disk = closed_files();
    let mut node = open(&disk, config());
    node.settle();
    let before = node.store.storage().open.len();
    for ticket in 1..=3 {
        start_read(&mut node, GROUP, ticket);
    }
    node.settle();
    for ticket in 1..=3 {
        check_read(&mut node, ticket);
    }
    assert_eq!(node.store.storage().open.len(), before + 1);
}

#[test]
fn a_read_and_a_seal_that_open_the_same_file_do_not_disturb_each_other() {
    let disk = closed_files();
    for seal_first in [true, false] {
        let copy = disk.fork();
        let mut node = open(&copy, config());
        node.turn();
        if seal_first {
            seal_all(&mut node);
            node.store.flush(node.now);
        }
        start_read(&mut node, GROUP, 1);
        if !seal_first {
            seal_all(&mut node);
        }
        node.settle();
        check_read(&mut node, 1);
        assert!(node.store.counters().files_sealed > 0);
    }
}

#[test]
fn a_read_goes_on_while_its_file_is_one_too_many() {
    let disk = closed_files();
    let few = StoreConfig {
        open_files_max: 1,
        ..config()
    };
    let mut node = open(&disk, few.clone());
    node.settle();
    seal_all(&mut node);
    node.settle();
    drop(node);
    for held in 1..STEPS {
        let mut node = open(&disk, few.clone());
        node.settle();
        let before = node.store.storage().open.len();
        node.store.storage_mut().passing = Some(held);
        start_read(&mut node, GROUP, 1);
        turn_until_held(&mut node);
        start_read(&mut node, OTHER, 2);
        for _ in 0..10 {
            node.turn();
        }
        check_read(&mut node, 2);
        node.store.storage_mut().release();
        node.settle();
        check_read(&mut node, 1);
        assert_eq!(node.store.storage().open.len(), before + 1);
    }
}
