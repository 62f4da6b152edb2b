//! Lays newer pieces over older ones.

use super::slots::{Slot, old};
use crate::format::map::{Content, Extent, FilePiece, FileSource, Piece};
use crate::model::{ExtentNo, PageMask};

/// The parent's extents of a block with those of the stream laid over them; both ascend.
pub(super) fn merge_extents(parent: &[Extent], fresh: Vec<Extent<Slot>>) -> Vec<Extent<Slot>> {
    let mut merged = Vec::with_capacity(parent.len() + fresh.len());
    let mut parents = parent.iter().peekable();
    for extent in fresh {
        while let Some(older) = parents.next_if(|older| older.no < extent.no) {
            merged.push(older.map(Slot::Old));
        }
        match parents.next_if(|older| older.no == extent.no) {
            Some(older) => merged.push(overlay(extent.no, &older.pieces, extent.pieces)),
            None => merged.push(tidy(extent)),
        }
    }
    merged.extend(parents.map(|older| older.map(Slot::Old)));
    merged
}

fn overlay(no: ExtentNo, parent: &[Piece], mut pieces: Vec<Piece<Slot>>) -> Extent<Slot> {
    let newer = pieces.iter().fold(PageMask::EMPTY, |newer, piece| newer.union(piece.mask));
    let left = parent.iter().map(|piece| Piece { mask: piece.mask.without(newer), ..*piece });
    pieces.extend(left.filter(|piece| !piece.mask.is_empty()).map(|piece| old(&piece)));
    tidy(Extent { no, pieces })
}

/// Joins pieces that come from the same chunk and puts them in order.
pub(super) fn tidy(extent: Extent<Slot>) -> Extent<Slot> {
    let mut pieces: Vec<Piece<Slot>> = Vec::with_capacity(extent.pieces.len());
    for piece in extent.pieces {
        match pieces.iter_mut().find(|known| known.content == piece.content) {
            Some(known) => known.mask = known.mask.union(piece.mask),
            None => pieces.push(piece),
        }
    }
    pieces.sort_by_key(|piece| piece.mask.0.trailing_zeros());
    Extent { no: extent.no, pieces }
}

/// Cuts an extent to the pages of `mask`, and says that pages of `mask` which no piece has are zero.
pub(super) fn fit(extent: &Extent<Slot>, mask: PageMask) -> Extent<Slot> {
    let cut = extent.pieces.iter().map(|piece| Piece { mask: piece.mask.intersection(mask), ..*piece });
    let mut pieces: Vec<_> = cut.filter(|piece| !piece.mask.is_empty()).collect();
    let covered = pieces.iter().fold(PageMask::EMPTY, |covered, piece| covered.union(piece.mask));
    if covered != mask {
        pieces.push(Piece { mask: mask.without(covered), content: Content::Zero });
    }
    tidy(Extent { no: extent.no, pieces })
}

/// Pieces of a plain file, in the order of the file, from stretches of which a later one covers an earlier one; what no
/// stretch covers is zero.
pub(super) fn lay_out(bytes: u64, stretches: &[(u64, FilePiece<Slot>)]) -> Vec<FilePiece<Slot>> {
    let mut laid: Vec<(u64, FilePiece<Slot>)> = Vec::with_capacity(stretches.len());
    for (offset, piece) in stretches {
        let (start, end) = (*offset, offset + u64::from(piece.bytes));
        if laid.last().is_none_or(|(at, last)| at + u64::from(last.bytes) <= start) {
            laid.push((start, *piece));
            continue;
        }
        let mut kept = Vec::with_capacity(laid.len() + 2);
        for (at, earlier) in laid {
            let earlier_end = at + u64::from(earlier.bytes);
            if at < start {
                kept.push((at, part(&earlier, 0, earlier_end.min(start) - at)));
            }
            if earlier_end > end {
                let from = at.max(end);
                kept.push((from, part(&earlier, from - at, earlier_end - from)));
            }
        }
        kept.push((start, *piece));
        kept.sort_by_key(|(at, _)| *at);
        laid = kept;
    }
    let (mut pieces, mut end) = (Vec::with_capacity(laid.len()), 0);
    for (at, piece) in laid {
        zeros(&mut pieces, at - end);
        end = at + u64::from(piece.bytes);
        pieces.push(piece);
    }
    zeros(&mut pieces, bytes.saturating_sub(end));
    pieces
}

