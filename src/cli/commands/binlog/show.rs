//! `haulout binlog show`.

use super::{Context, Finish, range};
use crate::{
    cli::{args::BinlogShowArgs, failure::Failure, open, options::ToolSettings},
    error::Kind,
    format::Segment,
    mariadb::{
        binlog::print::{self, PrintError, PrintOptions},
        tool::Tools,
    },
    repository::{Repository, RepositoryError, SegmentReader},
};

/// Prints the events of a range.
///
/// # Errors
/// When the settings are wrong, there is nothing in the range, a segment is damaged, or `mariadb-binlog` is missing or refuses.
pub async fn run(args: &BinlogShowArgs, context: &Context) -> Result<Finish, Failure> {
    let output = &context.output;
    if output.is_json() {
        let failure = Failure::new(Kind::Usage, "`binlog show` prints text, which is no JSON");
        return Err(failure.with_hint("leave out --json, or use `haulout binlog list --json`"));
    }
    let tools = open::tools(&context.settle(ToolSettings::assemble(&context.layers, &args.tools))?);
    let program = Tools::binlog_alone(&tools)?;
    let range = range(&args.range, &args.store, context).await?;
    let segments = range.segments()?;
    output.note("times in what follows are UTC");
    let settings = &range.settings;
    let options = PrintOptions {
        program: &program,
        environment: &tools.environment,
        from: settings.from.as_ref().map(|from| from.moment.whole_seconds()),
        // The tool stops before that second.
        to: settings.to.as_ref().map(|to| to.moment.whole_seconds().after(1)),
    };
    let mut run: Vec<Segment> = Vec::new();
    for stored in segments {
        let segment = range.repository.read_segment(&stored.key).await?;
        if run.last().is_some_and(|last| !goes_on(last, &segment)) {
            print_run(&range.repository, &run, &options, context).await?;
            run.clear();
        }
        run.push(segment);
    }
    print_run(&range.repository, &run, &options, context).await?;
    Ok(Finish::Done)
}

/// Whether `next` is the following part of the same file.
fn goes_on(last: &Segment, next: &Segment) -> bool {
    let place = |segment: &Segment| (segment.stream.clone(), segment.file.clone(), segment.file_created);
    place(last) == place(next) && last.number.checked_add(1) == Some(next.number) && last.end == next.start
}

/// Prints segments that follow each other in one file.
async fn print_run(
    repository: &Repository,
    run: &[Segment],
    options: &PrintOptions<'_>,
    context: &Context,
) -> Result<(), Failure> {
    let mut joined = Joined { repository, rest: run, reader: None, skip: 0, begun: false };
    let mut stop = context.stop.clone();
    let printed = tokio::select! {
        printed = print::print(options, async || joined.next().await, |bytes| context.output.data(bytes)) => printed,
        _ = stop.wait_for(|stop| *stop) => return Err(Failure::new(Kind::Interrupted, "interrupted")),
    };
    match printed {
        Ok(()) => Ok(()),
        Err(PrintError::Source(error)) => Err(error.into()),
        Err(PrintError::Tool(error)) => Err(error.into()),
    }
}

/// The bytes of segments as those of one file: of all but the first, what each begins with for itself is left out.
struct Joined<'a> {
    repository: &'a Repository,
    rest: &'a [Segment],
    reader: Option<SegmentReader<'a>>,
    /// Bytes that are still to be left out.
    skip: u64,
    begun: bool,
}

impl Joined<'_> {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, RepositoryError> {
        loop {
            let Some(reader) = &mut self.reader else {
                let Some((segment, rest)) = self.rest.split_first() else { return Ok(None) };
                self.reader = Some(SegmentReader::new(self.repository, segment));
                let own = segment.raw_bytes.saturating_sub(segment.end - segment.start);
                self.skip = if self.begun { own } else { 0 };
                (self.rest, self.begun) = (rest, true);
                continue;
            };
            let Some(mut bytes) = reader.next().await? else {
                self.reader = None;
                continue;
            };
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skipped as u64;
            bytes.drain(..skipped);
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}
