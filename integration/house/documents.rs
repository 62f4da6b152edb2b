//! What the documents say of tests: each one that they name is there.

use std::{collections::BTreeSet, fs};

use crate::{root, sources::files};

/// Documents that name tests.
const DOCUMENTS: [&str; 3] = ["README.md", "src/ARCHITECTURE.md", "src/format/FORMAT.md"];
/// Words in a name of a test, at least: shorter names are those of fields and files.
const WORDS_MIN: usize = 5;

/// Names in backticks that can only be those of tests.
fn named(text: &str) -> BTreeSet<&str> {
    let is_name = |text: &&str| {
        text.split('_').count() >= WORDS_MIN
            && text.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    text.split('`').filter(is_name).collect()
}

/// Names of the functions in a source.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("fn ").skip(1);
    after.map(|rest| rest.split(|c: char| c != '_' && !c.is_ascii_alphanumeric()).next().unwrap_or_default())
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let sources: Vec<String> = files(root(), &["src", "integration"])
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| fs::read_to_string(root().join(path)).unwrap())
        .collect();
    let there: BTreeSet<&str> = sources.iter().flat_map(|text| functions(text)).collect();
    let mut count = 0;
    for document in DOCUMENTS {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let names = named(&text);
        count += names.len();
        let missing: Vec<&&str> = names.difference(&there).collect();
        assert!(missing.is_empty(), "{document} names tests that are not there: {missing:?}");
    }
    assert!(count > 100, "only {count} names were found");
}

#[test]
fn names_of_tests_are_told_from_other_words() {
    let text = "`a_test_of_five_words`, `max_open_files`, a_bare_name_of_many_words, `one::path_of_five_words_in_all` `A_b_c_d_e`";
    assert_eq!(named(text), BTreeSet::from(["a_test_of_five_words"]));
    assert_eq!(functions("async fn one_two() {}\nfn three<T>(").collect::<Vec<_>>(), ["one_two", "three"]);
}
