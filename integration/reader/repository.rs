//! A repository in a folder, read as FORMAT.md says.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use serde_json::Value;

use crate::block::{BlockAt, Cursor, Extent, Fault, FileMap, FilePiece, Pack, Place, PlainFile, Space, SpaceMap};
use crate::seal::{self, Keys};

/// Chunks of a pack by offset.
type Directory = BTreeMap<u32, Entry>;

struct Entry {
    name: String,
    stored_bytes: u32,
    raw_bytes: u32,
    zstd: bool,
    sums: Vec<[u8; 16]>,
}

struct OpenPack {
    bytes: Vec<u8>,
    is_map: bool,
    directory: Directory,
}

/// A chunk and what its pack says of it.
struct Chunk {
    raw: Vec<u8>,
    sums: Vec<[u8; 16]>,
    is_map: bool,
}

/// A backup with all its bytes.
pub struct Backup {
    pub manifest: Value,
    /// By path.
    pub files: Vec<RestoredFile>,
}

pub struct RestoredFile {
    pub path: String,
    pub kind: Kind,
    pub mode: Option<u32>,
    pub bytes: Vec<u8>,
}

pub enum Kind {
    Space { space: u32, part: u32, pages: u32, page_size: u32 },
    Plain,
}

pub struct Repository {
    folder: PathBuf,
    id: Value,
    keys: [[u8; 32]; 4],
    /// In a sealed repository.
    seal: Option<Keys>,
    packs: RefCell<HashMap<String, Rc<OpenPack>>>,
    seen: RefCell<BTreeSet<String>>,
}

/// Checks the envelope and gives the body.
fn document(bytes: &[u8], word: &str) -> Result<Value, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let rest = text.strip_prefix(&format!("{{\"haulout\":\"{word}\",\"format\":1,\"blake3\":\"")).ok_or("envelope")?;
    let (hash, rest) = rest.split_at_checked(64).ok_or("envelope ends early")?;
    let rest = rest.strip_prefix("\",\"body\":").ok_or("no body")?;
    let body = rest.strip_suffix("}\n").ok_or("envelope does not end")?;
    if blake3::hash(body.as_bytes()).to_hex().as_str() != hash {
        return Err("body is not the one that the envelope speaks of".to_owned());
    }
    serde_json::from_str(body).map_err(|error| error.to_string())
}

fn raw(zstd: bool, stored: &[u8], raw_bytes: usize) -> Result<Vec<u8>, Fault> {
    let raw = if zstd {
        zstd::bulk::decompress(stored, raw_bytes).map_err(|error| error.to_string())?
    } else {
        stored.to_vec()
    };
    if raw.len() == raw_bytes { Ok(raw) } else { Err(format!("{} bytes, expected {raw_bytes}", raw.len())) }
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), Fault> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, expected {expected:?}")) }
}

fn open_pack(name: &str, bytes: Vec<u8>, keys: Option<&Keys>) -> Result<OpenPack, Fault> {
    equal("name of a pack", blake3::hash(&bytes).to_hex().as_str(), name)?;
    equal("magic", &bytes[..8], b"HAULPACK")?;
    equal("version", bytes[8], 1)?;
    equal("seal", bytes[10], u8::from(keys.is_some()))?;
    let reserved = if keys.is_some() { &bytes[27..48] } else { &bytes[11..48] };
    equal("reserved", reserved.iter().all(|byte| *byte == 0), true)?;
    let footer = &bytes[bytes.len() - 64..];
    equal("end", &footer[56..], b"HAULPEND")?;
    let directory_at = u64::from_le_bytes(footer[..8].try_into().unwrap()) as usize;
    let (stored_bytes, raw_bytes, entries) = (le32(&footer[8..]), le32(&footer[12..]), le32(&footer[16..]));
    equal("reserved", le32(&footer[20..]), 0)?;
    equal("end of the directory", directory_at + stored_bytes as usize + 64, bytes.len())?;
    let stored = &bytes[directory_at..bytes.len() - 64];
    equal("hash of the directory", blake3::hash(stored).as_bytes().as_slice(), &footer[24..56])?;
    let opened;
    let compressed = match keys {
        None => stored,
        Some(keys) => {
            equal("salt of the directory", &stored[..16], &bytes[11..27])?;
            opened = seal::open("directory of a pack", &keys.meta, directory_at as u32, &footer[..24], stored)?;
            &opened[..]
        }
    };
    let raw = raw(true, compressed, raw_bytes as usize)?;
    let (mut rest, mut directory) = (&raw[..], Directory::new());
    for _ in 0..entries {
        let (sums, offset) = (usize::from(rest[45]), le32(&rest[32..]));
        let entry = Entry {
            name: hex::encode(&rest[..32]),
            stored_bytes: le32(&rest[36..]),
            raw_bytes: le32(&rest[40..]),
            zstd: rest[44] == 1,
            sums: rest[46..46 + 16 * sums].chunks(16).map(|sum| sum.try_into().unwrap()).collect(),
        };
        rest = &rest[46 + 16 * sums..];
        directory.insert(offset, entry);
    }
    equal("bytes after the last entry", rest.len(), 0)?;
    Ok(OpenPack { is_map: bytes[9] == 2, bytes, directory })
}

