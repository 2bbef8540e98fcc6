//! File systems of their own, whose power can be cut.
//!
//! A [`DiskImage`] is a sparse file with a file system in it, mounted through a loop device.
//! [`DiskImage::cut_power`] asks that file system to shut down at once (the ioctl
//! `EXT4_IOC_SHUTDOWN`, `XFS_IOC_GOINGDOWN`): what it had not made durable is gone, as with the
//! power, and every call from then on fails. [`DiskImage::restore_power`] mounts it again, which
//! replays the file system's own journal. The kernel around it runs on: a cycle takes a fraction
//! of a second.
//!
//! What a cut loses is what the file system had not handed to the disk. The disk itself, a file,
//! loses nothing: a direct write that has come back is there, also without a sync.
//!
//! ```no_run
//! use highwater_tests::disk_image::{Cut, DiskImage, FileSystem, isolate_mounts};
//!
//! # fn main() -> anyhow::Result<()> {
//! isolate_mounts()?;
//! let folder = tempfile::tempdir()?;
//! let mut image = DiskImage::create(folder.path(), "node-0", FileSystem::Xfs, 512 << 20)?;
//! std::fs::write(image.path().join("file"), "not synced")?;
//! image.cut_power(Cut::Everything)?;
//! // Now end whoever uses it, then:
//! image.restore_power()?;
//! assert!(!image.path().join("file").exists());
//! # Ok(())
//! # }
//! ```
//!
//! It takes rights (root, or at least those to mount) and mkfs; [`why_unavailable`] says what
//! lacks.

mod pages;
mod system;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

pub use pages::{PAGE_BYTES, drop_cache, write_back};

/// How long a process that was killed may keep a file system busy: a ring is closed in the
/// background, after the process has gone.
const BUSY_MAX: Duration = Duration::from_secs(30);

/// How often it is tried meanwhile.
const BUSY_POLL: Duration = Duration::from_millis(2);

/// The namespace that this process had before a thread left it.
static SHARED_MOUNTS: OnceLock<PathBuf> = OnceLock::new();

/// Which file system is in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileSystem {
    /// ext4, with its journal in the default mode (`data=ordered`); an error makes it read-only.
    Ext4,
    /// XFS.
    Xfs,
}

/// What the last of the power does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// All is lost that was not durable: the common case of a power cut.
    Everything,
    /// The file system's journal is written, data are lost: files as long as they were made, with
    /// holes where the data would be.
    KeepJournal,
    /// All is written, and nothing from then on: no loss, but a disk that is gone.
    Nothing,
}

impl Cut {
    /// The flag of the ioctl (`linux/ext4.h`, `xfs_fs.h`: `GOING_FLAGS_*`).
    const fn flag(self) -> u32 {
        match self {
            Cut::Nothing => 0,
            Cut::KeepJournal => 1,
            Cut::Everything => 2,
        }
    }
}

impl FileSystem {
    /// Both.
    pub const ALL: [FileSystem; 2] = [FileSystem::Ext4, FileSystem::Xfs];

    /// What it is called by mount(8) and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }

    /// The smallest image that mkfs takes, in bytes.
    #[must_use]
    pub const fn bytes_min(self) -> u64 {
        match self {
            FileSystem::Ext4 => 16 << 20,
            FileSystem::Xfs => 300 << 20,
        }
    }

    fn make(self, image: &Path) -> anyhow::Result<()> {
        let options: &[&str] = match self {
            // Nothing is to be written by itself later: an image stays sparse.
            FileSystem::Ext4 => &[
                "-q",
                "-F",
                "-b",
                "4096",
                "-E",
                "lazy_itable_init=1,nodiscard",
            ],
            FileSystem::Xfs => &["-q", "-f", "-K"],
        };
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        run(command.args(options).arg(image))
    }

    const fn mount_options(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "loop,noatime,errors=remount-ro",
            FileSystem::Xfs => "loop,noatime",
        }
    }
}

