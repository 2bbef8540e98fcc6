//! The system calls that no safe library has.
#![expect(
    unsafe_code,
    reason = "plain calls of libc, without memory of ours in them"
)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `EXT4_IOC_SHUTDOWN` (`linux/ext4.h`), which is `XFS_IOC_GOINGDOWN`: `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::Ioctl = 0x8004_587d;

/// Gives this thread mounts of its own.
pub(super) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: no memory is passed. What changes is which mounts this thread sees, and its root and
    // working directory are no longer shared with other threads.
    outcome(unsafe { libc::unshare(libc::CLONE_NEWNS) })
}

/// Shuts a file system down, of which this is any file.
pub(super) fn shut_down(file: &File, flag: u32) -> io::Result<()> {
    // SAFETY: the call reads four bytes from the pointer, which is that of `flag`, and keeps
    // nothing; the descriptor is open as long as `file` is borrowed.
    outcome(unsafe { libc::ioctl(file.as_raw_fd(), SHUTDOWN, &raw const flag) })
}

/// Unmounts what is mounted there.
pub(super) fn unmount(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the pointer is that of a string with its zero, which outlives the call.
    outcome(unsafe { libc::umount2(path.as_ptr(), libc::UMOUNT_NOFOLLOW) })
}

/// Writes a range of a file back, and waits.
pub(super) fn sync_file_range(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: no memory is passed; the descriptor is open as long as `file` is borrowed.
    outcome(unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, flags) })
}

fn outcome(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
