//! `haulout binlog`.

mod fetch;
mod list;
mod show;

use std::sync::Arc;

use super::{Context, Finish, table, tables::printable};
use crate::{
    cli::{
        args::{BinlogArgs, BinlogCommand, BinlogRangeArgs, StoreArgs},
        failure::Failure,
        open,
        options::BinlogSettings,
    },
    error::Kind,
    format::Segment,
    model::Timestamp,
    repository::{Repository, RepositoryError, StoredSegment, StoredStream},
};

/// Segments whose documents are read at the same time.
const DOCUMENTS_IN_FLIGHT: usize = 16;

/// Lists, fetches or shows what was archived of binary logs.
///
/// # Errors
/// When the settings are wrong, the repository cannot be read, or something that was asked for is damaged or cannot be written.
pub async fn run(args: &BinlogArgs, context: &Context) -> Result<Finish, Failure> {
    match &args.command {
        BinlogCommand::List(args) => list::run(args, context).await,
        BinlogCommand::Fetch(args) => fetch::run(args, context).await,
        BinlogCommand::Show(args) => show::run(args, context).await,
    }
}

/// What was asked for of what is there.
struct Range {
    settings: BinlogSettings,
    repository: Arc<Repository>,
    /// Streams that have a segment in the range; all of them where no range was given.
    streams: Vec<Chosen>,
}

/// A stream, and which of its segments are in the range.
struct Chosen {
    stream: StoredStream,
    segments: Vec<StoredSegment>,
}

/// Looks for what was asked for, and says how the times were understood.
async fn range(args: &BinlogRangeArgs, store: &StoreArgs, context: &Context) -> Result<Range, Failure> {
    let settings = context.settle(BinlogSettings::assemble(&context.layers, context.url(), args, store))?;
    if let Some(understood) = settings.understood() {
        context.output.note(&understood);
    }
    let repository = open::repository(&settings.store, context).await?;
    let streams = choose(repository.binlog_streams().await?, &settings)?;
    Ok(Range { settings, repository, streams })
}

fn choose(mut streams: Vec<StoredStream>, settings: &BinlogSettings) -> Result<Vec<Chosen>, Failure> {
    if let Some(name) = &settings.stream {
        streams.retain(|stream| stream.id.as_str().starts_with(name.as_str()));
        if streams.is_empty() {
            let failure = Failure::new(Kind::Usage, format!("no stream of binary log is called {name:?}"));
            return Err(failure.with_hint("`haulout binlog list` tells the streams"));
        }
    }
    let (from, to) = (settings.from.as_ref().map(|from| from.moment), settings.to.as_ref().map(|to| to.moment));
    let ranged = from.is_some() || to.is_some();
    let chosen = streams.into_iter().map(|stream| {
        let segments = stream.segments.iter().filter(|segment| overlaps(segment, from, to)).cloned().collect();
        Chosen { stream, segments }
    });
    Ok(chosen.filter(|chosen| !ranged || !chosen.segments.is_empty()).collect())
}

/// Whether a transaction of the segment may be in the range.
fn overlaps(segment: &StoredSegment, from: Option<Timestamp>, to: Option<Timestamp>) -> bool {
    // Times of transactions are whole seconds: what happened in one is not before a part of it.
    from.is_none_or(|from| segment.key.last >= from.whole_seconds()) && to.is_none_or(|to| segment.key.first <= to)
}

impl Range {
    /// All segments of the range, the streams one after another.
    ///
    /// # Errors
    /// When there is none.
    fn segments(&self) -> Result<Vec<&StoredSegment>, Failure> {
        let segments: Vec<&StoredSegment> = self.streams.iter().flat_map(|chosen| &chosen.segments).collect();
        if segments.is_empty() {
            let failure = Failure::new(Kind::Failed, "no binary log of that range is archived");
            return Err(failure.with_hint("`haulout binlog list` tells from when to when there is some"));
        }
        Ok(segments)
    }
}

/// Numbers that lack between the first and the last segment of a stream, as ranges.
fn missing(stream: &StoredStream) -> Vec<(u32, u32)> {
    let numbers = stream.segments.windows(2).map(|pair| (pair[0].key.number, pair[1].key.number));
    let gap = |(one, next): (u32, u32)| (next - one > 1).then(|| (one + 1, next - 1));
    numbers.filter_map(gap).collect()
}

/// The server that a segment is of.
fn server(segment: &Segment) -> String {
    printable(&format!("{}:{}", segment.source.hostname, segment.source.port))
}

/// Whether an error is one of the document alone, and not of the store.
fn is_damage(error: &RepositoryError) -> bool {
    use crate::error::Diagnose;
    matches!(error.kind(), Kind::Corrupt | Kind::Failed)
}

#[cfg(test)]
mod tests;
