//! What the disk can do in the log's own pattern: sequential writes into a prepared file, each
//! durable before the next, through the log's own storages. The ceiling of one group.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use highwater_log::storage::{
    Choice, DataDirectory, FileId, Op, Output, Preparation, RealStorage, Storage, Token,
};
use highwater_record::{Budget, Buffer, BufferPool};
use serde::Serialize;
use tempfile::TempDir;

use super::{Limits, per_second};
use crate::latency::{Latencies, Percentiles};

/// The sizes of writes, in bytes.
pub const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

/// The file of a run, in bytes, written at most once.
const FILE_BYTES: u64 = 256 << 20;

/// One storage, preparation and size.
#[derive(Debug, Clone, Serialize)]
pub struct Limit {
    /// `uring` or `portable`.
    pub storage: &'static str,
    /// `zeroed` (written once before) or `reserved` (only allocated).
    pub prepared: &'static str,
    /// The size of a write, in bytes.
    pub bytes: usize,
    /// How many runs.
    pub runs: usize,
    /// Bytes a second: the median run.
    pub bytes_per_second: u64,
    /// The slowest run.
    pub bytes_per_second_min: u64,
    /// The fastest run.
    pub bytes_per_second_max: u64,
    /// How long a write took, over all runs.
    #[serde(flatten)]
    pub latency: Percentiles,
}

/// Measures in a scratch directory within `folder`, and gives each line as it is there. A storage
/// that the system does not allow is passed over, with a reason.
///
/// # Errors
/// When the directory cannot be written, or the disk fails.
pub fn measure(
    folder: &Path,
    limits: &Limits,
    mut show: impl FnMut(Result<Limit, String>) -> Result<()>,
) -> Result<()> {
    limits.check()?;
    let scratch = scratch(folder)?;
    for (name, choice) in [("uring", Choice::Uring), ("portable", Choice::Portable)] {
        let directory = DataDirectory::create(&scratch.path().join(name))?;
        let pool = BufferPool::new(Budget::new(64 << 20), directory.alignment());
        let mut storage = match RealStorage::open(directory, pool, choice) {
            Ok((storage, _)) => storage,
            Err(error) => {
                show(Err(format!("{name}: {error}")))?;
                continue;
            }
        };
        for preparation in [Preparation::Zero, Preparation::Preallocate] {
            for bytes in SIZES {
                show(Ok(line(&mut storage, preparation, bytes, limits)?))?;
            }
        }
    }
    Ok(())
}

/// Measures only writes of 4 KiB to files that were written before, on the storage that a node
/// would have: how long one synced write takes.
///
/// # Errors
/// When the directory cannot be written, or the disk fails.
pub fn small_writes(folder: &Path, limits: &Limits) -> Result<Limit> {
    limits.check()?;
    let scratch = scratch(folder)?;
    let mut storage = open(scratch.path())?;
    line(&mut storage, Preparation::Zero, SIZES[0], limits)
}

/// Writes of 4 KiB to a file that was written before, as often as they are asked for.
#[derive(Debug)]
pub(crate) struct SmallWrites {
    storage: RealStorage,
    file: FileId,
    data: Buffer,
    offset: u64,
    /// Outlives the storage.
    _scratch: TempDir,
}

impl SmallWrites {
    /// The file, written from its front again and again.
    const BYTES: u64 = 4 << 20;

    /// In a scratch directory within `folder`, on the storage that a node would have.
    pub(crate) fn new(folder: &Path) -> Result<SmallWrites> {
        let scratch = scratch(folder)?;
        let mut storage = open(scratch.path())?;
        let file = make(&mut storage, FILE, Self::BYTES, Preparation::Zero)?;
        let data = Buffer::aligned_copy(&vec![0xA5; SIZES[0]], storage.alignment());
        Ok(SmallWrites {
            storage,
            file,
            data,
            offset: 0,
            _scratch: scratch,
        })
    }

    /// Writes one, and waits until it is durable.
    pub(crate) fn write(&mut self) -> Result<()> {
        let (file, offset, data) = (self.file, self.offset, self.data.clone());
        one(&mut self.storage, Op::Write { file, offset, data })?;
        self.offset = (self.offset + u64::try_from(SIZES[0])?) % Self::BYTES;
        Ok(())
    }
}

