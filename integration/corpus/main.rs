//! Every file of the fuzz corpus, through the functions that the fuzz targets run.

#[path = "../fuzz/parsers/mod.rs"]
mod parsers;

use std::{collections::BTreeSet, fs, path::Path, time::Instant};

use parsers::TARGETS;

/// Most seconds for one input; the slowest takes a fraction of one, unoptimised.
const INPUT_SECONDS_MAX: f64 = 20.0;

/// Longest corpus: everybody who clones the repository gets it.
const CORPUS_BYTES_MAX: u64 = 1 << 20;

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/integration/fuzz"))
}

/// Names in `folder`, sorted.
fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(fuzz().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let names: BTreeSet<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.into_iter().collect()
}

#[test]
fn every_parser_keeps_its_promises_on_the_corpus() {
    for target in &TARGETS {
        let folder = format!("corpus/{}", target.name);
        let files = names(&folder);
        assert!(files.len() >= 3, "{folder} has {} files", files.len());
        for file in files {
            let input = fs::read(fuzz().join(&folder).join(&file)).unwrap();
            // Told first: a panic names the promise, and this the file.
            println!("{folder}/{file}");
            let began = Instant::now();
            target.run(&input);
            let seconds = began.elapsed().as_secs_f64();
            assert!(seconds < INPUT_SECONDS_MAX, "{folder}/{file} took {seconds:.1} s");
        }
    }
}

#[test]
fn every_target_has_its_corpus_and_its_program() {
    let targets: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names("corpus"), targets);
    let programs: Vec<_> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names("targets"), programs);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in &targets {
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name} is not in the manifest");
        let program = fs::read_to_string(fuzz().join(format!("targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{name}\", input)")), "targets/{name}.rs runs another parser");
    }
}

#[test]
fn the_corpus_is_small() {
    let folders = names("corpus").into_iter().map(|name| fuzz().join("corpus").join(name));
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes");
}

/// The fuzz targets' package is not built here, so a lock that is behind would show only when somebody wants to fuzz.
#[test]
fn the_lock_of_the_fuzz_targets_knows_every_dependency() {
    let read = |path: &Path| fs::read_to_string(path).unwrap().parse::<toml::Table>().unwrap();
    let manifest = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")));
    let lock = read(&fuzz().join("Cargo.lock"));
    let packages = lock["package"].as_array().unwrap();
    let program = packages.iter().find(|package| package["name"].as_str() == Some("haulout")).unwrap();
    let locked = program["dependencies"].as_array().unwrap();
    // With several versions of one package, the version stands behind its name.
    let locked: BTreeSet<_> = locked.iter().filter_map(|name| name.as_str()?.split(' ').next()).collect();
    let missing: Vec<_> =
        manifest["dependencies"].as_table().unwrap().keys().filter(|name| !locked.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "run `cargo update --workspace` in integration/fuzz: {missing:?} are not in its lock");
}
