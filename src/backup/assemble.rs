//! Takes results in the order of the stream, fills packs with fresh chunks, and drafts the new page map.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::base::Base;
use super::collect::{Origin, SpaceEnded, Step, StreamFacts};
use super::drafts::{Drafts, FileDraft, Length, SpaceDraft};
use super::mappack::MapPacks;
use super::merge::{merge_extents, tidy};
use super::slots::{Slot, SlotTable};
use super::work::{FileResult, FreshChunk, PageResult, piece_of};
use super::{BackupError, Stash, anew};
use crate::format::Namer;
use crate::format::map::{Extent, ExtentBlock, FilePiece, FileSource, Location, PackRef, SpaceRecord};
use crate::format::pack::{NewChunk, PackBuilder, PackKind, Placed};
use crate::mariadb::xbstream::FileNo;
use crate::model::{PageSize, SpaceId};

/// Pages of the server's size that each tablespace file is made with (MariaDB `fil0fil.h`, `FIL_IBD_FILE_INITIAL_SIZE`).
const INITIAL_PAGES: u32 = 4;

/// Least length of a tablespace file with pages of `physical` size on a server with pages of `server` size.
///
/// Of a compressed table, page 0 tells less: its four pages are smaller, but the file is made with four of the server's, and
/// InnoDB opens none that is shorter.
fn least_pages(physical: PageSize, server: PageSize) -> u32 {
    INITIAL_PAGES * (u32::from(server) / u32::from(physical)).max(1)
}

/// Time without a step after which the tool is taken to wait.
const IDLE: Duration = Duration::from_millis(20);

/// Least length of a data pack that is finished before it is full: a shorter one is uploaded soon enough at the end.
const EARLY_BYTES_MIN: usize = 2 << 20;

/// Fills data packs.
pub(super) struct Assembler {
    stash: Arc<dyn Stash>,
    namer: Namer,
    base: Option<Arc<Base>>,
    incremental: bool,
    /// Number of the system tablespace's files.
    system_parts: usize,
    /// The server's page size.
    page_size: PageSize,
    pack: PackBuilder,
    /// True once a table's definition has come: the tool copies them when it has read all pages.
    defined: bool,
    /// True once a data pack was finished before it was full.
    closed_early: bool,
    pub slots: SlotTable,
    pub maps: MapPacks,
    open_spaces: HashMap<FileNo, SpaceDraft>,
    open_files: HashMap<FileNo, FileDraft>,
    /// Places in `drafts.spaces` of those with blocks that wait for their packs to be finished.
    waiting: Vec<usize>,
    drafts: Drafts,
    pub uploaded_bytes: u64,
}

impl Assembler {
    pub(super) fn new(stash: Arc<dyn Stash>, namer: Namer, facts: &StreamFacts) -> Result<Assembler, BackupError> {
        Ok(Assembler {
            maps: MapPacks::new(stash.clone(), namer.clone())?,
            pack: stash.new_pack(PackKind::Data)?,
            stash,
            namer,
            base: facts.base.clone(),
            incremental: facts.incremental,
            system_parts: facts.system_files.len(),
            page_size: facts.page_size,
            defined: false,
            closed_early: false,
            slots: SlotTable::default(),
            open_spaces: HashMap::new(),
            open_files: HashMap::new(),
            waiting: Vec::new(),
            drafts: Drafts::default(),
            uploaded_bytes: 0,
        })
    }

    /// Works until the row of steps ends, then closes the last data pack.
    pub(super) fn run(&mut self, steps: &Receiver<Step>) -> Result<Drafts, BackupError> {
        while let Some(step) = self.next(steps)? {
            self.step(step)?;
        }
        self.close_pack()?;
        if let Some(draft) = self.open_spaces.values().next() {
            return Err(BackupError::Unfinished { path: draft.begun.name.clone() });
        }
        if let Some(draft) = self.open_files.values().next() {
            return Err(BackupError::Unfinished { path: draft.path.clone() });
        }
        Ok(std::mem::take(&mut self.drafts))
    }

    /// The next step; none at the end of the row.
    ///
    /// When all pages and definitions have come, the tool waits for the end of its copy of the redo log, a fifth of a second at least.
    /// A pack that is uploaded meanwhile is not waited for afterwards.
    fn next(&mut self, steps: &Receiver<Step>) -> Result<Option<Step>, BackupError> {
        let pages_came = self.defined && self.open_spaces.is_empty();
        if pages_came && !self.closed_early && self.pack.bytes() >= EARLY_BYTES_MIN {
            match steps.recv_timeout(IDLE) {
                Ok(step) => return Ok(Some(step)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    self.closed_early = true;
                    self.close_pack()?;
                }
            }
        }
        Ok(steps.recv().ok())
    }

