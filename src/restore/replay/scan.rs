//! The transactions of a segment, one by one.

use super::TargetError;
use crate::format::Segment;
use crate::mariadb::binlog::{BinlogError, EventParser, MAGIC, Step, Transaction, Transactions, kinds};
use crate::repository::{ObjectKey, Repository, SegmentReader};
use crate::restore::RestoreError;

/// A transaction, and where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scanned {
    pub transaction: Transaction,
    /// The byte behind it in the server's file.
    pub end: u64,
}

/// Reads a segment and tells its transactions.
///
/// # Errors
/// When it cannot be read, is no binary log, or is another than its document says.
pub(super) async fn scan(repository: &Repository, segment: &Segment) -> Result<Vec<Scanned>, RestoreError> {
    let what = ObjectKey::Segment(segment.key()).text();
    let mut reader = SegmentReader::new(repository, segment);
    let (mut parser, mut transactions) = (EventParser::new(what.clone(), 0), Transactions::default());
    let (mut scanned, mut skip) = (Vec::new(), MAGIC.len());
    let mut place = segment.start;
    while let Some(bytes) = reader.next().await? {
        let magic = skip.min(bytes.len());
        skip -= magic;
        let mut rest = &bytes[magic..];
        while let Some(event) = parser.next(&mut rest).map_err(TargetError::from)? {
            // The description of the format stands before all that is the segment's own.
            if !event.is_artificial() && event.kind != kinds::FORMAT_DESCRIPTION {
                place =
                    if event.next == 0 { place + u64::from(event.bytes) } else { position_behind(place, event.next) };
            }
            if let Step::End(transaction) = transactions.step(&event, &what, parser.at()).map_err(TargetError::from)? {
                scanned.push(Scanned { transaction, end: place });
            }
        }
    }
    let (first, last) = (scanned.first(), scanned.last());
    let told = (Some(segment.first_gtid), Some(segment.last_gtid), segment.transactions);
    let found =
        (first.map(|first| first.transaction.gtid), last.map(|last| last.transaction.gtid), scanned.len() as u64);
    if told == found {
        return Ok(scanned);
    }
    let problem = format!("it has {} transactions, and its document says {}", scanned.len(), segment.transactions);
    Err(TargetError::from(BinlogError::Damaged { what, at: 0, problem }).into())
}

/// The position whose lowest 32 bits an event says, behind one that is before it by less than 4 GiB.
fn position_behind(before: u64, low: u32) -> u64 {
    let position = (before & !u64::from(u32::MAX)) | u64::from(low);
    if position < before { position + (1 << 32) } else { position }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_go_on_behind_four_gib() {
        assert_eq!(position_behind(4, 256), 256);
        assert_eq!(position_behind(u64::from(u32::MAX) - 5, 7), (1 << 32) + 7);
        assert_eq!(position_behind((1 << 32) + 7, 90), (1 << 32) + 90);
    }
}
