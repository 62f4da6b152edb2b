//! Outputs that must not change by accident, as files.

use std::path::Path;

/// Compares `found` with the file `snapshots/<name>`, or writes it there when `HAULOUT_UPDATE_SNAPSHOTS` is set.
pub fn check(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/snapshots").join(name);
    if std::env::var_os("HAULOUT_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected != found {
        let differs = expected.lines().zip(found.lines()).position(|(one, other)| one != other);
        let line = differs.map_or("its end".to_owned(), |line| format!("line {}", line + 1));
        panic!(
            "{name} differs from its snapshot at {line}; if that is meant, run the tests with \
             HAULOUT_UPDATE_SNAPSHOTS=1 and commit the change\n--- found\n{found}"
        );
    }
}