    fn step(&mut self, step: Step) -> Result<(), BackupError> {
        match step {
            Step::BeginSpace(file, begun) => {
                self.open_spaces.insert(file, SpaceDraft::new(begun));
            }
            Step::Extent(file, result) => {
                let result = result.recv().map_err(|_| BackupError::Abandoned)??;
                self.extent(file, result)?;
            }
            Step::EndSpace(file, ended) => self.end_space(file, ended)?,
            Step::BeginFile(file, path) => {
                self.drafts.altered.began(&path);
                self.open_files.insert(file, FileDraft { path, ..FileDraft::default() });
            }
            Step::Blank(file, origin) => {
                if let Some(draft) = self.open_files.get_mut(&file) {
                    draft.blank = Some(origin);
                }
            }
            Step::Piece(file, offset, result) => {
                let result = result.recv().map_err(|_| BackupError::Abandoned)??;
                let piece = self.file_piece(result)?;
                if let Some(draft) = self.open_files.get_mut(&file) {
                    draft.pieces.push((offset, piece));
                }
            }
            Step::EndFile(file, bytes) => {
                if let Some(draft) = self.open_files.remove(&file) {
                    let draft = FileDraft { bytes, ..draft };
                    match draft.blank {
                        Some(origin) => self.drafts.blanks.push((origin, draft)),
                        None => drop(self.drafts.files.insert(draft.path.clone(), draft)),
                    }
                }
            }
            Step::Definition(path, head) => {
                self.defined |= path.ends_with(".frm");
                self.drafts.altered.defined(&path, &head);
            }
            Step::Rename(from, to) => {
                self.drafts.altered.renamed(&from, &to);
                if let Some(draft) = self.drafts.files.remove(&from) {
                    self.drafts.files.insert(to.clone(), FileDraft { path: to, ..draft });
                }
            }
            Step::Remove(path) => self.remove(&path),
            Step::Deleted(name) => self.drafts.deleted.push(name),
            Step::Renamed(from, to) => self.drafts.renamed.push((from, to)),
            Step::Meta(name, meta) => {
                self.drafts.metas.insert(name, meta);
            }
            Step::Control(name, bytes) => {
                self.drafts.controls.insert(name, bytes);
            }
            Step::Redo(facts) => self.drafts.redo = Some(*facts),
        }
        Ok(())
    }

    /// Removes a file, or with a `*` at the end all whose paths begin so: those of a table's partitions.
    fn remove(&mut self, path: &str) {
        let removed: Vec<String> = match path.strip_suffix('*') {
            None => self.drafts.files.remove(path).map(|_| path.to_owned()).into_iter().collect(),
            Some(prefix) => self
                .drafts
                .files
                .extract_if(prefix.to_owned().., |path, _| path.starts_with(prefix))
                .map(|(path, _)| path)
                .collect(),
        };
        for path in removed {
            self.drafts.altered.removed(&path);
        }
    }

    fn extent(&mut self, file: FileNo, result: PageResult) -> Result<(), BackupError> {
        let PageResult { extent, kept, fresh, newest, unverifiable, allocated } = result;
        let mut pieces = kept;
        if let Some((pages, chunk)) = fresh {
            let at = self.store(&chunk)?;
            pieces.push(piece_of(pages, &chunk, at));
        }
        self.drafts.unverifiable_pages += u64::from(unverifiable);
        let Some(mut draft) = self.open_spaces.remove(&file) else { return Ok(()) };
        if let Some((lsn, page)) = newest {
            draft.newest.note(lsn, page);
        }
        draft.allocated.extend(allocated);
        let index = ExtentBlock::index_of(extent);
        if draft.gathering().is_some_and(|gathering| gathering != index) {
            let merged = self.merged(&mut draft)?;
            // The file goes on beyond this block, so every extent of it is whole.
            draft.close_block(merged, Length::Beyond);
            draft.write_ready(&self.slots, &mut self.maps)?;
        }
        let extent = Extent { no: extent, pieces };
        if draft.begun.origin == Origin::Delta && self.parent_record(&draft).is_none() {
            draft.present.push((extent.no, extent.covered()));
        }
        draft.gather(index, extent);
        self.open_spaces.insert(file, draft);
        Ok(())
    }