/// All key slots.
fn slots(folder: &Path, config: &Value) -> Result<Vec<Value>, Fault> {
    let mut slots = Vec::new();
    for entry in fs::read_dir(folder.join("keys")).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let slot = document(&fs::read(&path).map_err(|error| error.to_string())?, "key")?;
        equal("repository of a slot", &slot["repository_id"], &config["repository_id"])?;
        equal("name of a slot", path.file_stem().and_then(|name| name.to_str()), slot["id"].as_str())?;
        slots.push(slot);
    }
    Ok(slots)
}

impl Repository {
    pub fn open(folder: &Path) -> Result<Repository, Fault> {
        let config = fs::read(folder.join("haulout.json")).map_err(|error| error.to_string())?;
        let config = document(&config, "repository")?;
        let id = hex::decode(config["repository_id"].as_str().unwrap()).map_err(|error| error.to_string())?;
        let seal = match config["seal"].as_str() {
            Some("none") => None,
            Some("aes-256-gcm") => Some(seal::unlock(&slots(folder, &config)?, &folder.join("../keys"), &id)?),
            other => return Err(format!("seal {other:?}")),
        };
        let naming = seal.as_ref().map_or([0; 32], |keys| keys.naming);
        let keys = ["page", "chunk of pages", "chunk of a file", "map block"]
            .map(|what| blake3::derive_key(&format!("haulout format 1: {what}"), &naming));
        Ok(Repository {
            folder: folder.to_owned(),
            id: config["repository_id"].clone(),
            keys,
            seal,
            packs: RefCell::default(),
            seen: RefCell::default(),
        })
    }

    /// The body of the document that lies under `key`.
    fn document(&self, key: &str, word: &str) -> Result<Value, Fault> {
        let bytes = fs::read(self.folder.join(key)).map_err(|error| format!("{key}: {error}"))?;
        let body = document(&bytes, word)?;
        let Some(keys) = &self.seal else { return Ok(body) };
        let id = hex::decode(self.id.as_str().unwrap()).map_err(|error| error.to_string())?;
        seal::open_body(&body, &keys.meta, &id, key)
    }

    fn names(&self, folder: &str) -> Result<Vec<String>, Fault> {
        let listing = fs::read_dir(self.folder.join(folder)).map_err(|error| format!("{folder}: {error}"))?;
        let mut names: Vec<_> = listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        Ok(names)
    }

    pub fn backup_ids(&self) -> Result<Vec<String>, Fault> {
        let names = self.names("backups")?;
        // A second, a hyphen and six digits; what may follow is the number of an edition.
        let mut ids: Vec<_> = names.iter().filter_map(|name| Some(name.get(..23)?.to_owned())).collect();
        ids.dedup();
        Ok(ids)
    }

    /// Numbers of the editions of a backup, ascending.
    pub fn editions(&self, id: &str) -> Result<Vec<u32>, Fault> {
        let names = self.names("backups")?;
        let of_backup = names.iter().filter_map(|name| name.strip_prefix(id)?.strip_suffix(".json"));
        let mut editions = Vec::new();
        for rest in of_backup {
            editions.push(match rest.strip_prefix("-e") {
                Some(number) => number.parse().map_err(|_| format!("edition {number}"))?,
                None => 0,
            });
        }
        editions.sort_unstable();
        Ok(editions)
    }

    /// Number of lease documents, each checked.
    pub fn leases(&self) -> Result<usize, Fault> {
        let names = self.names("leases")?;
        for name in &names {
            let lease = self.document(&format!("leases/{name}"), "lease")?;
            let text = |member: &str| lease[member].as_str().unwrap_or_default().to_owned();
            let parts: Vec<_> = name.trim_end_matches(".json").split('-').collect();
            equal("purpose", parts[0], &text("purpose"))?;
            equal("holder", parts[1], &text("holder"))?;
            equal("state", parts[3] == "done", lease["released"] == true)?;
        }
        Ok(names.len())
    }

