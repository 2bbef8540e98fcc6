//! Where a node's data lie, and what is done to it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::FallocateFlags;

use super::scenario;
use crate::disk_image::{Cut, DiskImage};

/// Bytes of an image: room for a run, and for what XFS wants.
const IMAGE_BYTES: u64 = 1 << 30;

/// A filled disk is filled in pieces of this size first, then of ever smaller ones.
const PIECE_BYTES: u64 = 64 << 20;

/// The smallest piece.
const PIECE_BYTES_MIN: u64 = 4_096;

/// Where a node's data lie.
#[derive(Debug)]
pub(crate) enum Disk {
    /// In a folder of a file system that is not to be touched.
    Folder(PathBuf),
    /// On a file system of its own.
    Image(DiskImage),
}

impl Disk {
    /// A disk for what is in `formatted`, in `folder`.
    pub(crate) fn make(
        kind: scenario::Disk,
        folder: &Path,
        name: &str,
        formatted: &Path,
    ) -> anyhow::Result<Disk> {
        let Some(file_system) = kind.file_system() else {
            return Ok(Disk::Folder(formatted.to_owned()));
        };
        let image = DiskImage::create(folder, name, file_system, IMAGE_BYTES)?;
        let disk = Disk::Image(image);
        copy(formatted, &disk.data())?;
        Ok(disk)
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        match self {
            Disk::Folder(data) => data.clone(),
            Disk::Image(image) => image.path().join("data"),
        }
    }

    fn image(&mut self) -> anyhow::Result<&mut DiskImage> {
        match self {
            Disk::Folder(_) => bail!("the disk is a folder"),
            Disk::Image(image) => Ok(image),
        }
    }

    /// Its power is cut; what writes to it fails from now on.
    pub(crate) fn cut_power(&mut self, cut: Cut) -> anyhow::Result<()> {
        self.image()?.cut_power(cut)
    }

    /// It is mounted again. Nobody may use it.
    pub(crate) fn restore_power(&mut self) -> anyhow::Result<()> {
        self.image()?.restore_power()
    }

    /// It becomes read-only, until its power is restored.
    pub(crate) fn make_read_only(&mut self) -> anyhow::Result<()> {
        self.image()?.make_read_only()
    }

    /// It has no room any more.
    pub(crate) fn fill(&mut self) -> anyhow::Result<()> {
        let ballast = File::create(self.ballast()?)?;
        let (mut end, mut piece) = (0, PIECE_BYTES);
        while piece >= PIECE_BYTES_MIN {
            match rustix::fs::fallocate(&ballast, FallocateFlags::empty(), end, piece) {
                Ok(()) => end += piece,
                Err(_) => piece /= 2,
            }
        }
        Ok(())
    }

    /// It has room again.
    pub(crate) fn empty(&mut self) -> anyhow::Result<()> {
        match fs::remove_file(self.ballast()?) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn ballast(&mut self) -> anyhow::Result<PathBuf> {
        Ok(self.image()?.path().join("ballast"))
    }
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("{}", to.display()))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}
