//! The server's plugins that are no part of its program: encryption keys, ARCHIVE, RocksDB.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use super::ServerOptions;

/// The folder with the plugins, fetched when it is not there yet.
pub fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/plugins.sh");
        let output = Command::new(&script).output().expect("integration/plugins.sh can be run");
        assert!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().into()
    });
    &FOLDER
}

impl ServerOptions {
    /// Loads a plugin, such as `ha_archive`.
    pub fn plugin(self, name: &str) -> ServerOptions {
        self.argument(format!("--plugin-dir={}", folder().display())).argument(format!("--plugin-load-add={name}"))
    }

    /// Has keys 1, 2 and 3 in file `keys`, which is made where it is not there yet.
    pub fn keys(self, keys: &Path) -> ServerOptions {
        if !keys.exists() {
            let lines = [1_u8, 2, 3].map(|number| format!("{number};{}\n", hex::encode([number.wrapping_mul(77); 32])));
            fs::write(keys, lines.concat()).unwrap();
        }
        self.plugin("file_key_management").argument(format!("--file-key-management-filename={}", keys.display()))
    }
}