    /// Objects of which FORMAT.md does not speak, and packs that are damaged.
    pub fn unknown_objects(&self) -> Result<Vec<String>, Fault> {
        let known = ["backups", "haulout.json", "leases", "packs"].into_iter();
        let known: Vec<_> = known.chain(self.seal.as_ref().map(|_| "keys")).collect();
        let mut unknown: Vec<_> = self.names("")?.into_iter().filter(|name| !known.contains(&name.as_str())).collect();
        for shard in self.names("packs")? {
            for name in self.names(&format!("packs/{shard}"))? {
                if name[..2] != shard || self.pack(&name).is_err() {
                    unknown.push(name);
                }
            }
        }
        Ok(unknown)
    }

    /// Sorts of things that were met.
    pub fn seen(&self) -> BTreeSet<String> {
        self.seen.borrow().clone()
    }

    fn note(&self, thing: impl Into<String>) {
        self.seen.borrow_mut().insert(thing.into());
    }

    fn pack(&self, name: &str) -> Result<Rc<OpenPack>, Fault> {
        if let Some(pack) = self.packs.borrow().get(name) {
            return Ok(pack.clone());
        }
        let path = self.folder.join("packs").join(&name[..2]).join(name);
        let bytes = fs::read(path).map_err(|error| format!("pack {name}: {error}"))?;
        let pack = Rc::new(open_pack(name, bytes, self.seal.as_ref())?);
        self.packs.borrow_mut().insert(name.to_owned(), pack.clone());
        Ok(pack)
    }

    /// The bytes at `place`, which the pack's directory must describe in the same way.
    fn stored(&self, place: &Place, name: &str, raw_bytes: u32) -> Result<Chunk, Fault> {
        let pack = self.pack(&place.pack.name)?;
        equal("size of a pack", pack.bytes.len(), place.pack.bytes as usize)?;
        let entry = pack.directory.get(&place.offset).ok_or("no such chunk in the pack")?;
        let told = (entry.name.as_str(), entry.stored_bytes, entry.raw_bytes, entry.zstd);
        equal("entry of a directory", told, (name, place.stored_bytes, raw_bytes, place.zstd))?;
        let start = place.offset as usize;
        let stored = &pack.bytes[start..start + place.stored_bytes as usize];
        let opened;
        let stored = match &self.seal {
            None => stored,
            Some(keys) => {
                let (context, key, kind) = match pack.is_map {
                    true => ("chunks of a map pack", &keys.meta, 2),
                    false => ("chunks of a data pack", &keys.data, 1),
                };
                let aad = [&[kind][..], &hex::decode(name).map_err(|error| error.to_string())?].concat();
                opened = seal::open(context, key, place.offset, &aad, stored)?;
                &opened[..]
            }
        };
        let raw = raw(place.zstd, stored, raw_bytes as usize)?;
        Ok(Chunk { raw, sums: entry.sums.clone(), is_map: pack.is_map })
    }

    fn block(&self, at: &BlockAt) -> Result<Vec<u8>, Fault> {
        let Chunk { raw, is_map, .. } = self.stored(&at.place, &at.name, at.raw_bytes)?;
        equal("block in a map pack", is_map, true)?;
        equal("name of a block", blake3::keyed_hash(&self.keys[3], &raw).to_hex().as_str(), &at.name)?;
        Ok(raw)
    }