fn zeros(pieces: &mut Vec<FilePiece<Slot>>, mut bytes: u64) {
    while bytes > 0 {
        let stretch = u32::try_from(bytes).unwrap_or(u32::MAX);
        pieces.push(FilePiece { bytes: stretch, source: FileSource::Zero });
        bytes -= u64::from(stretch);
    }
}

/// `bytes` bytes of a stretch, from `from` on; both lie inside it.
fn part(piece: &FilePiece<Slot>, from: u64, bytes: u64) -> FilePiece<Slot> {
    let (from, bytes) = (from as u32, bytes as u32);
    let source = match piece.source {
        FileSource::Zero => FileSource::Zero,
        FileSource::Chunk { id, raw_bytes, skip, at } => FileSource::Chunk { id, raw_bytes, skip: skip + from, at },
    };
    FilePiece { bytes, source }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::Encoding;
    use crate::format::map::{Location, PageChunk};
    use crate::model::ChunkId;

    fn chunk_at(number: u32) -> Location<Slot> {
        Location { pack: Slot::New(number), offset: 0, stored_bytes: 1, encoding: Encoding::Raw }
    }

    fn page_piece(number: u8, mask: u64) -> Piece<Slot> {
        let at = chunk_at(u32::from(number));
        Piece {
            mask: PageMask(mask),
            content: Content::Chunk(PageChunk { id: ChunkId([number; 32]), pages: PageMask(u64::MAX), at }),
        }
    }

    proptest! {
        #[test]
        fn a_later_stretch_covers_an_earlier_one(stretches in prop::collection::vec((0u64..50, 1u32..30), 0..8)) {
            let mut expected = vec![None; 90];
            let mut laid = Vec::new();
            for (number, (offset, bytes)) in stretches.iter().enumerate() {
                let source = FileSource::Chunk {
                    id: ChunkId([number as u8; 32]), raw_bytes: *bytes, skip: 0, at: chunk_at(number as u32),
                };
                laid.push((*offset, FilePiece { bytes: *bytes, source }));
                for byte in 0..*bytes {
                    expected[*offset as usize + byte as usize] = Some((number as u8, byte));
                }
            }
            let mut found = Vec::new();
            for piece in lay_out(90, &laid) {
                for byte in 0..piece.bytes {
                    found.push(match piece.source {
                        FileSource::Zero => None,
                        FileSource::Chunk { id, skip, .. } => Some((id.0[0], skip + byte)),
                    });
                }
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_fitted_extent_covers_its_pages_once(cut: u64, mask: u64) {
            let pieces = vec![page_piece(1, cut), page_piece(2, !cut & 0xffff_0000)];
            let pieces = pieces.into_iter().filter(|piece| !piece.mask.is_empty()).collect();
            let fitted = fit(&Extent { no: ExtentNo(0), pieces }, PageMask(mask));
            prop_assert_eq!(fitted.covered(), PageMask(mask));
            prop_assert_eq!(fitted.pieces.iter().map(|piece| piece.mask.len()).sum::<u32>(), mask.count_ones());
        }
    }

    #[test]
    fn pieces_of_one_chunk_become_one() {
        let extent = Extent { no: ExtentNo(0), pieces: vec![page_piece(1, 8), page_piece(2, 1), page_piece(1, 2)] };
        let masks: Vec<_> = tidy(extent).pieces.iter().map(|piece| piece.mask.0).collect();
        assert_eq!(masks, [1, 10]);
    }
}
