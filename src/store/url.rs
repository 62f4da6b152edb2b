//! Where a repository lies.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use url::Url;

use super::StoreError;

/// A parsed repository URL: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `file:///dir`, and
/// `memory://name` for tests. It holds no secrets and prints as it was written, less slashes at the end.
///
/// A bucket's prefix is taken as it stands (as the `aws` command does); a directory may be percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreUrl(Location);

/// The kinds of places.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Location {
    S3(BucketPrefix),
    Google(BucketPrefix),
    Azure(BucketPrefix),
    Directory(PathBuf),
    Memory(String),
}

/// A bucket (a container, with Azure) and the path in it, which may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct BucketPrefix {
    pub(super) bucket: String,
    pub(super) prefix: String,
}

impl StoreUrl {
    /// The URL of a directory, absolute.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`] when `directory` is relative.
    pub fn directory(directory: &Path) -> Result<StoreUrl, StoreError> {
        if !directory.is_absolute() {
            return Err(bad(&directory.to_string_lossy(), "the directory is not absolute"));
        }
        Ok(StoreUrl(Location::Directory(directory.components().collect())))
    }

    /// The directory, for a repository in a file system.
    pub fn as_directory(&self) -> Option<&Path> {
        match &self.0 {
            Location::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// The bucket or container, for a repository in an object store.
    pub fn bucket(&self) -> Option<&str> {
        match &self.0 {
            Location::S3(place) | Location::Google(place) | Location::Azure(place) => Some(&place.bucket),
            Location::Directory(_) | Location::Memory(_) => None,
        }
    }

    /// True for a bucket of S3, or of a store that speaks it.
    pub fn is_s3(&self) -> bool {
        matches!(self.0, Location::S3(_))
    }

    pub(super) fn location(&self) -> &Location {
        &self.0
    }
}

impl FromStr for StoreUrl {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<StoreUrl, StoreError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(bad(text, "it does not begin with a scheme such as s3:// or file://"));
        };
        let location = match scheme {
            "s3" => Location::S3(bucket_prefix(text, rest)?),
            "gs" => Location::Google(bucket_prefix(text, rest)?),
            "az" => Location::Azure(bucket_prefix(text, rest)?),
            "file" => Location::Directory(directory(text)?),
            "memory" => Location::Memory(rest.to_owned()),
            _ => return Err(bad(text, "its scheme is none of s3, gs, az, file")),
        };
        Ok(StoreUrl(location))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, place) = match &self.0 {
            Location::S3(place) => ("s3", place),
            Location::Google(place) => ("gs", place),
            Location::Azure(place) => ("az", place),
            Location::Directory(directory) => {
                return match Url::from_directory_path(directory) {
                    Ok(url) if url.path() == "/" => f.write_str(url.as_str()),
                    Ok(url) => f.write_str(url.as_str().trim_end_matches('/')),
                    Err(()) => write!(f, "file://{}", directory.display()),
                };
            }
            Location::Memory(name) => return write!(f, "memory://{name}"),
        };
        write!(f, "{scheme}://{}", place.bucket)?;
        if !place.prefix.is_empty() {
            write!(f, "/{}", place.prefix)?;
        }
        Ok(())
    }
}

fn bucket_prefix(text: &str, rest: &str) -> Result<BucketPrefix, StoreError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') {
        return Err(bad(text, "it holds a user or a secret"));
    }
    if bucket.is_empty() {
        return Err(bad(text, "it names no bucket"));
    }
    if !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err(bad(text, "the bucket's name has a character other than letters, digits and . _ -"));
    }
    let prefix = prefix.trim_end_matches('/');
    if prefix.contains(['?', '#']) {
        return Err(bad(text, "it has a query or a fragment"));
    }
    if !prefix.is_empty() {
        let parsed = object_store::path::Path::parse(prefix);
        if parsed.is_err() || prefix.starts_with('/') {
            return Err(bad(text, "the prefix has an empty part, a part that is . or .., or a control character"));
        }
    }
    Ok(BucketPrefix { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

fn directory(text: &str) -> Result<PathBuf, StoreError> {
    let url = Url::parse(text).map_err(|_| bad(text, "it cannot be parsed"))?;
    if url.host_str().is_some_and(|host| !host.is_empty()) {
        return Err(bad(text, "it names a host; a directory is written with three slashes, file:///dir"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad(text, "it has a query or a fragment; write ? as %3F and # as %23"));
    }
    let path = url.to_file_path().map_err(|()| bad(text, "it is not an absolute directory"))?;
    // An empty path is the root directory to the parser, and never what was meant.
    if text == "file://" {
        return Err(bad(text, "it names no directory"));
    }
    // An encoded slash hides a part from the parser, which would have resolved it: what is printed would be another place.
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(bad(text, "it has a part that is .. behind an encoded slash"));
    }
    Ok(path.components().collect())
}

/// The error for `text`, which is not repeated where it might hold a secret.
fn bad(text: &str, reason: &'static str) -> StoreError {
    let url = match text.split_once("://") {
        Some((scheme, rest)) if rest.contains('@') => format!("{scheme}://…"),
        _ => text.to_owned(),
    };
    StoreError::BadUrl { url, reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::{Diagnose, Kind};

    #[test]
    fn a_url_prints_as_it_was_written() {
        for text in [
            "s3://bucket",
            "s3://bucket/a/b",
            "s3://Bucket.x-y/with space/ü%20",
            "gs://b/p",
            "az://container/p",
            "file:///srv/backup",
            "file:///",
            "memory://x",
        ] {
            assert_eq!(text.parse::<StoreUrl>().unwrap().to_string(), text);
        }
        assert_eq!("s3://bucket/a//".parse::<StoreUrl>().unwrap().to_string(), "s3://bucket/a");
        assert_eq!("file:///srv/b/".parse::<StoreUrl>().unwrap().to_string(), "file:///srv/b");
    }

    #[test]
    fn a_directory_may_be_percent_encoded() {
        let url: StoreUrl = "file:///srv/my%20dir%23".parse().unwrap();
        assert_eq!(url.as_directory(), Some(Path::new("/srv/my dir#")));
        assert_eq!(url.to_string().parse::<StoreUrl>().unwrap(), url);
    }

    #[test]
    fn what_is_no_repository_url_is_a_usage_error() {
        for text in [
            "",
            "/srv/backup",
            "bucket/prefix",
            "http://host/bucket",
            "s3:/bucket",
            "s3://",
            "s3:///prefix",
            "s3://b//p",
            "s3://b/../p",
            "s3://b/./p",
            "s3://b/p?region=x",
            "s3://b/p#x",
            "s3://b u/p",
            "file://",
            "file://host/dir",
            "file:///a?b",
            "file:///a%2F../b",
            "ftp://b/p",
        ] {
            let error = text.parse::<StoreUrl>().expect_err(text);
            assert_eq!(error.kind(), Kind::Usage, "{text}");
        }
    }

    #[test]
    fn a_secret_in_a_url_is_refused_and_not_repeated() {
        for text in ["s3://AKIA:hunter2@bucket/prefix", "http://u:hunter2@h/x", "file://u:hunter2@h/x"] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            let shown = format!("{error} {error:?} {:?}", error.hint());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(s3|file|gs|az)://.{0,40}") {
            if let Ok(url) = text.parse::<StoreUrl>() {
                prop_assert_eq!(url.to_string().parse::<StoreUrl>().unwrap(), url);
            }
        }
    }
}
