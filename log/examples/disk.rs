//! How fast this disk writes when every write is durable before the next: the ceiling for one
//! group on one node.
//!
//! ```text
//! cargo run --release -p highwater-log --example disk -- DIR
//! ```
//!
//! makes a data directory in DIR and removes it, and prints a line per storage, preparation and
//! size: sequential writes, one in flight, through the same `Storage` that the log uses.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use highwater_log::storage::{
    Choice, DataDirectory, FileId, Op, Output, Preparation, RealStorage, Storage, Token,
};
use highwater_record::{Budget, Buffer, BufferPool};

/// Bytes of the file that is written, at most once: a block that was written before is faster
/// than one that was only reserved.
const FILE_BYTES: u64 = 256 << 20;

/// How long a line is measured, if the file does not end before.
const LINE: Duration = Duration::from_secs(2);

const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

fn main() -> Result<(), Box<dyn Error>> {
    let above = std::env::args_os().nth(1).ok_or("usage: disk DIR")?;
    let scratch = tempfile::tempdir_in(&above)?;
    println!("storage   prepared   bytes    writes/s    MB/s   p50 us   p99 us");
    for choice in [Choice::Uring, Choice::Portable] {
        let directory = scratch.path().join(format!("{choice:?}"));
        match measure_storage(&directory, choice) {
            Ok(()) => {}
            Err(error) => println!("{choice:?}: {error}"),
        }
    }
    Ok(())
}

fn measure_storage(path: &Path, choice: Choice) -> Result<(), Box<dyn Error>> {
    let directory = DataDirectory::create(path)?;
    let pool = BufferPool::new(Budget::new(64 << 20), directory.alignment());
    let (mut storage, _) = RealStorage::open(directory, pool, choice)?;
    for preparation in [Preparation::Zero, Preparation::Preallocate] {
        for size in SIZES {
            let file = prepare(&mut storage, preparation)?;
            let latencies = measure(&mut storage, file, size)?;
            print_line(storage.name(), preparation, size, latencies);
            run(&mut storage, Op::Close { file })?;
            run(
                &mut storage,
                Op::Unlink {
                    path: "file".into(),
                },
            )?;
        }
    }
    Ok(())
}

fn prepare(storage: &mut RealStorage, preparation: Preparation) -> Result<FileId, Box<dyn Error>> {
    let (path, first) = ("file".to_owned(), Buffer::default());
    run(
        storage,
        Op::Create {
            path: path.clone(),
            len: FILE_BYTES,
            preparation,
            first,
        },
    )?;
    match run(storage, Op::Open { path, write: true })? {
        Output::Opened { file, .. } => Ok(file),
        other => Err(format!("open answered {other:?}").into()),
    }
}

/// Writes the file from its front and gives the time of each write.
#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn measure(
    storage: &mut RealStorage,
    file: FileId,
    size: usize,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let data = Buffer::aligned_copy(&vec![0xA5; size], storage.alignment());
    let mut latencies = Vec::new();
    let start = Instant::now();
    let mut offset = 0;
    while offset + size as u64 <= FILE_BYTES && start.elapsed() < LINE {
        let before = Instant::now();
        run(
            storage,
            Op::Write {
                file,
                offset,
                data: data.clone(),
            },
        )?;
        latencies.push(before.elapsed());
        offset += size as u64;
    }
    Ok(latencies)
}

fn run(storage: &mut RealStorage, op: Op) -> Result<Output, Box<dyn Error>> {
    let mut out = Vec::with_capacity(1);
    storage.submit(Token(0), op);
    while out.is_empty() {
        storage.wait();
        storage.poll(&mut out);
    }
    Ok(out.remove(0).result?)
}

fn print_line(name: &str, preparation: Preparation, size: usize, mut latencies: Vec<Duration>) {
    let total: Duration = latencies.iter().sum();
    latencies.sort();
    let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_micros();
    let rate = latencies.len() as f64 / total.as_secs_f64();
    let prepared = match preparation {
        Preparation::Zero => "zeroed",
        Preparation::Preallocate => "reserved",
    };
    println!(
        "{name:<9} {prepared:<8} {size:>8} {rate:>11.0} {:>7.0} {:>8} {:>8}",
        rate * size as f64 / 1e6,
        percentile(50),
        percentile(99),
    );
}