/// A file system in a file, mounted.
///
/// Dropping it unmounts it and removes the file; so end before whoever uses it.
#[derive(Debug)]
pub struct DiskImage {
    file_system: FileSystem,
    image: PathBuf,
    mount_point: PathBuf,
    is_mounted: bool,
    /// An error was put into the file system's books, which its check takes out.
    wants_check: bool,
    is_kept: bool,
}

/// A folder in memory that nobody sees but the thread that made it and those that it has started
/// since. What is in it goes with the last of them, also if they are killed.
#[derive(Debug)]
pub struct MemoryFolder {
    folder: TempDir,
}

impl MemoryFolder {
    /// Makes one. The thread must have mounts of its own ([`isolate_mounts`]).
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn new() -> anyhow::Result<MemoryFolder> {
        ensure!(are_mounts_isolated(), "the thread shares its mounts");
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "mode=700", "tmpfs"]);
        run(command.arg(folder.path()))?;
        Ok(MemoryFolder { folder })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for MemoryFolder {
    fn drop(&mut self) {
        // Then the folder below it is empty, and can be removed.
        let mut command = Command::new("umount");
        let _ = run(command.arg("--lazy").arg(self.folder.path()));
    }
}

/// Gives the calling thread mounts of its own, and whoever it starts from then on (threads and
/// processes). So nobody else holds an image's file system by a copy of its mounts, and all of
/// them go with the last of these threads and processes, however it ends.
///
/// To be called before the first image is made; a second call changes nothing.
///
/// # Errors
///
/// If the system refuses: it takes the right to mount.
pub fn isolate_mounts() -> anyhow::Result<()> {
    if are_mounts_isolated() {
        return Ok(());
    }
    SHARED_MOUNTS.get_or_init(|| mounts_of_thread().unwrap_or_default());
    system::unshare_mounts().context("unshare(CLONE_NEWNS)")?;
    run(Command::new("mount").args(["--make-rprivate", "/"]))
}

/// Why there can be no such image here, or nothing if there can: tries to make one.
#[must_use]
pub fn why_unavailable(file_system: FileSystem) -> Option<String> {
    // On a thread of its own, so that the caller's mounts stay as they are.
    let tried = thread::spawn(move || -> anyhow::Result<()> {
        isolate_mounts()?;
        let folder = tempfile::tempdir()?;
        let bytes = file_system.bytes_min();
        let mut image = DiskImage::create(folder.path(), "try", file_system, bytes)?;
        image.cut_power(Cut::Everything)?;
        image.restore_power()
    });
    let tried = tried.join().expect("trying does not panic");
    tried.err().map(|error| format!("{error:#}"))
}

