//! How much of a core a process gets (cgroup v1, controller `cpu`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the controller is mounted.
const ROOT: &str = "/sys/fs/cgroup/cpu";

/// How ours are called: then the process that made them, then the node.
const PREFIX: &str = "highwater-chaos";

/// The time that is shared out, in microseconds.
const PERIOD_US: u32 = 100_000;

/// A group for one node's process. It goes when it is dropped, once nobody is in it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

/// Whether there can be any.
pub(crate) fn is_possible() -> bool {
    Cgroup::new("probe").is_ok()
}

/// Removes what runs have left behind that were killed.
pub(crate) fn clean_up() {
    let Ok(groups) = fs::read_dir(ROOT) else {
        return;
    };
    for group in groups.flatten() {
        let name = group.file_name().to_string_lossy().into_owned();
        let maker = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').nth(1));
        let is_gone = maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists());
        if is_gone {
            // Somebody in it that still ends; the next run tries again.
            let _ = fs::remove_dir(group.path());
        }
    }
}

impl Cgroup {
    /// A group that limits nothing yet.
    pub(crate) fn new(node: &str) -> io::Result<Self> {
        let maker = std::process::id();
        let path = Path::new(ROOT).join(format!("{PREFIX}-{maker}-{node}"));
        fs::create_dir(&path)?;
        let group = Self { path };
        group.write("cpu.cfs_period_us", &PERIOD_US.to_string())?;
        Ok(group)
    }

    /// A process and what it starts from now on.
    pub(crate) fn take(&self, process: u32) -> io::Result<()> {
        self.write("cgroup.procs", &process.to_string())
    }

    /// So many percent of a core from now on; nothing: as much as there is.
    pub(crate) fn limit(&self, percent: Option<u32>) -> io::Result<()> {
        let quota = percent.map_or("-1".to_owned(), |percent| {
            (PERIOD_US / 100 * percent).to_string()
        });
        self.write("cpu.cfs_quota_us", &quota)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.path.join(file), text)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Left for `clean_up`, if somebody is still in it.
        let _ = fs::remove_dir(&self.path);
    }
}
