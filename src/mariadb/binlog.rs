//! Where the server's binlog ends, by its files.

use std::path::Path;

/// The end of the newest binlog file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinlogEnd {
    /// Name of the file.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
}

impl BinlogEnd {
    /// Looks at the files named `base` and a number, such as `/var/lib/mysql/binlog.000017`; none when there is none that can be
    /// seen.
    ///
    /// Source: MariaDB `sql/log.cc` (`find_uniq_filename`): the number is written with six digits or more.
    pub fn look(base: &Path) -> Option<BinlogEnd> {
        let stem = base.file_name()?.to_str()?;
        let names = base.parent()?.read_dir().ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let number = |name: &str| {
            let digits = name.strip_prefix(stem)?.strip_prefix('.')?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?
        };
        let (_, file) = names.filter_map(|name| Some((number(&name)?, name))).max()?;
        let bytes = base.with_file_name(&file).metadata().ok()?.len();
        Some(BinlogEnd { file, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_highest_number_is_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("db.bin");
        assert_eq!(BinlogEnd::look(&base), None);
        for (name, bytes) in [
            ("db.bin.000002", 2),
            ("db.bin.999999", 3),
            ("db.bin.1000000", 4),
            ("db.bin.index", 5),
            ("db.bin.", 6),
            ("other.2000000", 7),
        ] {
            std::fs::write(dir.path().join(name), vec![0; bytes]).unwrap();
        }
        assert_eq!(BinlogEnd::look(&base), Some(BinlogEnd { file: "db.bin.1000000".to_owned(), bytes: 4 }));
        assert_eq!(BinlogEnd::look(&dir.path().join("none/db")), None);
    }
}