impl DiskImage {
    /// Makes an image of `bytes` bytes in a folder, `<name>.img`, and mounts it on `<name>`
    /// beside it. The thread must have mounts of its own ([`isolate_mounts`]).
    ///
    /// # Errors
    ///
    /// If the system refuses, or lacks mkfs.
    pub fn create(
        folder: &Path,
        name: &str,
        file_system: FileSystem,
        bytes: u64,
    ) -> anyhow::Result<DiskImage> {
        ensure!(are_mounts_isolated(), "the thread shares its mounts");
        let image = folder.join(format!("{name}.img"));
        File::create_new(&image)?.set_len(bytes)?;
        let mut made = DiskImage {
            file_system,
            image,
            mount_point: folder.join(name),
            is_mounted: false,
            wants_check: false,
            is_kept: false,
        };
        file_system.make(&made.image)?;
        fs::create_dir(&made.mount_point)?;
        made.mount()?;
        Ok(made)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// The file that it is in.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// What is in it.
    #[must_use]
    pub const fn file_system(&self) -> FileSystem {
        self.file_system
    }

    /// How much room is left, in bytes.
    ///
    /// # Errors
    ///
    /// If the file system cannot be asked.
    pub fn free_bytes(&self) -> anyhow::Result<u64> {
        let found = rustix::fs::statvfs(&self.mount_point)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Cuts the power. From then on each call that writes fails with EIO, until
    /// [`restore_power`](Self::restore_power); what is in memory may still be read.
    ///
    /// # Errors
    ///
    /// If the file system cannot be asked.
    pub fn cut_power(&self, cut: Cut) -> anyhow::Result<()> {
        let root = File::open(&self.mount_point)?;
        system::shut_down(&root, cut.flag()).context("shutting the file system down")
    }

    /// Makes the file system read-only, as an error of the disk does: each call that writes
    /// fails with EROFS from then on, also on open files. Of ext4 only.
    ///
    /// # Errors
    ///
    /// If it is another file system, or cannot be asked.
    pub fn make_read_only(&mut self) -> anyhow::Result<()> {
        ensure!(self.file_system == FileSystem::Ext4, "only ext4 can");
        let device = self.device()?;
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        self.wants_check = true;
        fs::write(&trigger, "planted by a test\n").context(trigger)
    }

    /// Mounts the file system anew; what it was when its power was cut is what is there. Nobody
    /// may use it any more.
    ///
    /// # Errors
    ///
    /// If it stays busy, or does not come up.
    pub fn restore_power(&mut self) -> anyhow::Result<()> {
        self.unmount()?;
        if self.wants_check {
            // 1: errors were found and mended.
            let mut check = Command::new("e2fsck");
            let found = check.args(["-f", "-p"]).arg(&self.image).output()?;
            let code = found.status.code();
            ensure!(matches!(code, Some(0 | 1)), "{found:?}");
            self.wants_check = false;
        }
        self.mount()
    }

    /// Unmounts it, and keeps the file. Gives its path.
    ///
    /// # Errors
    ///
    /// If it stays busy.
    pub fn keep(mut self) -> anyhow::Result<PathBuf> {
        self.is_kept = true;
        self.unmount()?;
        Ok(self.image.clone())
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("mount");
        command.args(["-t", self.file_system.name()]);
        command.args(["-o", self.file_system.mount_options()]);
        run(command.arg(&self.image).arg(&self.mount_point))?;
        self.is_mounted = true;
        Ok(())
    }

    /// The loop device goes with the mount.
    fn unmount(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + BUSY_MAX;
        while self.is_mounted {
            match system::unmount(&self.mount_point) {
                Ok(()) => self.is_mounted = false,
                Err(error) if error.kind() != ErrorKind::ResourceBusy => {
                    return Err(error).context(format!("umount {}", self.mount_point.display()));
                }
                Err(_) if Instant::now() >= deadline => {
                    bail!("{} stays busy", self.mount_point.display());
                }
                Err(_) => thread::sleep(BUSY_POLL),
            }
        }
        Ok(())
    }

    /// The name of the loop device: `loop3`.
    fn device(&self) -> anyhow::Result<String> {
        let device = rustix::fs::stat(&self.mount_point)?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}"))?;
        let name = link.file_name().context("a device has a name")?;
        Ok(name.to_string_lossy().into_owned())
    }
}

impl Drop for DiskImage {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            // It goes when its last user goes.
            let mut command = Command::new("umount");
            let _ = run(command.arg("--lazy").arg(&self.mount_point));
        }
        let _ = fs::remove_dir(&self.mount_point);
        if !self.is_kept {
            let _ = fs::remove_file(&self.image);
        }
    }
}

/// Whether [`isolate_mounts`] was called by this thread, or by one that it comes from.
fn are_mounts_isolated() -> bool {
    let shared = SHARED_MOUNTS.get();
    shared.is_some_and(|shared| mounts_of_thread().is_ok_and(|ours| ours != *shared))
}

/// The name of the namespace that the thread's mounts are in.
fn mounts_of_thread() -> std::io::Result<PathBuf> {
    fs::read_link("/proc/thread-self/ns/mnt")
}

/// Runs a command to its end; what it says becomes the error.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output();
    let output = output.with_context(|| format!("{}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        said.trim()
    );
    Ok(())
}
