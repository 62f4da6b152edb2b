//! Reads page maps, a block at a time.

use futures::{StreamExt, TryStreamExt};

use super::{Repository, RepositoryError};
use crate::format::map::{
    BlockRef, Extent, ExtentBlock, ExtentBlockRef, FileBlock, FileBlockRef, FileDirectory, FilePiece, FileRecord,
    MapRoot, SpaceDirectory, SpaceKey, SpaceRecord,
};
use crate::format::{FormatError, Manifest};

/// Map blocks read at the same time: enough to hide a store's latency, few enough to hold in memory.
const BLOCKS_IN_FLIGHT: usize = 16;

impl Repository {
    /// The root of the page map of a backup.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or is not the map that the manifest speaks of.
    pub async fn map_root(&self, manifest: &Manifest) -> Result<MapRoot, RepositoryError> {
        let block = BlockRef::try_from(&manifest.map)?;
        let root = MapRoot::decode(&self.read_block(&block).await?, block.at.pack).map_err(damaged(&block))?;
        if root.totals == manifest.totals() {
            return Ok(root);
        }
        let problem = format!("its map holds {:?}, the manifest says {:?}", root.totals, manifest.totals());
        Err(FormatError::Document { what: format!("backup {}", manifest.id), problem }.into())
    }

    /// All InnoDB files of a map, by key.
    ///
    /// # Errors
    /// When a directory cannot be read or is damaged.
    pub async fn map_spaces(&self, root: &MapRoot) -> Result<Vec<SpaceRecord>, RepositoryError> {
        let reads = root.spaces.iter().map(|(_, block)| async move {
            let bytes = self.read_block(block).await?;
            let directory = SpaceDirectory::decode(&bytes, block.at.pack).map_err(damaged(block))?;
            Ok::<_, RepositoryError>(directory.records)
        });
        let directories: Vec<_> = futures::stream::iter(reads).buffered(BLOCKS_IN_FLIGHT).try_collect().await?;
        Ok(directories.into_iter().flatten().collect())
    }

    /// All other files of a map, by path.
    ///
    /// # Errors
    /// When a directory cannot be read or is damaged.
    pub async fn map_files(&self, root: &MapRoot) -> Result<Vec<FileRecord>, RepositoryError> {
        let reads = root.files.iter().map(|(_, block)| async move {
            let bytes = self.read_block(block).await?;
            let directory = FileDirectory::decode(&bytes, block.at.pack).map_err(damaged(block))?;
            Ok::<_, RepositoryError>(directory.records)
        });
        let directories: Vec<_> = futures::stream::iter(reads).buffered(BLOCKS_IN_FLIGHT).try_collect().await?;
        Ok(directories.into_iter().flatten().collect())
    }

    /// The extents of one extent block of file `key`.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or belongs elsewhere.
    pub async fn map_extents(&self, key: SpaceKey, at: &ExtentBlockRef) -> Result<Vec<Extent>, RepositoryError> {
        let bytes = self.read_block(&at.block).await?;
        let block = ExtentBlock::decode(&bytes, at.block.at.pack).map_err(damaged(&at.block))?;
        if block.key == key && block.index == at.index {
            return Ok(block.extents);
        }
        let problem = format!("extent block {:?}/{} stands for {key:?}/{}", block.key, block.index, at.index);
        Err(damaged(&at.block)(FormatError::Document { what: "page map".to_owned(), problem }))
    }

    /// The pieces of one file block.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub async fn map_file_pieces(&self, at: &FileBlockRef) -> Result<Vec<FilePiece>, RepositoryError> {
        let bytes = self.read_block(&at.block).await?;
        Ok(FileBlock::decode(&bytes, at.block.at.pack).map_err(damaged(&at.block))?.pieces)
    }
}

fn damaged(block: &BlockRef) -> impl Fn(FormatError) -> RepositoryError {
    let pack = block.at.pack.id;
    move |source| RepositoryError::Pack { pack, source }
}
