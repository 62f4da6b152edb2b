//! Secrets: read from files and the environment, never from the arguments, and never shown.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::model::Secret;

/// Longest secret: session tokens have some 2 KiB, and a wrong file is often much longer.
const SECRET_BYTES_MAX: u64 = 16 << 10;

/// Why a file yields no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read secret file {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("{path:?} holds no secret: {problem}")]
    NotASecret {
        /// The file.
        path: PathBuf,
        /// What was found.
        problem: &'static str,
    },
}

/// A secret from a file, and whether everyone on the machine can read that file.
#[derive(Debug)]
pub struct SecretFile {
    /// The file's first line.
    pub secret: Secret,
    /// True when the file's mode lets others read it.
    pub exposed: bool,
}

impl SecretFile {
    /// Reads the first line of `path`.
    ///
    /// # Errors
    /// When the file cannot be read, is empty, or is something else than a line of text.
    pub fn read(path: &Path) -> Result<SecretFile, SecretError> {
        let failed = |source| SecretError::Read { path: path.to_owned(), source };
        let not = |problem| SecretError::NotASecret { path: path.to_owned(), problem };
        let file = File::open(path).map_err(failed)?;
        let exposed = file.metadata().map_err(failed)?.permissions().mode() & 0o004 != 0;
        let mut bytes = Vec::new();
        file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > SECRET_BYTES_MAX {
            return Err(not("it is too long"));
        }
        let text = String::from_utf8(bytes).map_err(|_| not("it is not UTF-8"))?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        match line {
            "" => Err(not("it is empty")),
            line if line.contains(['\n', '\0']) => Err(not("it has more than one line")),
            line => Ok(SecretFile { secret: Secret::new(line), exposed }),
        }
    }
}

/// The bytes of a file of any kind, and whether everyone on the machine can read it.
///
/// # Errors
/// When the file cannot be read or is too long.
pub fn read_bytes(path: &Path) -> Result<(Zeroizing<Vec<u8>>, bool), SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let exposed = file.metadata().map_err(failed)?.permissions().mode() & 0o004 != 0;
    // Never to grow: what is moved leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX as usize + 2));
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(SecretError::NotASecret { path: path.to_owned(), problem: "it is too long" });
    }
    Ok((bytes, exposed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<SecretFile, SecretError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        SecretFile::read(&path)
    }

    #[test]
    fn only_the_line_break_at_the_end_is_no_part_of_a_secret() {
        for (bytes, secret) in [("hunter2", "hunter2"), ("hunter2\n", "hunter2"), (" a b \r\n", " a b ")] {
            let file = read(bytes.as_bytes()).unwrap();
            assert_eq!(file.secret.reveal(), secret);
            assert!(!file.exposed && !format!("{file:?}").contains("hunter"));
        }
    }

    #[test]
    fn a_file_that_is_no_secret_is_refused_without_repeating_it() {
        for bytes in [&b""[..], b"\n", b"user\nhunter2\n", b"hunter2\0", b"hunter\xff", &[b'h'; 20_000]] {
            assert!(!read(bytes).unwrap_err().to_string().contains("hunter"));
        }
    }

    #[test]
    fn a_file_open_to_everyone_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(SecretFile::read(&path).unwrap().exposed);
    }
}
