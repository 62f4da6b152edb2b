//! What a stream holds, counted and extracted by the library's own parser.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use haulout::mariadb::xbstream::{self, FileNo, FileSink, StreamPath, StreamSummary};

/// What is looked for in a stream.
#[derive(Debug, Default)]
pub struct Chunks {
    pub summary: StreamSummary,
    /// Files that took the place of one delivered before.
    pub rewritten: u64,
    /// Tablespaces that appeared, got another name, or went, while the others were copied.
    pub new: u64,
    pub renamed: u64,
    pub deleted: u64,
    /// Bytes of the redo log from 8 to 16: the start checkpoint.
    pub start: u64,
    redo: BTreeSet<FileNo>,
}

impl Chunks {
    /// Parses the stream in `file`.
    pub fn of(file: &Path) -> Result<Chunks, String> {
        let mut chunks = Chunks::default();
        let input = File::open(file).map_err(|error| error.to_string())?;
        chunks.summary = xbstream::parse(input, &mut chunks).map_err(|error| error.to_string())?;
        Ok(chunks)
    }
}

impl FileSink for Chunks {
    type Error = Infallible;

    fn begin(&mut self, file: FileNo, path: &StreamPath, replace: bool) -> Result<(), Infallible> {
        let name = path.as_str();
        self.rewritten += u64::from(replace);
        if name.contains('/') {
            self.new += u64::from(name.ends_with(".new"));
            self.renamed += u64::from(name.ends_with(".ren"));
            self.deleted += u64::from(name.ends_with(".del"));
        }
        if name == "ib_logfile0" {
            self.redo.insert(file);
        }
        Ok(())
    }

    fn data(&mut self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<(), Infallible> {
        if offset == 0 && self.redo.contains(&file) && bytes.len() >= 16 {
            self.start = bytes[8..16].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        Ok(())
    }

    fn end(&mut self, _file: FileNo) -> Result<(), Infallible> {
        Ok(())
    }

    fn rename(&mut self, _from: &StreamPath, _to: &StreamPath) -> Result<(), Infallible> {
        Ok(())
    }

    fn remove(&mut self, _path: &StreamPath) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Writes the files of the stream in `file` below `folder`, as `mbstream` does, which stops at some streams of DDL.
pub fn extract(file: &Path, folder: &Path) -> Result<(), String> {
    let input = File::open(file).map_err(|error| error.to_string())?;
    let mut files = Files { folder: folder.to_owned(), open: HashMap::new() };
    xbstream::parse(input, &mut files).map(drop).map_err(|error| error.to_string())
}

struct Files {
    folder: PathBuf,
    open: HashMap<FileNo, File>,
}

impl FileSink for Files {
    type Error = io::Error;

    fn begin(&mut self, file: FileNo, path: &StreamPath, _replace: bool) -> io::Result<()> {
        let place = self.folder.join(path);
        fs::create_dir_all(place.parent().unwrap_or(&self.folder))?;
        self.open.insert(file, File::create(place)?);
        Ok(())
    }

    fn data(&mut self, file: FileNo, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(mut open) = self.open.get(&file) else { return Ok(()) };
        open.seek(SeekFrom::Start(offset))?;
        open.write_all(bytes)
    }

    fn end(&mut self, file: FileNo) -> io::Result<()> {
        self.open.remove(&file);
        Ok(())
    }

    fn rename(&mut self, from: &StreamPath, to: &StreamPath) -> io::Result<()> {
        fs::create_dir_all(self.folder.join(to.directory().unwrap_or_default()))?;
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&mut self, path: &StreamPath) -> io::Result<()> {
        fs::remove_file(self.folder.join(path))
    }
}
