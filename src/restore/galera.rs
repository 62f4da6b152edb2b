//! A restored server that joins its Galera cluster again without being sent all of it.
//!
//! A node that says in `grastate.dat` where it stands is sent what comes after that, from the memory of a node that still has it (an
//! incremental state transfer, IST). Where none has, it is sent everything (SST), and what was restored is thrown away. Whether one has,
//! only the cluster knows, so it is told what to ask there.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::RestoreError;
use crate::mariadb::galera::{GaleraState, INFO_BYTES_MAX, INFO_NAMES, STATE_NAME};

/// Permission bits of the file, which are those of the server's others.
const MODE: u32 = 0o660;

/// Sees to it that the prepared files in `directory` hold the cluster's state when it is `wanted`, and none otherwise: an earlier run may
/// have left one. Nothing where the backup's server was no node.
///
/// # Errors
/// When a file cannot be read, written or removed.
pub(super) fn settle(directory: &Path, wanted: bool) -> Result<Option<GaleraState>, RestoreError> {
    let path = directory.join(STATE_NAME);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(RestoreError::io("remove", path)(error)),
        _ => {}
    }
    let state = if wanted { read(directory)? } else { None };
    if let Some(state) = &state {
        let failed = |action| RestoreError::io(action, &path);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path).map_err(failed("create"))?;
        // The umask took bits away from what was asked for.
        file.set_permissions(Permissions::from_mode(MODE)).map_err(failed("set the mode of"))?;
        file.write_all(state.file().as_bytes()).map_err(failed("write"))?;
        file.sync_all().map_err(failed("write"))?;
    }
    Ok(state)
}

/// What the prepare wrote.
fn read(directory: &Path) -> Result<Option<GaleraState>, RestoreError> {
    for path in INFO_NAMES.map(|name| directory.join(name)) {
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened.map_err(RestoreError::io("open", &path))?,
        };
        let mut bytes = Vec::new();
        file.take(INFO_BYTES_MAX).read_to_end(&mut bytes).map_err(RestoreError::io("read", &path))?;
        return Ok(GaleraState::parse(&String::from_utf8_lossy(&bytes)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const UUID: &str = "fa90272c-eaaf-11f1-91e9-26ecaaad0201";

    #[test]
    fn the_state_is_left_where_it_is_wanted_and_known_and_nowhere_else() {
        for name in INFO_NAMES {
            let folder = tempfile::tempdir().unwrap();
            let state = folder.path().join(STATE_NAME);
            assert_eq!(settle(folder.path(), true).unwrap(), None);
            assert!(!state.exists());
            fs::write(folder.path().join(name), format!("{UUID}:7 0")).unwrap();
            for _ in 0..2 {
                let left = settle(folder.path(), true).unwrap().unwrap();
                assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, MODE);
                assert_eq!((left.seqno, fs::read_to_string(&state).unwrap()), (7, left.file()), "{name}");
            }
            // The next run does not want it.
            assert_eq!(settle(folder.path(), false).unwrap(), None);
            assert!(!state.exists());
            fs::write(folder.path().join(name), "\u{1}garbage").unwrap();
            assert_eq!(settle(folder.path(), true).unwrap(), None);
            assert!(!state.exists());
        }
    }
}
