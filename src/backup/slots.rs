//! How pieces name packs while those are being filled.

use crate::format::map::{Extent, FilePiece, PackRef, Piece};

/// A pack that a piece of the new backup lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// A pack of an earlier backup.
    Old(PackRef),
    /// A data pack of this run, by its number.
    New(u32),
}

/// Names of the data packs that this run has finished, by their number.
#[derive(Debug, Default)]
pub(super) struct SlotTable(Vec<PackRef>);

impl SlotTable {
    /// Notes the name of the next pack.
    pub(super) fn push(&mut self, pack: PackRef) {
        self.0.push(pack);
    }

    /// Number of the pack that is being filled.
    pub(super) fn open(&self) -> u32 {
        self.0.len() as u32
    }

    fn resolve(&self, slot: Slot) -> PackRef {
        match slot {
            Slot::Old(pack) => pack,
            // The assembler resolves nothing before the pack it lies in is finished.
            Slot::New(number) => self.0[number as usize],
        }
    }

    /// The extents with their packs' names.
    pub(super) fn extents(&self, extents: &[Extent<Slot>]) -> Vec<Extent> {
        extents.iter().map(|extent| extent.map(|slot| self.resolve(slot))).collect()
    }

    /// The pieces with their packs' names.
    pub(super) fn file_pieces(&self, pieces: &[FilePiece<Slot>]) -> Vec<FilePiece> {
        pieces.iter().map(|piece| piece.map(|slot| self.resolve(slot))).collect()
    }
}

/// A piece of an earlier backup as one of this run.
pub(super) fn old(piece: &Piece) -> Piece<Slot> {
    piece.map(Slot::Old)
}
