//! The `haulout` program; everything is in the library.

/// Packs of 16 MiB and extents of one are made by some threads and freed by others. The C library's allocator keeps what was
/// freed in pieces, one heap for each thread: a full backup then takes half as much memory again as it holds at any time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    haulout::cli::main()
}
