//! The thin binary: everything is in the library's `cli` room.

fn main() -> std::process::ExitCode {
    haulout::cli::main()
}
