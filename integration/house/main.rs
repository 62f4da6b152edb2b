//! The rules of the house that a compiler does not know: `src/ARCHITECTURE.md` has the table of rooms.

mod documents;
mod policies;
mod rooms;
mod rules;
mod sources;
mod tokens;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use rooms::Rooms;
use sources::{Source, crate_sources, files};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Folders of the packages, from the root: the program's, and that of its fuzz targets.
const PACKAGES: [&str; 2] = ["", "integration/fuzz/"];

/// Roots of the crates of the package in folder `package`: every `path = "….rs"` of its manifest.
fn crate_roots(package: &str, manifest: &str) -> Vec<String> {
    let values = manifest.lines().filter_map(|line| line.trim().strip_prefix("path")?.trim().strip_prefix('='));
    let paths = values.map(|value| value.trim().trim_matches('"')).filter(|path| path.ends_with(".rs"));
    paths.map(|path| format!("{package}{path}")).collect()
}

/// All files that any crate of the packages reaches, and declarations without a file.
fn reachable(root: &Path) -> (Vec<Source>, Vec<String>) {
    let crate_roots = PACKAGES.iter().flat_map(|package| {
        let manifest = root.join(package).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap_or_else(|error| panic!("{}: {error}", manifest.display()));
        crate_roots(package, &text)
    });
    let (mut sources, mut missing) = (Vec::<Source>::new(), Vec::new());
    for crate_root in crate_roots {
        let (found, gone) = crate_sources(root, &crate_root);
        missing.extend(gone);
        for source in found {
            if !sources.iter().any(|known| known.path == source.path) {
                sources.push(source);
            }
        }
    }
    (sources, missing)
}

fn hold(rule: impl Fn(&Source) -> Vec<String>) {
    let (sources, _) = reachable(root());
    assert!(sources.len() > 10, "only {} files found", sources.len());
    let found: Vec<_> = sources.iter().flat_map(rule).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let page = fs::read_to_string(root().join("src/ARCHITECTURE.md")).unwrap();
    let rooms = Rooms::parse(&page).unwrap();
    hold(|source| rules::imports(source, &rooms));
}

#[test]
fn no_file_is_too_long() {
    hold(rules::length);
}

#[test]
fn only_the_command_line_prints_and_reads_the_environment() {
    hold(rules::edge);
}

#[test]
fn time_and_chance_come_from_one_place() {
    hold(rules::time_and_chance);
}

#[test]
fn no_test_is_ignored_or_sleeps() {
    hold(rules::tests);
}

#[test]
fn nothing_is_unsafe() {
    hold(rules::safety);
}

/// Files that no crate reaches, and declarations without a file.
fn dead_modules(root: &Path) -> Vec<String> {
    let (sources, mut found) = reachable(root);
    let alive: BTreeSet<PathBuf> = sources.iter().map(|source| root.join(&source.path)).collect();
    let dead = files(root, &["src", "integration"]).into_iter().filter(|path| !alive.contains(path));
    found.extend(dead.map(|path| path.strip_prefix(root).unwrap().display().to_string()));
    found
}

#[test]
fn every_file_is_part_of_a_crate() {
    assert_eq!(dead_modules(root()), [""; 0]);
}

#[test]
fn a_file_that_nothing_declares_is_found() {
    let tree = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("Cargo.toml", "[lib]\nname = \"x\"\npath = \"src/lib.rs\"\n[[test]]\npath = \"integration/t/main.rs\"\n");
    write("integration/fuzz/Cargo.toml", "[lib]\npath = \"lib.rs\"\n");
    write("integration/fuzz/lib.rs", "mod parsers;");
    write("integration/fuzz/parsers/mod.rs", "");
    write("src/lib.rs", "mod a; #[cfg(test)] mod b; mod inline { mod c; }");
    write("src/a.rs", "mod deep;");
    write("src/a/deep.rs", "");
    write("src/b/mod.rs", "mod under;");
    write("src/b/under.rs", "");
    write("src/inline/c.rs", "");
    write("integration/t/main.rs", "#[path = \"../shared.rs\"] mod shared;");
    write("integration/shared.rs", "");
    assert_eq!(dead_modules(tree.path()), [""; 0]);
    write("src/a/forgotten.rs", "");
    write("src/lib.rs", "// mod b;\nmod a; mod inline { mod c; } mod gone;");
    assert_eq!(dead_modules(tree.path()), ["src/gone/mod.rs", "src/a/forgotten.rs", "src/b/mod.rs", "src/b/under.rs"]);
}