/// The storage that a node would have.
fn open(scratch: &Path) -> Result<RealStorage> {
    let directory = DataDirectory::create(&scratch.join("disk"))?;
    let pool = BufferPool::new(Budget::new(64 << 20), directory.alignment());
    Ok(RealStorage::open(directory, pool, Choice::Auto)?.0)
}

fn scratch(folder: &Path) -> Result<TempDir> {
    tempfile::tempdir_in(folder)
        .with_context(|| format!("cannot make a directory in {}", folder.display()))
}

fn line(
    storage: &mut RealStorage,
    preparation: Preparation,
    bytes: usize,
    limits: &Limits,
) -> Result<Limit> {
    let mut latencies = Latencies::default();
    let mut rates = Vec::new();
    for _ in 0..limits.runs {
        let file = make(storage, FILE, FILE_BYTES, preparation)?;
        rates.push(run(storage, file, bytes, limits.run, &mut latencies)?);
        one(storage, Op::Close { file })?;
        let path = FILE.to_owned();
        one(storage, Op::Unlink { path })?;
    }
    rates.sort_unstable();
    Ok(Limit {
        storage: storage.name(),
        prepared: match preparation {
            Preparation::Zero => "zeroed",
            Preparation::Preallocate => "reserved",
        },
        bytes,
        runs: limits.runs,
        bytes_per_second: rates[rates.len() / 2],
        bytes_per_second_min: rates[0],
        bytes_per_second_max: rates[rates.len() - 1],
        latency: latencies.percentiles(),
    })
}

const FILE: &str = "file";

/// Makes a file and opens it.
pub(crate) fn make(
    storage: &mut RealStorage,
    path: &str,
    len: u64,
    preparation: Preparation,
) -> Result<FileId> {
    let path = path.to_owned();
    let create = Op::Create {
        path: path.clone(),
        len,
        preparation,
        first: Buffer::default(),
    };
    one(storage, create)?;
    let open = Op::Open { path, write: true };
    match one(storage, open)? {
        Output::Opened { file, .. } => Ok(file),
        other => bail!("opening answered {other:?}"),
    }
}

/// Writes the file from its front. Gives bytes a second.
fn run(
    storage: &mut RealStorage,
    file: FileId,
    bytes: usize,
    limit: Duration,
    latencies: &mut Latencies,
) -> Result<u64> {
    let step = u64::try_from(bytes)?;
    let data = Buffer::aligned_copy(&vec![0xA5; bytes], storage.alignment());
    let start = Instant::now();
    let mut offset = 0;
    while offset + step <= FILE_BYTES && start.elapsed() < limit {
        let before = Instant::now();
        let data = data.clone();
        one(storage, Op::Write { file, offset, data })?;
        latencies.record(before.elapsed());
        offset += step;
    }
    Ok(per_second(offset, start.elapsed()))
}

fn one(storage: &mut RealStorage, op: Op) -> Result<Output> {
    let mut done = Vec::with_capacity(1);
    storage.submit(Token(0), op);
    while done.is_empty() {
        storage.wait();
        storage.poll(&mut done);
    }
    let completion = done.pop().context("an operation completes once")?;
    Ok(completion.result?)
}

#[cfg(test)]
mod tests {
    use super::super::RUNS_MIN;
    use super::*;

    #[test]
    fn every_size_is_measured_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits {
            runs: RUNS_MIN,
            run: Duration::from_millis(1),
        };
        let directory = DataDirectory::create(&folder.path().join("data")).unwrap();
        let pool = BufferPool::new(Budget::new(64 << 20), directory.alignment());
        let (mut storage, _) = RealStorage::open(directory, pool, Choice::Portable).unwrap();
        let line = line(&mut storage, Preparation::Preallocate, 4096, &limits).unwrap();
        assert!(line.bytes_per_second_min > 0);
        assert!(line.bytes_per_second_min <= line.bytes_per_second);
        assert!(line.bytes_per_second <= line.bytes_per_second_max);
        let left = std::fs::read_dir(folder.path().join("data")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
    }

    #[test]
    fn too_few_runs_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits {
            runs: RUNS_MIN - 1,
            run: Duration::ZERO,
        };
        assert!(measure(folder.path(), &limits, |_| Ok(())).is_err());
    }
}
