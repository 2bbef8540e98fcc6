//! `highwater log verify --repair`: fills the holes of a stopped node from another one's files.

use std::path::Path;

use highwater_log::storage::{Access, PortableStorage};
use highwater_log::{Inspector, MendError, mend};
use serde_json::json;

use super::{open_failure, open_storage};
use crate::exit::{Failure, Kind};
use crate::print::Printer;

/// Repairs, and says what was done.
///
/// # Errors
/// [`Kind::Setup`] when the directories do not belong together, others when one cannot be read
/// or written. What could not be filled is no error here: verifying says what is left.
pub(super) fn run(
    path: &Path,
    other: &mut Inspector<PortableStorage>,
    printer: Printer,
) -> Result<(), Failure> {
    let (storage, pool) = open_storage(path, Access::ReadWrite)?;
    let mended = mend(storage, pool, other).map_err(|error| match error {
        MendError::Open(error) => open_failure(path, &error),
        MendError::Failed(_) => Failure::new(Kind::Disk, format!("{}: {error}", path.display())),
        _ => Failure::new(Kind::Setup, format!("{}: {error}", path.display())),
    })?;
    printer.line(
        || {
            format!(
                "{}: {} files repaired, {} entries filled in, {} groups are not whole",
                path.display(),
                mended.files,
                mended.entries,
                mended.unmended
            )
        },
        || {
            json!({
                "repaired_files": mended.files,
                "repaired_entries": mended.entries,
                "unmended_groups": mended.unmended,
            })
        },
    )
}
