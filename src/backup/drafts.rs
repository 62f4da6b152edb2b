//! What the stream brought, on the way to records of the new map.

use std::collections::{BTreeMap, HashMap};

use super::BackupError;
use super::altered::Altered;
use super::base::Base;
use super::collect::{Origin, RedoFacts, SpaceBegun, SpaceEnded};
use super::mappack::MapPacks;
use super::merge::{fit, lay_out};
use super::slots::{Slot, SlotTable};
use super::timeline::Newest;
use crate::format::map::{
    BLOCK_EXTENTS, BLOCK_FILE_PIECES, Content, Extent, ExtentBlock, ExtentBlockRef, FileBlock, FileBlockRef, FileMap,
    FilePiece, INLINE_EXTENTS_MAX, INLINE_FILE_PIECES_MAX, SpaceKey, SpaceMap, SpaceRecord,
};
use crate::mariadb::delta::DeltaMeta;
use crate::mariadb::page_set::PageSet;
use crate::model::{EXTENT_PAGES, ExtentNo, PageMask, PageNo};

/// Pages of a whole extent block.
const BLOCK_PAGES: u32 = BLOCK_EXTENTS * EXTENT_PAGES;

/// Everything that the stream brought.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    pub spaces: Vec<SpaceDraft>,
    pub files: BTreeMap<String, FileDraft>,
    /// Files of tablespaces without a first page. What the tool removes and renames by the server's log of DDL are other
    /// engines' files, also where it says `t#P#*`.
    pub blanks: Vec<(Origin, FileDraft)>,
    /// Tablespaces that are gone, by the path of their file.
    pub deleted: Vec<String>,
    /// Tablespaces that got another name: old and new path.
    pub renamed: Vec<(String, String)>,
    /// Tables of other engines than InnoDB.
    pub altered: Altered,
    pub metas: HashMap<String, DeltaMeta>,
    pub controls: HashMap<String, Vec<u8>>,
    pub redo: Option<RedoFacts>,
    pub unverifiable_pages: u64,
}

/// A plain file of the stream.
#[derive(Debug, Default)]
pub(super) struct FileDraft {
    pub path: String,
    /// How it came, if it is the file of a tablespace without a first page.
    pub blank: Option<Origin>,
    pub bytes: u64,
    /// Stretches in the order in which they came; a later one covers an earlier one.
    pub pieces: Vec<(u64, FilePiece<Slot>)>,
}

impl FileDraft {
    /// The file's map, once every pack is finished.
    pub(super) fn map(&self, slots: &SlotTable, maps: &mut MapPacks) -> Result<FileMap, BackupError> {
        let pieces = slots.file_pieces(&lay_out(self.bytes, &self.pieces));
        if pieces.len() <= INLINE_FILE_PIECES_MAX {
            return Ok(FileMap::Inline(pieces));
        }
        let (mut blocks, mut offset) = (Vec::new(), 0);
        for pieces in pieces.chunks(BLOCK_FILE_PIECES) {
            maps.make_room()?;
            let block = maps.add(FileBlock { pieces: pieces.to_vec() }.encode())?;
            let stored_bytes = pieces.iter().map(FilePiece::stored_bytes).sum();
            blocks.push(FileBlockRef { offset, stored_bytes, block });
            offset += pieces.iter().map(|piece| u64::from(piece.bytes)).sum::<u64>();
        }
        Ok(FileMap::Blocks(blocks))
    }
}

/// An extent block of the new map.
#[derive(Debug)]
enum BlockDraft {
    /// Some of its packs may still be filled.
    Open(Vec<Extent<Slot>>),
    /// In a map pack.
    Stored(ExtentBlockRef),
}

/// How far a file reaches when one of its blocks is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// Beyond the block.
    Beyond,
    /// So many pages.
    Pages(u32),
    /// That is told by another file.
    Unknown,
}

