//! `haulout binlog list`.

use futures::StreamExt;

use super::{
    Chosen, Context, DOCUMENTS_IN_FLIGHT, Finish, Range, is_damage, missing, printable, range, server,
    table::{Column, Table},
};
use crate::{
    cli::{
        args::BinlogListArgs,
        failure::Failure,
        human,
        output::Output,
        paint::Paint,
        report::{BinlogListSummary, BinlogSegmentLine, BinlogStreamLine},
    },
    format::Segment,
    repository::{Repository, RepositoryError, StoredSegment},
};

/// Lists streams and segments.
///
/// # Errors
/// When the settings are wrong or the store cannot list; what is damaged or missing is no error but [`Finish::Damaged`].
pub async fn run(args: &BinlogListArgs, context: &Context) -> Result<Finish, Failure> {
    let range = range(&args.range, &args.store, context).await?;
    let (listing, faults) = Listing::read(range, args.long || context.output.is_json()).await?;
    Ok(listing.tell(args, &faults, &context.output))
}

/// What is told.
pub(super) struct Listing {
    pub range: Range,
    pub streams: Vec<Listed>,
}

/// A stream.
pub(super) struct Listed {
    chosen: Chosen,
    /// Its first segment, where that can be read.
    first: Option<Segment>,
    /// Segments in the range, with their documents where these were asked for and can be read.
    segments: Vec<(StoredSegment, Option<Segment>)>,
}

impl Listing {
    /// Reads the first document of each stream, and with `details` those of all segments in the range; and tells which cannot be read.
    pub async fn read(mut range: Range, details: bool) -> Result<(Listing, Vec<String>), Failure> {
        let (mut streams, mut faults) = (Vec::new(), Vec::new());
        for chosen in std::mem::take(&mut range.streams) {
            let first = chosen.stream.segments.iter().take(1).cloned().collect();
            let first = documents(&range.repository, first, &mut faults).await?.pop();
            let segments = match details {
                true => documents(&range.repository, chosen.segments.clone(), &mut faults).await?,
                false => chosen.segments.iter().map(|stored| (stored.clone(), None)).collect(),
            };
            streams.push(Listed { chosen, first: first.and_then(|(_, first)| first), segments });
        }
        faults.sort();
        faults.dedup();
        Ok((Listing { range, streams }, faults))
    }

    /// Tells it, and which documents cannot be read.
    pub fn tell(&self, args: &BinlogListArgs, faults: &[String], output: &Output) -> Finish {
        let settings = &self.range.settings;
        if output.is_json() {
            for stream in &self.streams {
                output.json(&stream.line());
                stream.segments.iter().for_each(|(stored, segment)| {
                    output.json(&BinlogSegmentLine::of(stored, segment.as_ref()));
                });
            }
        } else {
            let width = output.options.columns.filter(|_| !args.wide);
            let is_ranged = settings.understood().is_some() || settings.stream.is_some();
            let segments = (args.long || is_ranged).then_some(args.long);
            output.data(self.text(segments, width, output.options.stdout).as_bytes());
        }
        faults.iter().for_each(|fault| output.warn(fault));
        let summary = self.summary(faults.len() as u64);
        output.summary(&summary, BinlogListSummary::text);
        if summary.missing == 0 && summary.damaged == 0 { Finish::Done } else { Finish::Damaged }
    }

    fn summary(&self, damaged: u64) -> BinlogListSummary {
        let settings = &self.range.settings;
        let segments = || self.streams.iter().flat_map(|stream| &stream.segments);
        BinlogListSummary {
            url: settings.store.url.clone(),
            from: settings.from.as_ref().map(|from| from.moment),
            to: settings.to.as_ref().map(|to| to.moment),
            streams: self.streams.len() as u64,
            segments: segments().count() as u64,
            stored_bytes: segments().map(|(stored, _)| stored.bytes).sum(),
            missing: self.streams.iter().flat_map(Listed::missing).map(|(one, last)| u64::from(last - one) + 1).sum(),
            damaged,
        }
    }

    /// For people; segments where those are wanted, and with `Some(true)` all that their documents say.
    fn text(&self, segments: Option<bool>, width: Option<usize>, paint: Paint) -> String {
        let mut text = format!("binary logs in {}\n", paint.bold(&self.range.settings.store.url));
        if self.streams.is_empty() {
            return text + "\nnone is archived, or none of that range\n";
        }
        let table = Table { columns: STREAMS.to_vec(), rows: self.streams.iter().map(Listed::cells).collect() };
        let (body, mut left_out) = table.text(width, paint, |_, _, cell| cell.to_owned());
        text += &format!("\n{body}");
        for line in self.streams.iter().flat_map(Listed::remarks) {
            text += &format!("{line}\n");
        }
        if let Some(long) = segments {
            let columns = if long { SEGMENTS.to_vec() } else { SEGMENTS[..BY_KEY].to_vec() };
            let all = self.streams.iter().flat_map(|stream| &stream.segments);
            let rows = all.map(|(stored, segment)| segment_cells(stored, segment.as_ref())).collect();
            let (body, more) = Table { columns, rows }.text(width, paint, |_, _, cell| cell.to_owned());
            text += &format!("\n{body}");
            left_out += more;
        }
        if left_out > 0 {
            let columns = human::counted(left_out as u64, "column");
            text += &format!("{}\n", paint.dim(&format!("{columns} left out at this width; --wide shows all")));
        }
        text + "\n"
    }
}

