//! The parsers of bytes from outside, for libFuzzer; `integration/corpus` has the same functions for `cargo test`.

mod parsers;

/// Runs the parser called `name` on `input`.
///
/// # Panics
/// When there is none of that name, or it breaks a promise.
pub fn run(name: &str, input: &[u8]) {
    let target = parsers::TARGETS.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("no target {name}")).run(input);
}
