//! What time it was when the node ran last, in a file of the data directory (docs/format.md): a
//! start holds its wall clock against it, and does not delete by time while the two do not agree.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use highwater_log::storage::Storage;

use crate::config::Config;
use crate::thread::Thread;

/// How often it is written: well within what a wall clock may be off.
const INTERVAL: Duration = Duration::from_secs(60);

const _: () = assert!(2 * INTERVAL.as_secs() < highwater_engine::WALL_CLOCK_ERROR_MAX.as_secs());

/// Where the file lies.
pub(crate) fn path(config: &Config) -> PathBuf {
    config.node.data_dir.join("wall-clock")
}

/// What the file says, in milliseconds since the Unix epoch. One that cannot be read says the
/// Unix epoch itself, which nobody takes for now. Without one nothing is known, nor where power
/// was lost before the first text was on the disk.
pub(crate) fn read(path: &Path) -> Option<i64> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Ok(text) if text.trim_start_matches('\0').is_empty() => None,
        text => Some(text.ok().and_then(|text| parse(&text)).unwrap_or(0)),
    }
}

fn parse(text: &str) -> Option<i64> {
    text.strip_suffix('\n')?.parse().ok()
}

/// Writes over what the file says. It is not synced: what the system writes back by itself after
/// half a minute is new enough.
fn write(path: &Path, wall_ms: i64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    // Of one length, so that a crash leaves the old text or the new one.
    let text = format!("{:020}\n", wall_ms.max(0));
    file.write_all_at(text.as_bytes(), 0)
}

/// Keeps the file up to date for ever. Runs on shard 0's own task set; another thread waits for
/// the disk.
pub(crate) async fn keep<S: Storage + 'static>(thread: Rc<Thread<S>>, path: PathBuf) {
    loop {
        let (to, wall_ms) = (path.clone(), thread.known_wall_ms());
        let written = tokio::task::spawn_blocking(move || write(&to, wall_ms)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(path = %path.display(), %error, "cannot write down what time it is");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_no_number_is_not_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wall-clock");
        assert_eq!(read(&path), None);
        for wall_ms in [1_700_000_000_000, 7, i64::MAX] {
            write(&path, wall_ms).unwrap();
            assert_eq!(read(&path), Some(wall_ms));
        }
        write(&path, -5).unwrap();
        assert_eq!(read(&path), Some(0), "before 1970 no node has run");
        for text in ["0000170000000000000", "now\n", "99999999999999999999\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path), Some(0), "{text:?}");
        }
        for text in ["", "\0\0\0"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path), None, "{text:?}");
        }
    }
}