    fn cursor<'a>(&self, bytes: &'a [u8], kind: u8, at: &BlockAt) -> Result<Cursor<'a>, Fault> {
        let cursor = Cursor::new(bytes, kind, &at.place.pack)?;
        if cursor.names_home {
            self.note("pack table: home");
        }
        if cursor.names_others {
            self.note("pack table: another pack");
        }
        Ok(cursor)
    }

    /// Backup `id` with all its bytes, each proven by the names of the chunks.
    pub fn backup(&self, id: &str) -> Result<Backup, Fault> {
        let newest = *self.editions(id)?.last().ok_or("no such backup")?;
        self.edition(id, newest)
    }

    /// A backup by one edition of its manifest.
    pub fn edition(&self, id: &str, edition: u32) -> Result<Backup, Fault> {
        let name = if edition == 0 { format!("{id}.json") } else { format!("{id}-e{edition:06}.json") };
        let manifest = self.document(&format!("backups/{name}"), "backup")?;
        equal("id", manifest["id"].as_str(), Some(id))?;
        equal("edition", manifest.get("edition").map_or(Some(0), Value::as_u64), Some(edition.into()))?;
        equal("repository", &manifest["repository_id"], &self.id)?;
        let map = &manifest["map"];
        let (text, number) =
            (|name: &str| map[name].as_str().unwrap().to_owned(), |name: &str| map[name].as_u64().unwrap());
        let pack = Pack { name: text("pack"), bytes: number("pack_bytes") as u32 };
        let (offset, stored_bytes) = (number("offset") as u32, number("stored_bytes") as u32);
        let place = Place { pack, offset, stored_bytes, zstd: text("encoding") == "zstd" };
        let at = BlockAt { name: text("chunk"), raw_bytes: number("raw_bytes") as u32, place };
        let bytes = self.block(&at)?;
        let mut cursor = self.cursor(&bytes, 1, &at)?;
        let root = cursor.root()?;
        cursor.end()?;
        let mut stored = 0;
        let mut files: Vec<RestoredFile> = Vec::new();
        for (space, part, at) in &root.spaces {
            let bytes = self.block(at)?;
            let mut cursor = self.cursor(&bytes, 2, at)?;
            let records = cursor.spaces()?;
            cursor.end()?;
            equal("first of a directory", (records[0].space, records[0].part), (*space, *part))?;
            for record in records {
                equal("directory of a space", record.space >> 6, space >> 6)?;
                files.push(self.space(record, &mut stored)?);
            }
        }
        let spaces = files.len();
        for (path, at) in &root.files {
            let bytes = self.block(at)?;
            let mut cursor = self.cursor(&bytes, 3, at)?;
            let records = cursor.files()?;
            cursor.end()?;
            equal("first of a directory", &records[0].path, path)?;
            for record in records {
                files.push(self.plain(record, &mut stored)?);
            }
        }
        let logical = files.iter().map(|file| file.bytes.len() as u64).sum();
        let found = [spaces as u64, (files.len() - spaces) as u64, logical, stored];
        equal("totals", found, root.totals)?;
        let sizes = &manifest["sizes"];
        let told = [&manifest["spaces"], &manifest["files"], &sizes["logical_bytes"], &sizes["stored_bytes"]];
        equal("totals of the manifest", told.map(|figure| figure.as_u64().unwrap()), root.totals)?;
        files.sort_by(|one, other| one.path.cmp(&other.path));
        equal("two files of one path", files.windows(2).any(|pair| pair[0].path == pair[1].path), false)?;
        Ok(Backup { manifest, files })
    }

    fn space(&self, record: Space, stored: &mut u64) -> Result<RestoredFile, Fault> {
        let Space { space, part, name, page_size, pages, mode, map } = record;
        self.note(format!("page size {page_size}"));
        if space == 0 && part == 1 {
            self.note("second file of the system tablespace");
        }
        let mut bytes = vec![0xee; pages as usize * page_size as usize];
        let mut extents = Vec::new();
        match map {
            SpaceMap::Inline(all) => {
                self.note("space map: inline");
                *stored += stored_of(&all);
                extents = all;
            }
            SpaceMap::Blocks(blocks) => {
                self.note("space map: blocks");
                for at in blocks {
                    let block = self.block(&at.block)?;
                    let mut cursor = self.cursor(&block, 4, &at.block)?;
                    let (own_space, own_part, index, all) = cursor.extent_block()?;
                    cursor.end()?;
                    equal("owner of a block", (own_space, own_part, index), (space, part, at.index))?;
                    equal("extents of a block", all.iter().all(|extent| extent.number / 512 == index), true)?;
                    equal("stored bytes of a block", stored_of(&all), at.stored_bytes)?;
                    *stored += at.stored_bytes;
                    extents.extend(all);
                }
            }
        }
        equal("number of extents", extents.len() as u32, pages.div_ceil(64))?;
        for (number, extent) in (0u32..).zip(&extents) {
            equal("number of an extent", extent.number, number)?;
            let covered = self.extent(extent, page_size as usize, &mut bytes)?;
            let last = (pages - number * 64).min(64);
            equal("pages of an extent", covered, u64::MAX >> (64 - last))?;
        }
        Ok(RestoredFile { path: name, kind: Kind::Space { space, part, pages, page_size }, mode, bytes })
    }

    /// Writes the pages of an extent and tells which they were.
    fn extent(&self, extent: &Extent, page_size: usize, file: &mut [u8]) -> Result<u64, Fault> {
        let mut covered = 0u64;
        for piece in &extent.pieces {
            equal("page in two pieces", covered & piece.mask, 0)?;
            covered |= piece.mask;
            let pages = |mask: u64| (0..64usize).filter(move |page| mask >> page & 1 == 1);
            let chunk = match &piece.chunk {
                None => {
                    self.note("page piece: zero");
                    None
                }
                Some(chunk) => {
                    equal("pages that the chunk lacks", piece.mask & !chunk.pages, 0)?;
                    self.note(if piece.mask == chunk.pages {
                        "page piece: whole chunk"
                    } else {
                        "page piece: part of a chunk"
                    });
                    self.note(if chunk.place.zstd { "page piece: zstd" } else { "page piece: raw" });
                    let raw_bytes = chunk.pages.count_ones() as usize * page_size;
                    let Chunk { raw, sums, .. } = self.stored(&chunk.place, &chunk.name, raw_bytes as u32)?;
                    let hashes: Vec<_> =
                        raw.chunks(page_size).map(|page| *blake3::keyed_hash(&self.keys[0], page).as_bytes()).collect();
                    let name = blake3::keyed_hash(&self.keys[1], &hashes.concat()).to_hex();
                    equal("name of a chunk", name.as_str(), &chunk.name)?;
                    let expected: Vec<[u8; 16]> = hashes.iter().map(|hash| hash[..16].try_into().unwrap()).collect();
                    equal("sums of pages", sums, expected)?;
                    Some((chunk.pages, raw))
                }
            };
            for page in pages(piece.mask) {
                let at = (extent.number as usize * 64 + page) * page_size;
                let target = &mut file[at..at + page_size];
                match &chunk {
                    None => target.fill(0),
                    Some((held, raw)) => {
                        let rank = (held & ((1 << page) - 1)).count_ones() as usize;
                        target.copy_from_slice(&raw[rank * page_size..][..page_size]);
                    }
                }
            }
        }
        Ok(covered)
    }

    fn plain(&self, record: PlainFile, stored: &mut u64) -> Result<RestoredFile, Fault> {
        let mut bytes = Vec::new();
        match record.map {
            FileMap::Inline(pieces) => {
                self.note("file map: inline");
                *stored += self.pieces(&pieces, &mut bytes)?;
            }
            FileMap::Blocks(blocks) => {
                self.note("file map: blocks");
                for at in blocks {
                    equal("begin of a block", bytes.len() as u64, at.offset)?;
                    let block = self.block(&at.block)?;
                    let mut cursor = self.cursor(&block, 5, &at.block)?;
                    let pieces = cursor.file_pieces()?;
                    cursor.end()?;
                    equal("stored bytes of a block", self.pieces(&pieces, &mut bytes)?, at.stored_bytes)?;
                    *stored += at.stored_bytes;
                }
            }
        }
        equal("length of a file", bytes.len() as u64, record.bytes)?;
        Ok(RestoredFile { path: record.path, kind: Kind::Plain, mode: record.mode, bytes })
    }

    /// Appends the bytes of pieces and tells how many are stored for them.
    fn pieces(&self, pieces: &[FilePiece], file: &mut Vec<u8>) -> Result<u64, Fault> {
        let mut stored = 0;
        for piece in pieces {
            let Some(chunk) = &piece.chunk else {
                self.note("file piece: zero");
                file.resize(file.len() + piece.bytes as usize, 0);
                continue;
            };
            self.note(if chunk.place.zstd { "file piece: zstd" } else { "file piece: raw" });
            let Chunk { raw, sums, is_map } = self.stored(&chunk.place, &chunk.name, chunk.raw_bytes)?;
            equal("sums of a plain chunk, or it lies among maps", (sums.len(), is_map), (0, false))?;
            equal("name of a chunk", blake3::keyed_hash(&self.keys[2], &raw).to_hex().as_str(), &chunk.name)?;
            let start = chunk.skip as usize;
            file.extend_from_slice(&raw[start..start + piece.bytes as usize]);
            stored += u64::from(chunk.place.stored_bytes);
        }
        Ok(stored)
    }
}

fn stored_of(extents: &[Extent]) -> u64 {
    let chunks = extents.iter().flat_map(|extent| &extent.pieces).filter_map(|piece| piece.chunk.as_ref());
    chunks.map(|chunk| u64::from(chunk.place.stored_bytes)).sum()
}
