//! Names: keys of objects, ids, paths in the stream, URLs of repositories.

use std::{fmt::Display, str::FromStr};

use haulout::{
    mariadb::xbstream::StreamPath,
    model::{BackupId, ChunkId, PackId, RepositoryId, SlotId},
    repository::ObjectKey,
    store::{Key, StoreUrl},
};

/// Reads the text as each sort of name; what is one is written as it was read.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(key) = ObjectKey::parse(text) {
        assert_eq!(key.text(), text);
    }
    same::<BackupId>(text);
    same::<ChunkId>(text);
    same::<PackId>(text);
    same::<RepositoryId>(text);
    same::<SlotId>(text);
    same::<Key>(text);
    if let Ok(path) = StreamPath::new(text) {
        assert_eq!(path.as_str(), text);
        let joined = std::path::Path::new("/dir").join(&path);
        assert!(joined.starts_with("/dir") && joined.components().count() == 2 + text.split('/').count(), "{joined:?}");
        let whole = path.directory().map_or(path.file_name().to_owned(), |dir| format!("{dir}/{}", path.file_name()));
        assert_eq!(whole, text);
    }
    if let Ok(url) = text.parse::<StoreUrl>() {
        assert_eq!(url.to_string().parse::<StoreUrl>().ok(), Some(url));
    }
}

fn same<T: FromStr + Display>(text: &str) {
    if let Ok(name) = text.parse::<T>() {
        assert_eq!(name.to_string(), text);
    }
}
