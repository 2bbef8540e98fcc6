//! Lines by time, more than memory holds: written in sorted runs, merged at the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Lines, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Bytes of lines that are kept until they are sorted and written.
const RUN_BYTES_MAX: usize = 8 << 20;

/// Takes lines in any order.
#[derive(Debug)]
pub(crate) struct Sorter {
    folder: PathBuf,
    name: String,
    /// Time, number of the line, the line.
    lines: Vec<(u64, u64, String)>,
    bytes: usize,
    number: u64,
    runs: Vec<PathBuf>,
}

impl Sorter {
    /// Runs go into `folder`; no other has this name there.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            lines: Vec::new(),
            bytes: 0,
            number: 0,
            runs: Vec::new(),
        }
    }

    /// A line without its end, and its time.
    pub(crate) fn push(&mut self, time: u64, line: String) -> anyhow::Result<()> {
        self.bytes += line.len();
        self.lines.push((time, self.number, line));
        self.number += 1;
        match self.bytes < RUN_BYTES_MAX {
            true => Ok(()),
            false => self.write_run(),
        }
    }

    fn write_run(&mut self) -> anyhow::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.lines.sort_unstable();
        let name = format!("{}-{}.run", self.name, self.runs.len());
        let path = self.folder.join(name);
        let mut file = BufWriter::new(File::create(&path)?);
        for (time, _, line) in self.lines.drain(..) {
            writeln!(file, "{time} {line}")?;
        }
        file.flush()?;
        self.runs.push(path);
        self.bytes = 0;
        Ok(())
    }

    /// The runs, all lines in them.
    pub(crate) fn finish(mut self) -> anyhow::Result<Vec<PathBuf>> {
        self.write_run()?;
        Ok(self.runs)
    }
}

/// A run that is read.
struct Run {
    lines: Lines<BufReader<File>>,
}

impl Run {
    fn next(&mut self) -> anyhow::Result<Option<(u64, String)>> {
        let Some(line) = self.lines.next().transpose()? else {
            return Ok(None);
        };
        let (time, line) = line.split_once(' ').context("a line without a time")?;
        Ok(Some((time.parse()?, line.to_owned())))
    }
}

/// Gives all lines of all runs in order of their times. Lines of one time keep the order of the
/// runs.
pub(crate) fn merge(
    runs: &[PathBuf],
    mut take: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let open = |path: &PathBuf| -> anyhow::Result<Run> {
        let file = File::open(path).with_context(|| format!("{}", path.display()))?;
        let lines = BufReader::new(file).lines();
        Ok(Run { lines })
    };
    let mut runs = runs.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let mut heads = BinaryHeap::new();
    for (number, run) in runs.iter_mut().enumerate() {
        let head = run.next()?;
        heads.extend(head.map(|(time, line)| Reverse((time, number, line))));
    }
    while let Some(Reverse((_, number, line))) = heads.pop() {
        take(&line)?;
        let next = runs[number].next()?;
        heads.extend(next.map(|(time, line)| Reverse((time, number, line))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_by_time_however_many_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut random = fastrand::Rng::with_seed(3);
        let mut runs = Vec::new();
        for name in ["a", "b"] {
            let mut sorter = Sorter::new(folder.path(), name);
            for _ in 0..30_000 {
                let time = random.u64(..1_000);
                let line = format!("{time} {}", "x".repeat(500));
                sorter.push(time, line).unwrap();
            }
            runs.extend(sorter.finish().unwrap());
        }
        assert!(runs.len() > 2, "more than one run of each");
        let mut times: Vec<u64> = Vec::new();
        merge(&runs, |line| {
            times.push(line.split_once(' ').unwrap().0.parse()?);
            Ok(())
        })
        .unwrap();
        assert_eq!(times.len(), 60_000);
        assert!(times.is_sorted());
    }
}
