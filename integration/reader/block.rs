//! Map blocks, as FORMAT.md lays them out.

/// A failure, for the person who reads the test's output.
pub type Fault = String;

/// A pack that a block speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    pub name: String,
    pub bytes: u32,
}

/// Where stored bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub pack: Pack,
    pub offset: u32,
    pub stored_bytes: u32,
    pub zstd: bool,
}

/// A reference to a map block.
#[derive(Debug, Clone)]
pub struct BlockAt {
    pub name: String,
    pub raw_bytes: u32,
    pub place: Place,
}

/// A chunk of pages.
#[derive(Debug)]
pub struct PageChunk {
    pub name: String,
    pub pages: u64,
    pub place: Place,
}

#[derive(Debug)]
pub struct PagePiece {
    pub mask: u64,
    pub chunk: Option<PageChunk>,
}

#[derive(Debug)]
pub struct Extent {
    pub number: u32,
    pub pieces: Vec<PagePiece>,
}

#[derive(Debug)]
pub struct ExtentBlockAt {
    pub index: u32,
    pub stored_bytes: u64,
    pub block: BlockAt,
}

#[derive(Debug)]
pub enum SpaceMap {
    Inline(Vec<Extent>),
    Blocks(Vec<ExtentBlockAt>),
}

#[derive(Debug)]
pub struct Space {
    pub space: u32,
    pub part: u32,
    pub name: String,
    pub page_size: u32,
    pub pages: u32,
    pub mode: Option<u32>,
    pub map: SpaceMap,
}

/// A chunk of a plain file.
#[derive(Debug)]
pub struct FileChunk {
    pub name: String,
    pub raw_bytes: u32,
    pub skip: u32,
    pub place: Place,
}

#[derive(Debug)]
pub struct FilePiece {
    pub bytes: u32,
    pub chunk: Option<FileChunk>,
}

#[derive(Debug)]
pub struct FileBlockAt {
    pub offset: u64,
    pub stored_bytes: u64,
    pub block: BlockAt,
}

#[derive(Debug)]
pub enum FileMap {
    Inline(Vec<FilePiece>),
    Blocks(Vec<FileBlockAt>),
}

#[derive(Debug)]
pub struct PlainFile {
    pub path: String,
    pub bytes: u64,
    pub mode: Option<u32>,
    pub map: FileMap,
}

/// The root: spaces, files, logical bytes, stored bytes; then the directories.
#[derive(Debug)]
pub struct Root {
    pub totals: [u64; 4],
    pub spaces: Vec<(u32, u32, BlockAt)>,
    pub files: Vec<(String, BlockAt)>,
}

/// Goes through a block.
pub struct Cursor<'a> {
    bytes: &'a [u8],
    packs: Vec<Pack>,
    /// Whether the pack table named the block's own pack, and another.
    pub names_home: bool,
    pub names_others: bool,
}

