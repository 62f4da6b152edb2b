//! Names of objects, relative to the repository.

use std::{fmt, str::FromStr};

use object_store::path::Path;

use super::StoreError;

/// Longest key in bytes. S3 allows 1024 with the prefix of the URL; half is left for that prefix.
const KEY_BYTES_MAX: usize = 512;

/// Longest part between slashes in bytes: file systems allow 255, and a file that is being written has a suffix.
const PART_BYTES_MAX: usize = 240;

/// Name of an object relative to the repository, such as `packs/ab/abcd…`.
///
/// Parts are joined by single slashes and hold ASCII letters, digits and `. _ - + = @` alone: these stand for themselves
/// in a URL of every store and in every file system. A part is neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Accepts a text that is a key.
    ///
    /// # Errors
    /// [`StoreError::BadKey`] for anything else.
    pub fn new(text: impl Into<String>) -> Result<Key, StoreError> {
        let text = text.into();
        match Self::fault(&text) {
            None => Ok(Key(text)),
            Some(reason) => Err(StoreError::BadKey { key: text, reason }),
        }
    }

    /// The text of the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of `name` in the folder that this key names.
    ///
    /// # Errors
    /// [`StoreError::BadKey`] when the whole is no key.
    pub fn join(&self, name: &str) -> Result<Key, StoreError> {
        Key::new(format!("{self}/{name}"))
    }

    fn fault(text: &str) -> Option<&'static str> {
        if text.is_empty() {
            return Some("it is empty");
        }
        if text.len() > KEY_BYTES_MAX {
            return Some("it is longer than 512 bytes");
        }
        text.split('/').find_map(|part| match part {
            "" => Some("it has an empty part"),
            "." | ".." => Some("it has a part that is . or .."),
            part if part.len() > PART_BYTES_MAX => Some("it has a part longer than 240 bytes"),
            part if !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+=@".contains(&byte)) => {
                Some("it has a character other than letters, digits and . _ - + = @")
            }
            _ => None,
        })
    }

    pub(super) fn path(&self) -> Path {
        Path::from(self.0.as_str())
    }

    /// The key that `path` stands for, or nothing where someone else's object lies in the repository.
    pub(super) fn of_path(path: &Path) -> Option<Key> {
        Key::new(path.as_ref()).ok()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Key {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Key, StoreError> {
        Key::new(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_that_could_leave_the_repository_are_refused() {
        let long = "a".repeat(513);
        for text in ["", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a b", "a\0b", "a%2Fb", "a#1", "ä", &long] {
            assert!(matches!(Key::new(text), Err(StoreError::BadKey { .. })), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_key_survives_the_way_through_the_store_crate(text in "[a-zA-Z0-9._+=@-]{1,20}(/[a-zA-Z0-9._+=@-]{1,20}){0,4}") {
            if let Ok(key) = Key::new(text) {
                prop_assert_eq!(Key::of_path(&key.path()), Some(key));
            }
        }
    }
}
