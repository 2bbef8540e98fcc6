//! The disk in memory stands for real ones in every simulation: so the same operations, one
//! after the other, must have the same answers on both.

use std::sync::Arc;

use fastrand::Rng;
use highwater_log::storage::{FileId, Mapping, Op, Output, Preparation, StorageError};
use highwater_record::Buffer;

use crate::driver::{Answer, Driver, Subject};
use crate::subject;

const SEEDS: u64 = 40;

const STEPS: usize = 120;

const BLOCK: u64 = 4096;

const PATHS: [&str; 8] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "../x"];

/// One operation, without what differs between the two: their ids and mappings.
#[derive(Debug, Clone)]
enum Step {
    Create {
        path: String,
        blocks: u64,
        preparation: Preparation,
        first: usize,
    },
    Open {
        path: String,
        write: bool,
    },
    Close {
        file: usize,
    },
    Write {
        file: usize,
        block: u64,
        blocks: usize,
        fill: u8,
    },
    Read {
        file: usize,
        block: u64,
        blocks: usize,
    },
    Sync {
        file: usize,
    },
    Truncate {
        file: usize,
        blocks: u64,
    },
    Protect {
        path: String,
        read_only: bool,
    },
    Rename {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    MakeDir {
        path: String,
    },
    RemoveDir {
        path: String,
    },
    SyncDir {
        path: String,
    },
    List {
        path: String,
    },
    Map {
        path: String,
    },
}

impl Step {
    fn draw(rng: &mut Rng) -> Self {
        let path = |rng: &mut Rng| PATHS[rng.usize(..PATHS.len())].to_owned();
        match rng.u8(..20) {
            0..=2 => Self::Create {
                path: path(rng),
                blocks: rng.u64(..5),
                preparation: [Preparation::Zero, Preparation::Preallocate][rng.usize(..2)],
                first: rng.usize(..3),
            },
            3..=5 => Self::Open {
                path: path(rng),
                write: rng.u8(..4) > 0,
            },
            6 => Self::Close {
                file: rng.usize(..8),
            },
            7..=8 => Self::Write {
                file: rng.usize(..8),
                block: rng.u64(..4),
                blocks: rng.usize(..3),
                fill: rng.u8(..),
            },
            9..=10 => Self::Read {
                file: rng.usize(..8),
                block: rng.u64(..5),
                blocks: rng.usize(..4),
            },
            11 => Self::Sync {
                file: rng.usize(..8),
            },
            12 => Self::Truncate {
                file: rng.usize(..8),
                blocks: rng.u64(..5),
            },
            13 => Self::Protect {
                path: path(rng),
                read_only: rng.bool(),
            },
            14 => Self::Rename {
                from: path(rng),
                to: path(rng),
            },
            15 => Self::Unlink { path: path(rng) },
            16 => Self::MakeDir { path: path(rng) },
            17 => Self::RemoveDir { path: path(rng) },
            18 if rng.bool() => Self::SyncDir { path: path(rng) },
            18 => Self::List { path: path(rng) },
            _ => Self::Map { path: path(rng) },
        }
    }
}

/// A storage with the ids that it gave, in order: closed ones are kept and used on.
struct Side {
    disk: Driver,
    files: Vec<FileId>,
}

impl Side {
    fn run(&mut self, step: &Step) -> String {
        let answer = self.disk.run(self.op(step));
        if let Ok(Output::Opened { file, .. }) = &answer {
            self.files.push(*file);
        }
        summary(answer)
    }

    fn file(&self, number: usize) -> FileId {
        let last = self.files.len().saturating_sub(1);
        self.files
            .get(last.saturating_sub(number))
            .copied()
            .unwrap_or(FileId(0))
    }

    fn op(&self, step: &Step) -> Op {
        let filled = |blocks: usize, fill| {
            Buffer::aligned_copy(&vec![fill; blocks * BLOCK as usize], BLOCK as usize)
        };
        match step.clone() {
            Step::Create {
                path,
                blocks,
                preparation,
                first,
            } => Op::Create {
                path,
                len: blocks * BLOCK,
                preparation,
                first: filled(first, 7),
            },
            Step::Open { path, write } => Op::Open { path, write },
            Step::Close { file } => Op::Close {
                file: self.file(file),
            },
            Step::Write {
                file,
                block,
                blocks,
                fill,
            } => {
                let (offset, data) = (block * BLOCK, filled(blocks, fill));
                Op::Write {
                    file: self.file(file),
                    offset,
                    data,
                }
            }
            Step::Read {
                file,
                block,
                blocks,
            } => {
                let (offset, len) = (block * BLOCK, blocks * BLOCK as usize);
                Op::Read {
                    file: self.file(file),
                    offset,
                    len,
                }
            }
            Step::Sync { file } => Op::Sync {
                file: self.file(file),
            },
            Step::Truncate { file, blocks } => Op::Truncate {
                file: self.file(file),
                len: blocks * BLOCK,
            },
            Step::Protect { path, read_only } => Op::Protect { path, read_only },
            Step::Rename { from, to } => Op::Rename { from, to },
            Step::Unlink { path } => Op::Unlink { path },
            Step::MakeDir { path } => Op::MakeDir { path },
            Step::RemoveDir { path } => Op::RemoveDir { path },
            Step::SyncDir { path } => Op::SyncDir { path },
            Step::List { path } => Op::List { path },
            Step::Map { path } => Op::Map { path },
        }
    }
}

/// What both must answer: data and kinds, not ids and reasons.
fn summary(answer: Answer) -> String {
    let blocks = |bytes: &[u8]| -> Vec<(u8, usize)> {
        bytes
            .chunks(BLOCK as usize)
            .map(|block| (block[0], block.len()))
            .collect()
    };
    match answer {
        Ok(Output::Done) => "done".to_owned(),
        Ok(Output::Opened { len, read_only, .. }) => format!("opened {len} {read_only}"),
        Ok(Output::Read(data)) => format!("read {:?}", blocks(&data)),
        Ok(Output::Listed(entries)) => format!("{entries:?}"),
        Ok(Output::Mapped(mapping)) => {
            let mapping: Arc<dyn Mapping> = mapping;
            format!("mapped {:?}", blocks(mapping.bytes()))
        }
        Ok(other) => panic!("{other:?}"),
        Err(StorageError::NotFound { path }) => format!("{path} not found"),
        Err(StorageError::Exists { path }) => format!("{path} exists"),
        Err(StorageError::ReadOnly { path }) => format!("{path} is read-only"),
        Err(StorageError::Invalid { .. }) => "invalid".to_owned(),
        Err(error) => panic!("{error}"),
    }
}

fn compare(real: fn() -> Option<Subject>) {
    for seed in 0..SEEDS {
        let (Some(memory), Some(real)) = (subject::memory(), real()) else {
            return;
        };
        let side = |subject: &Subject| Side {
            disk: subject.open(),
            files: Vec::new(),
        };
        let (mut memory, mut real) = (side(&memory), side(&real));
        let mut rng = Rng::with_seed(seed);
        let mut story = Vec::new();
        for _ in 0..STEPS {
            let step = Step::draw(&mut rng);
            story.push(step.clone());
            assert_eq!(
                memory.run(&step),
                real.run(&step),
                "seed {seed}, after {story:#?}"
            );
        }
    }
}

#[test]
fn memory_answers_as_plain_calls_do() {
    compare(subject::portable);
}

#[test]
fn memory_answers_as_a_ring_does() {
    compare(subject::uring);
}