/// Reads documents; those that are damaged become faults.
async fn documents(
    repository: &Repository,
    segments: Vec<StoredSegment>,
    faults: &mut Vec<String>,
) -> Result<Vec<(StoredSegment, Option<Segment>)>, Failure> {
    let reads = segments.into_iter().map(|stored| async move {
        let read = repository.read_segment(&stored.key).await;
        (stored, read)
    });
    let mut reads = futures::stream::iter(reads).buffered(DOCUMENTS_IN_FLIGHT);
    let mut documents = Vec::new();
    while let Some((stored, read)) = reads.next().await {
        match read {
            Ok(segment) => documents.push((stored, Some(segment))),
            Err(error) if is_damage(&error) => {
                faults.push(why(&stored, &error));
                documents.push((stored, None));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(documents)
}

fn why(stored: &StoredSegment, error: &RepositoryError) -> String {
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    format!("segment {} of stream {} cannot be read: {error}{cause}", stored.key.number, stored.key.stream)
}

const STREAMS: [Column; 6] = [
    Column { title: "STREAM", right: false, drop: 0 },
    Column { title: "SERVER", right: false, drop: 3 },
    Column { title: "SEGMENTS", right: true, drop: 0 },
    Column { title: "FROM (UTC)", right: false, drop: 0 },
    Column { title: "TO (UTC)", right: false, drop: 0 },
    Column { title: "STORED", right: true, drop: 2 },
];

/// Columns of which keys tell all.
const BY_KEY: usize = 6;
const SEGMENTS: [Column; 11] = [
    Column { title: "STREAM", right: false, drop: 6 },
    Column { title: "NUMBER", right: true, drop: 0 },
    Column { title: "FROM (UTC)", right: false, drop: 0 },
    Column { title: "TO (UTC)", right: false, drop: 0 },
    Column { title: "FIRST GTID", right: false, drop: 0 },
    Column { title: "STORED", right: true, drop: 3 },
    Column { title: "LAST GTID", right: false, drop: 4 },
    Column { title: "COUNT", right: true, drop: 5 },
    Column { title: "FILE", right: false, drop: 1 },
    Column { title: "POSITIONS", right: false, drop: 1 },
    Column { title: "LENGTH", right: true, drop: 2 },
];

fn second(moment: crate::model::Timestamp) -> String {
    moment.0.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn segment_cells(stored: &StoredSegment, segment: Option<&Segment>) -> Vec<String> {
    let key = &stored.key;
    let mut cells = vec![
        key.stream.to_string(),
        key.number.to_string(),
        second(key.first),
        second(key.last),
        key.gtid.to_string(),
        human::bytes(stored.bytes),
    ];
    if let Some(segment) = segment {
        cells.extend([
            segment.last_gtid.to_string(),
            human::count(segment.transactions),
            printable(&segment.file),
            format!("{}-{}", segment.start, segment.end),
            human::bytes(segment.raw_bytes),
        ]);
    }
    cells
}

impl Listed {
    fn line(&self) -> BinlogStreamLine<'_> {
        BinlogStreamLine::of(&self.chosen.stream, self.first.as_ref(), self.missing())
    }

    fn missing(&self) -> Vec<(u32, u32)> {
        missing(&self.chosen.stream)
    }

    fn cells(&self) -> Vec<String> {
        let stream = &self.chosen.stream;
        let moments = || stream.segments.iter();
        vec![
            stream.id.to_string(),
            self.first.as_ref().map(server).unwrap_or_default(),
            human::count(stream.segments.len() as u64),
            moments().map(|segment| segment.key.first).min().map(second).unwrap_or_default(),
            moments().map(|segment| segment.key.last).max().map(second).unwrap_or_default(),
            human::bytes(stream.segments.iter().map(|segment| segment.bytes).sum()),
        ]
    }

    /// What people should know of it.
    fn remarks(&self) -> Vec<String> {
        let id = &self.chosen.stream.id;
        let mut remarks = Vec::new();
        if let Some(first) = self.first.as_ref() {
            if first.number > 0 {
                remarks.push(format!("{id}: begins with segment {}; those before it are gone", first.number));
            }
            if let Some(link) = &first.continues {
                remarks.push(format!("{id}: goes on behind segment {} of {}", link.number, link.stream));
            }
            if let Some(gap) = &first.gap {
                let after = if gap.after.is_empty() { "nothing".to_owned() } else { gap.after.to_string() };
                remarks.push(format!("{id}: GAP before it, behind {after}: {}", printable(&gap.reason)));
            }
        }
        remarks.extend(self.missing().into_iter().map(|(one, last)| match last == one {
            true => format!("{id}: GAP in it: segment {one} is missing"),
            false => format!("{id}: GAP in it: segments {one} to {last} are missing"),
        }));
        remarks
    }
}
