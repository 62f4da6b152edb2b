//! Keeps a restore away from the files of the server that was backed up.
//!
//! Of a table with DATA DIRECTORY the backup has the tablespace, under the name that it would have in the datadir, and an
//! `.isl` file with the path at which the server keeps it. A server that finds both opens the path (MariaDB `fil0fil.cc`,
//! `fil_ibd_open`): that is the file of the living server, if it runs on the same machine. Without the `.isl` file it
//! opens the tablespace in the datadir, and the table is one without DATA DIRECTORY.

use std::fs;
use std::path::Path;

use super::plan::join;
use super::{RestoreError, RestorePlan};

/// Ending of the files that hold a path.
const LINK_ENDING: &str = ".isl";

/// Removes the `.isl` files of a fetched directory; returns the tables, as `schema/table`.
///
/// # Errors
/// When one cannot be removed.
pub(super) fn remove(directory: &Path, plan: &RestorePlan) -> Result<Vec<String>, RestoreError> {
    let mut tables = Vec::new();
    for file in &plan.files {
        let Some(table) = file.path.strip_suffix(LINK_ENDING).filter(|table| table.contains('/')) else { continue };
        let path = join(directory, &file.path)?;
        fs::remove_file(&path).map_err(RestoreError::io("remove", path))?;
        tables.push(table.to_owned());
    }
    Ok(tables)
}
