//! `haulout binlog fetch`.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use super::{Context, Finish, range};
use crate::{
    cli::{args::BinlogFetchArgs, failure::Failure, progress::Unit, report::BinlogFetchSummary},
    format::Segment,
    model::{Phase, Progress},
    repository::{Repository, SegmentReader},
};

/// Writes each segment as a file.
///
/// # Errors
/// When the settings are wrong, there is nothing in the range, a segment is damaged, or a file cannot be written. Files that are there by then
/// are whole.
pub async fn run(args: &BinlogFetchArgs, context: &Context) -> Result<Finish, Failure> {
    let range = range(&args.range, &args.store, context).await?;
    let segments = range.segments()?;
    let into = &args.into;
    fs::create_dir_all(into).map_err(|error| Failure::of_io(format!("cannot make {into:?}"), &error))?;
    let progress = context.progress(Unit::Bytes);
    progress.begin(Phase::Fetch, None);
    let mut stop = context.stop.clone();
    let mut summary = BinlogFetchSummary { into: into.clone(), files: Vec::new(), written_bytes: 0 };
    for stored in segments {
        let segment = range.repository.read_segment(&stored.key).await?;
        let name = file_name(&segment);
        let path = into.join(&name);
        let written = tokio::select! {
            written = write(&range.repository, &segment, &path, &*progress) => written,
            _ = stop.wait_for(|stop| *stop) => Err(Failure::new(crate::error::Kind::Interrupted, "interrupted")),
        };
        summary.written_bytes += written?;
        summary.files.push(name);
    }
    progress.end(Phase::Fetch);
    context.output.summary(&summary, BinlogFetchSummary::text);
    Ok(Finish::Done)
}

/// The name of the file that a segment becomes: names sort as the segments do.
pub(super) fn file_name(segment: &Segment) -> String {
    // The server's own name comes from outside.
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '_' };
    let file: String = segment.file.chars().take(100).map(plain).collect();
    format!("{}-{:08}-{file}", segment.stream, segment.number)
}

/// Writes a segment beside its place, and gives it its name when all of it was proven.
pub(super) async fn write(
    repository: &Repository,
    segment: &Segment,
    path: &Path,
    progress: &dyn Progress,
) -> Result<u64, Failure> {
    let cannot = |error: io::Error| Failure::of_io(format!("cannot write {path:?}"), &error);
    let beside = path.with_added_extension("part");
    let mut file = File::create(&beside).map_err(cannot)?;
    let mut reader = SegmentReader::new(repository, segment);
    let mut bytes_written = 0;
    loop {
        match reader.next().await {
            Ok(Some(bytes)) => {
                file.write_all(&bytes).map_err(cannot)?;
                bytes_written += bytes.len() as u64;
                progress.advance(Phase::Fetch, bytes.len() as u64);
            }
            Ok(None) => break,
            Err(error) => {
                // What is there of it is no binary log.
                fs::remove_file(&beside).ok();
                return Err(error.into());
            }
        }
    }
    file.sync_all().and_then(|()| fs::rename(&beside, path)).map_err(cannot)?;
    Ok(bytes_written)
}
