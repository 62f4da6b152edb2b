//! The tree's Rust files, each known by the module that it is, found by following `mod` declarations from the roots.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::tokens::{Kind, Token, reads, tokens};

/// One Rust file.
#[derive(Debug)]
pub struct Source {
    /// Path in the repository, with `/`.
    pub path: String,
    /// Module path of the file in its crate; empty for a crate's root.
    pub module: Vec<String>,
    pub tokens: Vec<Token>,
    pub lines: usize,
}

impl Source {
    pub fn new(path: &str, module: &[&str], text: &str) -> Source {
        Source {
            path: path.to_owned(),
            module: module.iter().map(|&name| name.to_owned()).collect(),
            tokens: tokens(text),
            lines: text.lines().count(),
        }
    }

    /// The room that holds the file: the first module of the library's path; none for the crate's roots and for tests.
    pub fn room(&self) -> Option<&str> {
        if self.path.starts_with("src/") { self.module.first().map(String::as_str) } else { None }
    }
}

/// A path as written in code, such as `crate::store::Key`, a group's members one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodePath {
    pub segments: Vec<String>,
    pub line: usize,
    /// Stands in an item that is compiled for tests only.
    pub test: bool,
    /// Inline modules around it.
    pub inline: Vec<String>,
}

impl CodePath {
    /// True when the path's last segments are `names`.
    pub fn ends_with(&self, names: &[&str]) -> bool {
        self.segments.len() >= names.len()
            && self.segments[self.segments.len() - names.len()..].iter().zip(names).all(|(a, b)| a == b)
    }
}

/// Keywords that a path with a leading `::` can follow.
const KEYWORDS: [&str; 12] = ["use", "pub", "dyn", "impl", "mut", "as", "for", "in", "if", "match", "return", "where"];

/// All paths of a file, single words too.
pub fn code_paths(tokens: &[Token]) -> Vec<CodePath> {
    let mut paths = Vec::new();
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        if token.is("{") {
            depth += 1;
        } else if token.is("}") {
            depth -= 1;
            inline.retain(|(_, outer)| *outer < depth);
        }
        if token.is("mod") && tokens.get(at + 2).is_some_and(|next| next.is("{")) {
            inline.push((tokens[at + 1].text.clone(), depth));
            at += 2;
        } else if token.is_word() && !(at > 0 && tokens[at - 1].is(".")) {
            let around: Vec<_> = inline.iter().map(|(name, _)| name.clone()).collect();
            at = tree(tokens, at, &[], &around, &mut paths);
        } else {
            at += 1;
        }
    }
    paths
}

/// Reads the path or `use` tree that begins at `at`; returns the place after it.
fn tree(tokens: &[Token], at: usize, prefix: &[String], inline: &[String], paths: &mut Vec<CodePath>) -> usize {
    let mut segments = prefix.to_vec();
    let mut next = at;
    while let Some(token) = tokens.get(next) {
        if token.is("{") && (next > at || !prefix.is_empty()) {
            next += 1;
            while tokens.get(next).is_some_and(|token| !token.is("}")) {
                next = if tokens[next].is(",") {
                    next + 1
                } else {
                    tree(tokens, next, &segments, inline, paths).max(next + 1)
                };
            }
            return next + 1;
        }
        if !token.is_word() && !token.is("*") {
            break;
        }
        segments.push(token.text.clone());
        next += 1;
        // `use ::a` and `dyn ::a` are a keyword and a path.
        let keyword = KEYWORDS.contains(&token.text.as_str());
        let goes_on = !keyword
            && tokens.get(next).is_some_and(|token| token.is("::"))
            && tokens.get(next + 1).is_some_and(|token| token.is_word() || token.is("*") || token.is("{"));
        if !goes_on {
            break;
        }
        next += 1;
    }
    let (line, test) = tokens.get(at).map_or((0, false), |token| (token.line, token.test));
    paths.push(CodePath { segments, line, test, inline: inline.to_vec() });
    // A member's other name is not a path.
    if !prefix.is_empty() && tokens.get(next).is_some_and(|token| token.is("as")) {
        next += 2;
    }
    next
}

/// All Rust files below `folders` of `root`.
pub fn files(root: &Path, folders: &[&str]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut pending: Vec<_> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path);
            }
        }
    }
    found
}