impl<'a> Cursor<'a> {
    /// Reads kind and pack table of a block of `kind` that lies in pack `home`.
    pub fn new(bytes: &'a [u8], kind: u8, home: &Pack) -> Result<Cursor<'a>, Fault> {
        let mut cursor = Cursor { bytes, packs: Vec::new(), names_home: false, names_others: false };
        let found = cursor.u8()?;
        if found != kind {
            return Err(format!("block of kind {found}, expected {kind}"));
        }
        for _ in 0..cursor.varint()? {
            let (name, bytes) = (cursor.name()?, cursor.u32()?);
            if bytes == 0 && name == "0".repeat(64) {
                cursor.names_home = true;
                cursor.packs.push(home.clone());
            } else {
                cursor.names_others = true;
                cursor.packs.push(Pack { name, bytes });
            }
        }
        Ok(cursor)
    }

    pub fn end(&self) -> Result<(), Fault> {
        if self.bytes.is_empty() { Ok(()) } else { Err(format!("{} bytes left over", self.bytes.len())) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or("block ends early")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().unwrap()))
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().unwrap()))
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0u128;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            value |= u128::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u64::try_from(value).map_err(|_| "integer of more than 64 bits".to_owned());
            }
        }
        Err("integer of more than ten bytes".to_owned())
    }

    fn varint32(&mut self) -> Result<u32, Fault> {
        u32::try_from(self.varint()?).map_err(|_| "integer of more than 32 bits".to_owned())
    }

    fn text(&mut self) -> Result<String, Fault> {
        let length = self.varint32()? as usize;
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "text is not UTF-8".to_owned())
    }

    fn name(&mut self) -> Result<String, Fault> {
        Ok(hex::encode(self.take(32)?))
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<Option<T>, Fault> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            other => Err(format!("presence byte {other}")),
        }
    }

    fn many<T>(&mut self, read: impl Fn(&mut Self) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        (0..self.varint()?).map(|_| read(self)).collect()
    }

    fn place(&mut self, zstd: bool) -> Result<Place, Fault> {
        let pack = self.varint()? as usize;
        let pack = self.packs.get(pack).ok_or("no such pack in the table")?.clone();
        Ok(Place { pack, offset: self.varint32()?, stored_bytes: self.varint32()?, zstd })
    }

    fn block(&mut self) -> Result<BlockAt, Fault> {
        let (name, raw_bytes) = (self.name()?, self.varint32()?);
        let zstd = match self.u8()? {
            0 => false,
            1 => true,
            other => return Err(format!("encoding {other}")),
        };
        Ok(BlockAt { name, raw_bytes, place: self.place(zstd)? })
    }

    pub fn root(&mut self) -> Result<Root, Fault> {
        let totals = [self.varint()?, self.varint()?, self.varint()?, self.varint()?];
        let spaces = self.many(|at| Ok((at.varint32()?, at.varint32()?, at.block()?)))?;
        let files = self.many(|at| Ok((at.text()?, at.block()?)))?;
        Ok(Root { totals, spaces, files })
    }

    pub fn spaces(&mut self) -> Result<Vec<Space>, Fault> {
        self.many(Cursor::space)
    }

    fn space(&mut self) -> Result<Space, Fault> {
        let (space, part, name) = (self.varint32()?, self.varint32()?, self.text()?);
        let (page_size, _flags, _encrypted) = (self.u32()?, self.u32()?, self.u8()?);
        let pages = self.varint32()?;
        self.option(|at| {
            at.u64()?;
            at.option(Cursor::u64)
        })?;
        let _suspect = self.u8()?;
        let mode = self.option(Cursor::u32)?;
        let map = match self.u8()? {
            0 => SpaceMap::Inline(self.extents()?),
            1 => SpaceMap::Blocks(self.many(|at| {
                Ok(ExtentBlockAt { index: at.varint32()?, stored_bytes: at.varint()?, block: at.block()? })
            })?),
            other => return Err(format!("map form {other}")),
        };
        Ok(Space { space, part, name, page_size, pages, mode, map })
    }

    /// The body of an extent block: space, part, index, extents.
    pub fn extent_block(&mut self) -> Result<(u32, u32, u32, Vec<Extent>), Fault> {
        Ok((self.varint32()?, self.varint32()?, self.varint32()?, self.extents()?))
    }

    fn extents(&mut self) -> Result<Vec<Extent>, Fault> {
        self.many(|at| Ok(Extent { number: at.varint32()?, pieces: at.many(Cursor::page_piece)? }))
    }

    fn page_piece(&mut self) -> Result<PagePiece, Fault> {
        let flags = self.u8()?;
        let mask = if flags & 4 != 0 { u64::MAX } else { self.u64()? };
        let chunk = match flags & 3 {
            0 => None,
            content @ (1 | 2) => {
                let pages = if flags & 8 != 0 { mask } else { self.u64()? };
                let place = self.place(content == 2)?;
                Some(PageChunk { name: self.name()?, pages, place })
            }
            other => return Err(format!("content {other}")),
        };
        Ok(PagePiece { mask, chunk })
    }

    pub fn files(&mut self) -> Result<Vec<PlainFile>, Fault> {
        self.many(|at| {
            let (path, bytes, mode) = (at.text()?, at.varint()?, at.option(Cursor::u32)?);
            let map = match at.u8()? {
                0 => FileMap::Inline(at.file_pieces()?),
                1 => FileMap::Blocks(at.many(|at| {
                    Ok(FileBlockAt { offset: at.varint()?, stored_bytes: at.varint()?, block: at.block()? })
                })?),
                other => return Err(format!("map form {other}")),
            };
            Ok(PlainFile { path, bytes, mode, map })
        })
    }

    pub fn file_pieces(&mut self) -> Result<Vec<FilePiece>, Fault> {
        self.many(|at| {
            let (flags, bytes) = (at.u8()?, at.varint32()?);
            let chunk = match flags & 3 {
                0 => None,
                content @ (1 | 2) => {
                    let (skip, raw_bytes) = if flags & 8 != 0 { (0, bytes) } else { (at.varint32()?, at.varint32()?) };
                    let place = at.place(content == 2)?;
                    Some(FileChunk { name: at.name()?, raw_bytes, skip, place })
                }
                other => return Err(format!("content {other}")),
            };
            Ok(FilePiece { bytes, chunk })
        })
    }
}
