//! The thin binary: everything is in the library's `cli` room.
//!
//! It holds the program's only unsafe code, one call of `mallopt`, because nothing else bounds the memory that glibc keeps. glibc maps
//! long blocks on their own and gives them back when they are freed; but it raises the length from which on it does so to that of the
//! longest block that was freed. From then on packs of 16 MiB lie in heaps between short blocks that live longer, and what is
//! freed stays: a full backup to S3 took 260 to 340 MiB, and takes half of that with a fixed length.

/// Blocks from this length on are mapped on their own: longer than the buffer of an extent, which is used again and again.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: i32 = 2 << 20;

fn main() -> std::process::ExitCode {
    // SAFETY: the call takes two numbers and no pointers, and no other thread runs yet.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
    haulout::cli::main()
}