/// An InnoDB file of the stream.
#[derive(Debug)]
pub(super) struct SpaceDraft {
    pub begun: SpaceBegun,
    pub ended: Option<SpaceEnded>,
    /// Length of the file, once it is known.
    pub pages: Option<u32>,
    /// Its newest pages.
    pub newest: Newest,
    /// Pages in the stream by extent, of a tablespace that the parent does not have: 16 bytes for each MiB.
    pub present: Vec<(ExtentNo, PageMask)>,
    /// Pages that its descriptor pages call allocated, of such a tablespace.
    pub allocated: Vec<(ExtentNo, PageMask)>,
    gathered: Option<(u32, Vec<Extent<Slot>>)>,
    /// The last block cannot be written before the length of the file is known.
    held: bool,
    blocks: BTreeMap<u32, BlockDraft>,
}

impl SpaceDraft {
    pub(super) fn new(begun: SpaceBegun) -> SpaceDraft {
        SpaceDraft {
            begun,
            ended: None,
            pages: None,
            newest: Newest::default(),
            present: Vec::new(),
            allocated: Vec::new(),
            gathered: None,
            held: false,
            blocks: BTreeMap::new(),
        }
    }

    /// The block whose extents are being gathered.
    pub(super) fn gathering(&self) -> Option<u32> {
        self.gathered.as_ref().map(|(index, _)| *index)
    }

    pub(super) fn gather(&mut self, index: u32, extent: Extent<Slot>) {
        self.gathered.get_or_insert_with(|| (index, Vec::new())).1.push(extent);
    }

    pub(super) fn take_gathered(&mut self) -> Option<(u32, Vec<Extent<Slot>>)> {
        self.gathered.take()
    }

    /// Puts aside a block of a file of this length.
    pub(super) fn close_block(&mut self, extents: Vec<Extent<Slot>>, length: Length) {
        let Some(first) = extents.first() else { return };
        let index = ExtentBlock::index_of(first.no);
        let fitted = match length {
            Length::Beyond => fit_block(index, &extents, u32::MAX),
            Length::Pages(pages) => fit_block(index, &extents, pages),
            Length::Unknown => {
                self.held = true;
                extents
            }
        };
        self.blocks.insert(index, BlockDraft::Open(fitted));
    }

    /// True while a block waits for its packs that will not go into the record itself.
    pub(super) fn waits(&self) -> bool {
        !self.held && !self.may_be_inline() && self.blocks.values().any(|block| matches!(block, BlockDraft::Open(_)))
    }

    fn may_be_inline(&self) -> bool {
        match self.blocks.first_key_value() {
            None => true,
            Some((0, BlockDraft::Open(extents))) => self.blocks.len() == 1 && extents.len() <= INLINE_EXTENTS_MAX,
            Some(_) => false,
        }
    }

    /// Writes those blocks whose packs are finished.
    pub(super) fn write_ready(&mut self, slots: &SlotTable, maps: &mut MapPacks) -> Result<(), BackupError> {
        if self.held || self.may_be_inline() {
            return Ok(());
        }
        let key = self.begun.key;
        for (index, block) in &mut self.blocks {
            if let BlockDraft::Open(extents) = block
                && extents.iter().all(|extent| is_finished(extent, slots))
            {
                *block = BlockDraft::Stored(store_block(key, *index, slots.extents(extents), maps)?);
            }
        }
        Ok(())
    }

    /// Pages in use that were neither in the stream nor are made void by the redo log: they are older than the parent, as
    /// in a table that was imported, or built for long before it got its name.
    ///
    /// A freed page can be called used on disk: the server never writes it, and its descriptor page later.
    pub(super) fn pages_missing(&self, voided: Option<&PageSet>) -> u64 {
        let Some(page0) = self.ended.as_ref().and_then(|ended| ended.page0) else { return 0 };
        let end = page0.free_limit.0.min(page0.size_pages);
        let known = |extent: ExtentNo| {
            let place = self.present.binary_search_by_key(&extent, |(extent, _)| *extent).ok();
            let present = place.map_or(PageMask::EMPTY, |place| self.present[place].1);
            present.union(voided.map_or(PageMask::EMPTY, |pages| pages.of(self.begun.key.space, extent)))
        };
        let mut missing = 0;
        for (extent, allocated) in &self.allocated {
            let used = allocated.intersection(PageMask::first(end.saturating_sub(extent.first_page().0)));
            missing += u64::from(used.without(known(*extent)).len());
        }
        // A descriptor page that did not come would have told of as many pages as a page has bytes.
        let described = u32::from(self.begun.page_size);
        for page in (0..end).step_by(described as usize).map(PageNo) {
            missing += u64::from(!known(page.extent()).contains(page.index()));
        }
        missing
    }

