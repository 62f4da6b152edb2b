//! The worked example of FORMAT.md, made anew and compared, so that text and program cannot drift apart.

use std::fmt::Write;

use super::map::{Content, Extent, ExtentBlock, Location, PackRef, PageChunk, Piece, SpaceKey};
use super::pack::{FOOTER_BYTES, FinishedPack, HEADER_BYTES, NewChunk, PackBuilder, PackKind, compress, parse_pack};
use super::{Encoding, Namer};
use crate::model::{ExtentNo, PackId, PageMask, SpaceId};

const SPECIFICATION: &str = include_str!("FORMAT.md");
const PAGE_BYTES: usize = 1024;

/// Bytes taken apart from the first to the last, with a meaning for each stretch.
struct Listing<'a> {
    bytes: &'a [u8],
    at: usize,
    text: String,
}

impl<'a> Listing<'a> {
    fn new(bytes: &'a [u8]) -> Listing<'a> {
        Listing { bytes, at: 0, text: String::new() }
    }

    fn field(&mut self, count: usize, meaning: &str) -> &'a [u8] {
        let field = &self.bytes[self.at..self.at + count];
        for (number, row) in field.chunks(16).enumerate() {
            let meaning = if number == 0 { meaning } else { "" };
            let hex: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
            let line = format!("{:>4}  {:<47}  {meaning}", self.at + number * 16, hex.join(" "));
            writeln!(self.text, "{}", line.trim_end()).unwrap();
        }
        self.at += count;
        field
    }

    fn finish(self) -> String {
        assert_eq!(self.at, self.bytes.len());
        self.text
    }
}

fn pages() -> Vec<u8> {
    [[1; PAGE_BYTES], [2; PAGE_BYTES]].concat()
}

fn example_pack() -> FinishedPack {
    let namer = Namer::new(&[0; 32]);
    let mut builder = PackBuilder::new(PackKind::Data);
    let (mut compressor, mut stored) = (zstd::bulk::Compressor::new(1).unwrap(), Vec::new());
    let text = b"hello";
    let encoding = compress(&mut compressor, text, &mut stored).unwrap();
    let id = namer.chunk_of_file(text);
    builder.add(&NewChunk { id, raw_bytes: 5, encoding, sums: &[], stored: &stored });
    let pages = pages();
    let hashes = namer.pages(&pages, PAGE_BYTES);
    let sums: Vec<_> = hashes.iter().map(super::PageHash::sum).collect();
    let encoding = compress(&mut compressor, &pages, &mut stored).unwrap();
    let (id, raw_bytes) = (namer.chunk_of_pages(&hashes), pages.len() as u32);
    builder.add(&NewChunk { id, raw_bytes, encoding, sums: &sums, stored: &stored });
    builder.finish().unwrap()
}

fn pack_listing(pack: &FinishedPack) -> String {
    let [text, pages] = &pack.entries[..] else { panic!("two chunks were added") };
    let mut listing = Listing::new(&pack.bytes);
    listing.field(8, "header: magic \"HAULPACK\"");
    listing.field(1, "version 1");
    listing.field(1, "kind 1: data");
    listing.field(1, "seal 0: none");
    listing.field(HEADER_BYTES - 11, "reserved");
    listing.field(text.stored_bytes as usize, "first chunk: \"hello\", raw");
    listing.field(pages.stored_bytes as usize, "second chunk: two pages, one zstd frame of 2048 bytes");
    let directory = pack.bytes.len() - FOOTER_BYTES - listing.at;
    let stored = listing.field(directory, "directory: one zstd frame, see below");
    listing.field(8, &format!("footer: the directory begins at {}", pages.offset + pages.stored_bytes));
    listing.field(4, &format!("it takes {} bytes", stored.len()));
    listing.field(4, "124 bytes before compression");
    listing.field(4, "2 entries");
    listing.field(4, "reserved");
    listing.field(32, "BLAKE3 of the directory's stored bytes");
    listing.field(8, "magic \"HAULPEND\"");
    listing.finish()
}