/// Files of the crate whose root is `crate_root`, and declarations whose file is not there.
pub fn crate_sources(root: &Path, crate_root: &str) -> (Vec<Source>, Vec<String>) {
    let (mut sources, mut missing) = (Vec::new(), Vec::new());
    let mut pending = vec![(root.join(crate_root), Vec::<String>::new(), false)];
    while let Some((path, module, test)) = pending.pop() {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(&path) else {
            missing.push(name);
            continue;
        };
        let names: Vec<_> = module.iter().map(String::as_str).collect();
        let mut source = Source::new(&name, &names, &text);
        source.tokens.iter_mut().for_each(|token| token.test |= test);
        let is_root = module.is_empty();
        for declared in declarations(&source.tokens) {
            let mut child = module.clone();
            child.extend(declared.inline.iter().cloned());
            child.push(declared.name.clone());
            pending.push((file_of(&path, is_root, &declared), child, declared.test));
        }
        sources.push(source);
    }
    (sources, missing)
}

struct Declaration {
    name: String,
    inline: Vec<String>,
    path: Option<String>,
    test: bool,
}

/// The `mod name;` declarations of a file.
fn declarations(tokens: &[Token]) -> Vec<Declaration> {
    let mut found = Vec::new();
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        if token.is("{") {
            depth += 1;
        } else if token.is("}") {
            depth -= 1;
            inline.retain(|(_, outer)| *outer < depth);
        } else if token.is("mod") && tokens.get(at + 2).is_some_and(|next| next.is("{")) {
            inline.push((tokens[at + 1].text.clone(), depth));
        } else if token.is("mod") && tokens.get(at + 2).is_some_and(|next| next.is(";")) {
            found.push(Declaration {
                name: tokens[at + 1].text.clone(),
                inline: inline.iter().map(|(name, _)| name.clone()).collect(),
                path: path_attribute(&tokens[..at]),
                test: token.test,
            });
        }
    }
    found
}

/// Value of a `#[path = "…"]` that stands right before, other attributes and a visibility between.
fn path_attribute(before: &[Token]) -> Option<String> {
    let start = before.iter().rposition(|token| token.is(";") || token.is("}") || token.is("{")).map_or(0, |at| at + 1);
    (start..before.len()).find_map(|at| {
        let text = before.get(at + 4)?;
        (reads(before, at, &["#", "[", "path", "="]) && text.kind == Kind::Text).then(|| text.text.clone())
    })
}

fn file_of(declared_in: &Path, is_root: bool, declared: &Declaration) -> PathBuf {
    let folder = declared_in.parent().unwrap();
    if let Some(path) = &declared.path {
        return normal(&folder.join(path));
    }
    let mut base = folder.to_owned();
    if !is_root && declared_in.file_name().is_some_and(|name| name != "mod.rs") {
        base.push(declared_in.file_stem().unwrap());
    }
    base.extend(&declared.inline);
    let flat = base.join(format!("{}.rs", declared.name));
    if flat.exists() { flat } else { base.join(&declared.name).join("mod.rs") }
}

/// `path` with each `folder/..` left out.
fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        code_paths(&tokens(source)).into_iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn groups_are_taken_apart() {
        assert_eq!(
            texts("use crate::{a::b, c::{self, d::*}, e as f}; x.y(g::<h>::i)"),
            ["use", "crate::a::b", "crate::c::self", "crate::c::d::*", "crate::e", "x", "g", "h", "i"]
        );
    }

    #[test]
    fn inline_modules_are_known() {
        let paths = code_paths(&tokens("mod a { fn f() { mod b { use super::super::c; } } } use super::d;"));
        let inline = |name: &str| paths.iter().find(|path| path.ends_with(&[name])).unwrap().inline.clone();
        assert_eq!(inline("c"), ["a", "b"]);
        assert!(inline("d").is_empty());
    }

    #[test]
    fn path_attributes_belong_to_their_own_declaration() {
        let found = declarations(&tokens("#[path = \"../x.rs\"] #[cfg(test)] pub mod a; mod b; mod c { mod d; }"));
        let seen: Vec<_> = found.iter().map(|d| (d.name.as_str(), d.path.as_deref(), d.test, d.inline.len())).collect();
        assert_eq!(seen, [("a", Some("../x.rs"), true, 0), ("b", None, false, 0), ("d", None, false, 1)]);
    }
}
