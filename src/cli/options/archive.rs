//! Settings of `archive`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{ConnectionSettings, SpoolSettings, StoreSettings, ToolSettings};
use crate::cli::{
    args::ArchiveArgs,
    human::ByteSize,
    settings::{Layers, SettingsError, Stretch, keys},
};

/// Usual seconds from the first transaction of a segment to its end, and those that can be set: each segment costs three requests.
const EVERY: (u64, RangeInclusive<u64>) = (5, 1..=3600);
/// Usual bytes of a segment, and those that can be set.
const SEGMENT_BYTES: (u64, RangeInclusive<u64>) = (16 << 20, 64 << 10..=1 << 30);

/// All that `archive` needs to know.
#[derive(Debug, Clone)]
pub struct ArchiveSettings {
    /// The repository.
    pub store: StoreSettings,
    /// The server.
    pub connection: ConnectionSettings,
    /// MariaDB's tools.
    pub tools: ToolSettings,
    /// Longest time of a segment.
    pub every: Duration,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Where what was received waits.
    pub spool: SpoolSettings,
    /// End when all is archived that was there.
    pub once: bool,
}

impl ArchiveSettings {
    /// Resolves the settings of `archive`.
    ///
    /// # Errors
    /// When a value is wrong.
    pub fn assemble(layers: &Layers, url: Option<&str>, args: &ArchiveArgs) -> Result<ArchiveSettings, SettingsError> {
        let wrong = |key: &str, problem: String| {
            let origin = "a setting of the archive".to_owned();
            SettingsError::BadValue { origin, key: key.to_owned(), problem }
        };
        let every = layers.pick(&keys::ARCHIVE_EVERY, args.every.clone())?;
        let every = every.as_ref().map_or(Ok(EVERY.0), Stretch::seconds);
        let every = every.ok().filter(|seconds| EVERY.1.contains(seconds));
        let every = every.ok_or_else(|| wrong("every", "expected 1s to 1h".to_owned()))?;
        let size = layers.pick_or(&keys::SEGMENT_SIZE, args.segment_size, ByteSize(SEGMENT_BYTES.0))?;
        if !SEGMENT_BYTES.1.contains(&size.0) {
            return Err(wrong("segment_size", "expected 64KiB to 1GiB".to_owned()));
        }
        Ok(ArchiveSettings {
            store: StoreSettings::assemble(layers, url, &args.store)?,
            connection: ConnectionSettings::assemble(layers, &args.connection)?,
            tools: ToolSettings::assemble(layers, &args.tools)?,
            every: Duration::from_secs(every),
            segment_bytes: size.0,
            spool: SpoolSettings::assemble(layers, args.spool_dir.clone(), args.spool_size)?,
            once: args.once,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::environment::Environment;

    #[test]
    fn times_and_sizes_of_segments_have_limits() {
        let settings = |every: &str, size: &str| {
            let layers = Layers::open(Environment::of_variables(&[]), None).unwrap();
            let args = ArchiveArgs {
                every: Some(every.parse().unwrap()),
                segment_size: Some(size.parse().unwrap()),
                ..ArchiveArgs::default()
            };
            ArchiveSettings::assemble(&layers, Some("file:///x"), &args)
        };
        let read = settings("1m", "1MiB").unwrap();
        assert_eq!((read.every, read.segment_bytes), (Duration::from_secs(60), 1 << 20));
        for (every, size) in [("0s", "1MiB"), ("2h", "1MiB"), ("1mo", "1MiB"), ("5s", "1KiB"), ("5s", "2GiB")] {
            assert!(settings(every, size).is_err(), "{every} {size}");
        }
    }
}
