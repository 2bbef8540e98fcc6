//! `highwater log`: a stopped node's files, read offline.

mod against;
mod dump;
mod repair;
mod verify;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use highwater::offline::{CONTROLLER_GROUP, Topics};
use highwater_log::storage::{
    Access, DataDirectory, DirectoryError, OpenError as StorageOpenError, PortableStorage,
};
use highwater_log::{GroupId, Inspector, Item, OpenError};
use highwater_record::{Budget, BufferPool};

use crate::exit::{Failure, Kind};
use crate::print::Printer;

/// Memory for what is read at once, in bytes: the largest frame, and as much again.
const MEMORY_BYTES: usize = 256 << 20;

/// Read a stopped node's files: what lies in them, and whether it is as it was written.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show every frame: batches, control entries, file headers and footers, promises.
    ///
    /// What a crash or a later file has made void is shown too, and says so.
    #[command(after_help = "Examples:
  highwater log dump node-0/data
  highwater log dump node-0/data --group 3
  highwater --json log dump node-0/data | jq -r 'select(.codec) | [.topic, .codec] | @tsv'")]
    Dump(Selection),
    /// Read every byte and say what is wrong, by file and offset. Exit code 8 if anything is.
    ///
    /// It judges as a node does at its start: a write that a crash has interrupted is no damage.
    /// With another node's directory it also compares the two nodes' logs, entry by entry.
    #[command(after_help = "Examples:
  highwater log verify node-0/data
  highwater --json log verify node-0/data | jq -r 'select(.damage)'
  highwater log verify node-0/data --against node-1/data
  highwater log verify node-0/data --against node-1/data --settled
  highwater log verify node-0/data --against node-1/data --repair")]
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
struct Verify {
    #[command(flatten)]
    selection: Selection,
    /// Another node's data directory, of the same cluster: what both logs of a partition reach
    /// over must be the same, to the last bit. A tail that is not committed on both may differ.
    #[arg(long, value_name = "DIRECTORY")]
    against: Option<PathBuf>,
    /// The cluster had come to rest before its nodes were stopped: logs must end alike, too.
    #[arg(long, requires = "against")]
    settled: bool,
    /// First fill what this directory lacks with what the other one has: offline what a running
    /// node does with its peers' help. Only what the entries around it prove is taken.
    #[arg(long, requires = "against")]
    repair: bool,
}

#[derive(Debug, clap::Args)]
struct Selection {
    /// The node's data directory; the node must not run.
    directory: PathBuf,
    /// Only this group; may be repeated. Group 0 is the cluster's metadata.
    #[arg(long, value_name = "NUMBER")]
    group: Vec<u64>,
}

impl Arguments {
    /// Reads.
    ///
    /// # Errors
    /// When the directory cannot be read, or is damaged.
    pub(crate) fn run(self, printer: &Printer) -> Result<(), Failure> {
        match self.action {
            Action::Dump(selection) => dump::run(&selection, *printer),
            Action::Verify(arguments) => verify::run(&arguments, *printer),
        }
    }
}

impl Selection {
    fn inspector(&self) -> Result<Inspector<PortableStorage>, Failure> {
        inspect(&self.directory)
    }

    fn groups(&self, inspector: &Inspector<PortableStorage>) -> Vec<GroupId> {
        self.select(inspector.groups())
    }

    fn select(&self, mut groups: Vec<GroupId>) -> Vec<GroupId> {
        if !self.group.is_empty() {
            groups.retain(|group| self.group.contains(&group.0));
        }
        groups
    }

    /// Which topics the groups are.
    fn topics(&self, inspector: &mut Inspector<PortableStorage>) -> Result<Topics, Failure> {
        let mut topics = Topics::new();
        let walked = inspector.walk(CONTROLLER_GROUP, &mut |_, item| {
            if let Item::Entry { header, body } = item {
                topics.entry(header.index, body);
            }
        });
        walked.map_err(|error| open_failure(&self.directory, &error))?;
        Ok(topics)
    }
}

/// Opens a stopped node's data directory, to look at it.
fn inspect(path: &Path) -> Result<Inspector<PortableStorage>, Failure> {
    let (storage, _) = open_storage(path, Access::ReadOnly)?;
    Inspector::open(storage).map_err(|error| open_failure(path, &error))
}

fn open_storage(path: &Path, access: Access) -> Result<(PortableStorage, BufferPool), Failure> {
    let directory = DataDirectory::open(path, access).map_err(|error| {
        let advice = match error {
            DirectoryError::Locked { .. } => "; stop the node first",
            DirectoryError::NotFound { .. } | DirectoryError::NotFormatted { .. } => {
                "; name a node's data directory, as in node-0/data"
            }
            _ => "",
        };
        Failure::new(Kind::Setup, format!("{error}{advice}"))
    })?;
    let pool = BufferPool::new(Budget::new(MEMORY_BYTES), directory.alignment());
    let storage = PortableStorage::new(directory, pool.clone())
        .map_err(|error: StorageOpenError| Failure::new(Kind::Other, error))?;
    Ok((storage, pool))
}

fn open_failure(path: &Path, error: &OpenError) -> Failure {
    let kind = match error {
        OpenError::BadIdentity => Kind::Damage,
        OpenError::Storage(_) => Kind::Disk,
        _ => Kind::Setup,
    };
    Failure::new(kind, format!("{}: {error}", path.display()))
}