    fn end_space(&mut self, file: FileNo, ended: SpaceEnded) -> Result<(), BackupError> {
        let Some(mut draft) = self.open_spaces.remove(&file) else { return Ok(()) };
        let parent_pages = self.parent_record(&draft).map(|record| record.pages);
        draft.pages = match (draft.begun.origin, draft.begun.key.space, self.system_parts) {
            (Origin::Whole | Origin::New, _, _) => Some(ended.pages),
            // The size in page 0 is that of all files together.
            (Origin::Delta, SpaceId(0), 2..) => None,
            (Origin::Delta, _, _) => {
                let size = ended.page0.as_ref().map(|page0| page0.size_pages).or(parent_pages).unwrap_or(0);
                let size = size.max(ended.page_max.map_or(0, |page| page.0 + 1));
                Some(size.max(least_pages(draft.begun.page_size, self.page_size)))
            }
        };
        let merged = self.merged(&mut draft)?;
        draft.close_block(merged, draft.pages.map_or(Length::Unknown, Length::Pages));
        draft.ended = Some(ended);
        draft.write_ready(&self.slots, &mut self.maps)?;
        if draft.waits() {
            self.waiting.push(self.drafts.spaces.len());
        }
        self.drafts.spaces.push(draft);
        Ok(())
    }

    /// The gathered extents laid over the parent's.
    fn merged(&self, draft: &mut SpaceDraft) -> Result<Vec<Extent<Slot>>, BackupError> {
        let Some((index, gathered)) = draft.take_gathered() else { return Ok(Vec::new()) };
        match (&self.base, self.parent_record(draft)) {
            (Some(base), Some(record)) => Ok(merge_extents(&base.block(record, index)?, gathered)),
            _ => Ok(gathered.into_iter().map(tidy).collect()),
        }
    }

    fn parent_record(&self, draft: &SpaceDraft) -> Option<&SpaceRecord> {
        let base = self.base.as_ref().filter(|_| self.incremental && draft.begun.origin == Origin::Delta)?;
        base.spaces.get(&draft.begun.key)
    }

    fn file_piece(&mut self, result: FileResult) -> Result<FilePiece<Slot>, BackupError> {
        match result {
            FileResult::Kept(piece) => Ok(piece),
            FileResult::Fresh(chunk) => {
                let at = self.store(&chunk)?;
                let source = FileSource::Chunk { id: chunk.id, raw_bytes: chunk.raw_bytes, skip: 0, at };
                Ok(FilePiece { bytes: chunk.raw_bytes, source })
            }
        }
    }

    /// Puts a chunk into the pack that is being filled.
    fn store(&mut self, chunk: &FreshChunk) -> Result<Location<Slot>, BackupError> {
        if self.pack.is_full() {
            self.close_pack()?;
        }
        let FreshChunk { id, raw_bytes, encoding, sums, stored } = chunk;
        let new = NewChunk { id: *id, raw_bytes: *raw_bytes, encoding: *encoding, sums, stored };
        let Placed { offset, stored_bytes } = self.pack.add(&new);
        let pack = Slot::New(self.slots.open());
        Ok(Location { pack, offset, stored_bytes, encoding: *encoding })
    }

    fn close_pack(&mut self) -> Result<(), BackupError> {
        if self.pack.is_empty() {
            return Ok(());
        }
        let filled = std::mem::replace(&mut self.pack, self.stash.new_pack(PackKind::Data)?);
        let finished = anew::finish(filled, PackKind::Data, &self.namer, &*self.stash)?;
        let pack = PackRef { id: finished.id, bytes: finished.bytes.len() as u32 };
        self.uploaded_bytes += u64::from(pack.bytes);
        self.slots.push(pack);
        self.stash.put_pack(finished)?;
        let mut still_waiting = Vec::new();
        for place in std::mem::take(&mut self.waiting) {
            let draft = &mut self.drafts.spaces[place];
            draft.write_ready(&self.slots, &mut self.maps)?;
            if draft.waits() {
                still_waiting.push(place);
            }
        }
        self.waiting = still_waiting;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_compressed_table_has_four_of_the_server_s_pages() {
        let size = |bytes: u32| PageSize::new(bytes).unwrap();
        for (physical, server, pages) in [(16384, 16384, 4), (8192, 16384, 8), (1024, 16384, 64), (65536, 65536, 4)] {
            assert_eq!(least_pages(size(physical), size(server)), pages, "{physical} on {server}");
        }
    }
}