fn directory_listing(pack: &FinishedPack) -> String {
    let footer_at = pack.bytes.len() - FOOTER_BYTES;
    let [text, pages] = &pack.entries[..] else { panic!("two chunks were added") };
    let start = (pages.offset + pages.stored_bytes) as usize;
    let raw = zstd::bulk::decompress(&pack.bytes[start..footer_at], 1000).unwrap();
    let mut listing = Listing::new(&raw);
    for (entry, what) in [(text, "\"hello\""), (pages, "the two pages")] {
        listing.field(32, &format!("name of {what}"));
        listing.field(4, &format!("stored at {}", entry.offset));
        listing.field(4, &format!("in {} bytes", entry.stored_bytes));
        listing.field(4, &format!("{} bytes before compression", entry.raw_bytes));
        let encoding = if entry.encoding == Encoding::Raw { "raw" } else { "zstd" };
        listing.field(1, &format!("encoding {}: {encoding}", entry.encoding.to_byte()));
        listing.field(1, &format!("{} page sums", entry.sums.len()));
        for number in 0..entry.sums.len() {
            listing.field(16, &format!("sum of the chunk's page {number}"));
        }
    }
    listing.finish()
}

fn example_block(pack: &FinishedPack) -> ExtentBlock {
    let entry = &pack.entries[1];
    let own = PackRef { id: pack.id, bytes: pack.bytes.len() as u32 };
    let at = Location { pack: own, offset: entry.offset, stored_bytes: entry.stored_bytes, encoding: entry.encoding };
    let chunk = PageChunk { id: entry.id, pages: PageMask(0b011), at };
    let pieces = vec![
        Piece { mask: PageMask(0b001), content: Content::Chunk(chunk) },
        Piece { mask: PageMask(0b110), content: Content::Zero },
    ];
    let extents = vec![Extent { no: ExtentNo(0), pieces }];
    ExtentBlock { key: SpaceKey { space: SpaceId(300), part: 0 }, index: 0, extents }
}

fn block_listing(pack: &FinishedPack, block: &[u8]) -> String {
    let entry = &pack.entries[1];
    let mut listing = Listing::new(block);
    listing.field(1, "kind 4: extent block");
    listing.field(1, "pack table: 1 pack");
    listing.field(32, "0: its name");
    listing.field(4, &format!("   its size, {} bytes", pack.bytes.len()));
    listing.field(2, "space id 300");
    listing.field(1, "part 0");
    listing.field(1, "index 0: extents 0 to 511");
    listing.field(1, "1 extent");
    listing.field(1, "extent 0");
    listing.field(1, "2 pieces");
    listing.field(1, "first piece: zstd, both masks follow");
    listing.field(8, "its pages: 0");
    listing.field(8, "pages that its chunk holds: 0 and 1");
    listing.field(1, "the chunk lies in pack 0 of the table");
    listing.field(1, &format!("at {}", entry.offset));
    listing.field(1, &format!("in {} bytes", entry.stored_bytes));
    listing.field(32, "name of the chunk");
    listing.field(1, "second piece: zeros");
    listing.field(8, "its pages: 1 and 2");
    listing.finish()
}

fn assert_in_specification(what: &str, listing: &str) {
    assert!(SPECIFICATION.contains(&format!("```text\n{listing}```\n")), "{what} in FORMAT.md should be:\n{listing}");
}

#[test]
fn the_example_pack_is_what_the_program_writes() {
    let pack = example_pack();
    assert_in_specification("the pack", &pack_listing(&pack));
    assert_in_specification("the pack's directory", &directory_listing(&pack));
    assert!(SPECIFICATION.contains(&pack.id.to_string()), "the name of the pack is {}", pack.id);
    assert_eq!(parse_pack(pack.id, &pack.bytes, &super::Keyring::plain()).unwrap().entries, pack.entries);
}

#[test]
fn the_example_block_is_what_the_program_writes() {
    let pack = example_pack();
    let block = example_block(&pack);
    let bytes = block.encode();
    assert_in_specification("the extent block", &block_listing(&pack, &bytes));
    let name = Namer::new(&[0; 32]).map_block(&bytes).to_string();
    assert!(SPECIFICATION.contains(&name), "the name of the block is {name}");
    // It lies in a map pack, whichever that is.
    let home = PackRef { id: PackId([9; 32]), bytes: 1000 };
    assert_eq!(ExtentBlock::decode(&bytes, home).unwrap(), block);
}