    /// The map of the file, which has `pages` pages, once every pack is finished.
    pub(super) fn map(
        mut self,
        pages: u32,
        parent: Option<(&Base, &SpaceRecord)>,
        slots: &SlotTable,
        maps: &mut MapPacks,
    ) -> Result<SpaceMap, BackupError> {
        if let Some((_, record)) = parent
            && self.blocks.is_empty()
            && record.pages == pages
        {
            return Ok(record.map.clone());
        }
        let key = self.begun.key;
        let extents = pages.div_ceil(EXTENT_PAGES);
        let mut blocks = Vec::new();
        for index in 0..extents.div_ceil(BLOCK_EXTENTS) {
            let fitted = match self.blocks.remove(&index) {
                Some(BlockDraft::Stored(block)) => {
                    blocks.push(block);
                    continue;
                }
                Some(BlockDraft::Open(extents)) => fit_block(index, &extents, pages),
                None => {
                    if let Some(block) = unchanged(parent, index, pages) {
                        blocks.push(block);
                        continue;
                    }
                    let older = match parent {
                        Some((base, record)) => base.block(record, index)?,
                        None => Default::default(),
                    };
                    let older: Vec<_> = older.iter().map(|extent| extent.map(Slot::Old)).collect();
                    fit_block(index, &older, pages)
                }
            };
            let resolved = slots.extents(&fitted);
            if extents as usize <= INLINE_EXTENTS_MAX {
                return Ok(SpaceMap::Inline(resolved));
            }
            blocks.push(store_block(key, index, resolved, maps)?);
        }
        Ok(if blocks.is_empty() { SpaceMap::Inline(Vec::new()) } else { SpaceMap::Blocks(blocks) })
    }
}

/// The parent's block `index`, if it holds just what a file of `pages` pages has there.
fn unchanged(parent: Option<(&Base, &SpaceRecord)>, index: u32, pages: u32) -> Option<ExtentBlockRef> {
    let (_, record) = parent?;
    let end = (index + 1).saturating_mul(BLOCK_PAGES);
    if record.pages.min(end) != pages.min(end) {
        return None;
    }
    match &record.map {
        SpaceMap::Blocks(blocks) => blocks.iter().find(|block| block.index == index).copied(),
        SpaceMap::Inline(_) => None,
    }
}

/// Every extent that a file of `pages` pages has in block `index`, each with all its pages.
fn fit_block(index: u32, extents: &[Extent<Slot>], pages: u32) -> Vec<Extent<Slot>> {
    let first = index * BLOCK_EXTENTS;
    let end = pages.div_ceil(EXTENT_PAGES).min(first + BLOCK_EXTENTS);
    let mut known = extents.iter().peekable();
    let none = |no| Extent { no, pieces: Vec::new() };
    (first..end)
        .map(|number| {
            let no = ExtentNo(number);
            let mask = PageMask::first(pages.saturating_sub(no.first_page().0));
            match known.next_if(|extent| extent.no == no) {
                Some(extent) => fit(extent, mask),
                None => fit(&none(no), mask),
            }
        })
        .collect()
}

fn store_block(
    key: SpaceKey,
    index: u32,
    extents: Vec<Extent>,
    maps: &mut MapPacks,
) -> Result<ExtentBlockRef, BackupError> {
    let stored_bytes = extents.iter().flat_map(|extent| &extent.pieces).map(|piece| piece.stored_bytes()).sum();
    maps.make_room()?;
    let block = maps.add(ExtentBlock { key, index, extents }.encode())?;
    Ok(ExtentBlockRef { index, stored_bytes, block })
}

fn is_finished(extent: &Extent<Slot>, slots: &SlotTable) -> bool {
    extent.pieces.iter().all(|piece| match &piece.content {
        Content::Chunk(chunk) => !matches!(chunk.at.pack, Slot::New(number) if number >= slots.open()),
        Content::Zero => true,
    })
}
