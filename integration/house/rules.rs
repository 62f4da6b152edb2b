//! The rules, each from a file to the places where it is broken.

use crate::{
    rooms::Rooms,
    sources::{CodePath, Source, code_paths},
    tokens::reads,
};

/// Longest file, in lines.
const FILE_LINES_MAX: usize = 800;

/// Room that prints and reads the environment.
const ROOM_OF_THE_EDGE: &str = "cli";

/// File where time and chance come from.
const FILE_OF_TIME_AND_CHANCE: &str = "src/model/clock.rs";

/// Rooms that may measure how long something takes. What the others do is the same at each run on the same input.
const ROOMS_THAT_MEASURE: [&str; 10] =
    ["store", "mariadb", "backup", "restore", "verify", "prune", "archive", "drill", "agent", ROOM_OF_THE_EDGE];

/// File whose polling loop all other tests use.
const FILE_OF_WAITING: &str = "integration/support/wait.rs";

/// A place where a rule is broken: `path:line: what`.
pub type Violation = String;

fn violation(source: &Source, line: usize, what: impl std::fmt::Display) -> Violation {
    format!("{}:{line}: {what}", source.path)
}

/// A room imports only what the table allows.
pub fn imports(source: &Source, rooms: &Rooms) -> Vec<Violation> {
    let paths = code_paths(&source.tokens);
    let Some(room) = source.room() else {
        // Of the roots `lib.rs` only declares, `main.rs` only calls the command line.
        let stray = |path: &&CodePath| {
            matches!(path.segments.first().map(String::as_str), Some("haulout" | "crate"))
                && path.segments.get(1).is_some_and(|name| name != ROOM_OF_THE_EDGE)
        };
        let is_root = source.path.starts_with("src/");
        let strays = paths.iter().filter(|path| is_root && stray(path));
        return strays
            .map(|path| violation(source, path.line, format!("root uses {}", path.segments.join("::"))))
            .collect();
    };
    if !rooms.has(room) {
        return vec![violation(source, 1, format!("room {room} is not in the table"))];
    }
    let mut found = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        if reads(&source.tokens, at, &["use", "crate", "as"]) {
            found.push(violation(source, token.line, "another name for the crate's root hides what is used"));
        }
    }
    for path in &paths {
        let Some(used) = room_of(source, path) else { continue };
        let allowed = if path.test { rooms.allows_tests(room, used) } else { rooms.allows(room, used) };
        if !rooms.has(used) {
            found.push(violation(source, path.line, format!("{} names no room", path.segments.join("::"))));
        } else if !allowed {
            found.push(violation(source, path.line, format!("{room} may not use {used}")));
        }
    }
    found
}

/// The room that `path` leads to, when it leaves the file's own by `crate::` or by `super::`.
fn room_of<'a>(source: &Source, path: &'a CodePath) -> Option<&'a str> {
    let segments = &path.segments;
    let depth = source.module.len() + path.inline.len();
    let supers = segments.iter().skip_while(|name| *name == "self").take_while(|name| *name == "super").count();
    let selves = segments.iter().take_while(|name| *name == "self").count();
    let at = match segments[0].as_str() {
        // `pub(crate)` and the like are one word and lead nowhere.
        "crate" | "haulout" if segments.len() > 1 => 1,
        _ if supers > 0 && supers >= depth => selves + supers,
        _ => return None,
    };
    Some(segments.get(at).map_or("*", String::as_str))
}

/// No file is longer than a reader bears.
pub fn length(source: &Source) -> Vec<Violation> {
    let long = source.lines > FILE_LINES_MAX;
    long.then(|| violation(source, source.lines, format!("longer than {FILE_LINES_MAX} lines"))).into_iter().collect()
}

/// Only the command line prints, reads the environment and ends the process.
pub fn edge(source: &Source) -> Vec<Violation> {
    if source.room().is_none_or(|room| room == ROOM_OF_THE_EDGE) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| !token.test) {
        if ["println", "eprintln", "print", "eprint", "dbg"].iter().any(|name| reads(&source.tokens, at, &[name, "!"]))
        {
            found.push(violation(source, token.line, format!("only {ROOM_OF_THE_EDGE} prints: {}!", token.text)));
        }
    }
    for path in code_paths(&source.tokens).iter().filter(|path| !path.test) {
        let names: Vec<_> = path.segments.iter().map(String::as_str).collect();
        let environment = match names[..] {
            // Constants of the build, not of the environment.
            ["std", "env", "consts", ..] | ["env", "consts", ..] => false,
            ["std", "env", ..] | ["env", _, ..] => true,
            _ => path.ends_with(&["home_dir"]),
        };
        let terminal = [["io", "stdout"], ["io", "stderr"], ["io", "stdin"]].iter().any(|name| path.ends_with(name));
        let exit = path.ends_with(&["process", "exit"]) || path.ends_with(&["process", "abort"]);
        if environment || terminal || exit {
            found.push(violation(source, path.line, format!("only {ROOM_OF_THE_EDGE} may use {}", names.join("::"))));
        }
    }
    found
}

/// Time and chance come in as arguments.
pub fn time_and_chance(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let measures = source.room().is_none_or(|room| ROOMS_THAT_MEASURE.contains(&room));
    for path in code_paths(&source.tokens) {
        let wall_clock =
            [["SystemTime", "now"], ["Timestamp", "now"], ["Zoned", "now"]].iter().any(|name| path.ends_with(name));
        let chance = [["rand", "rng"], ["rand", "random"]].iter().any(|name| path.ends_with(name))
            || path
                .segments
                .iter()
                .any(|name| matches!(name.as_str(), "thread_rng" | "ThreadRng" | "OsRng" | "getrandom"));
        if (wall_clock || chance) && source.path != FILE_OF_TIME_AND_CHANCE {
            let name = path.segments.join("::");
            found.push(violation(source, path.line, format!("{name}: only {FILE_OF_TIME_AND_CHANCE} may use it")));
        }
        if path.ends_with(&["Instant", "now"]) && !measures && !path.test {
            found.push(violation(source, path.line, "this room measures no time"));
        }
    }
    found
}

/// No test is left out, and none waits for a time instead of an event.
pub fn tests(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        if reads(&source.tokens, at, &["#", "[", "ignore"]) {
            found.push(violation(source, token.line, "a test that is ignored tests nothing"));
        }
    }
    for path in code_paths(&source.tokens) {
        let in_test = path.test || source.path.starts_with("integration/");
        if path.ends_with(&["thread", "sleep"]) && in_test && source.path != FILE_OF_WAITING {
            found.push(violation(source, path.line, "tests wait for events, with a limit: use support::wait"));
        }
    }
    found
}

/// The one file with unsafe code; its header argues for it.
const FILE_OF_UNSAFE: &str = "src/main.rs";

/// Nothing is unsafe but there.
pub fn safety(source: &Source) -> Vec<Violation> {
    if source.path == FILE_OF_UNSAFE {
        return Vec::new();
    }
    let unsafe_words = source.tokens.iter().filter(|token| token.is("unsafe"));
    unsafe_words.map(|token| violation(source, token.line, "unsafe code")).collect()
}

#[cfg(test)]
mod self_tests {
    use super::*;

    const ROOMS: &str = "<!-- rooms -->\n| `error` | | – |\n| `model` | | `error` |\n| `store` | | `error`, `model` |
| `repository` | | `error`, `model`, `store` |\n| `backup` | | `error`, `model`, `repository` |
| `cli` | | all above |\n<!-- /rooms -->";

    fn in_room(room: &str, text: &str) -> Source {
        Source::new(&format!("src/{room}/part.rs"), &[room, "part"], text)
    }

    /// Lines that break `rule`.
    fn lines(found: Vec<Violation>) -> Vec<usize> {
        found.iter().map(|text| text.split(':').nth(1).unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn an_import_of_a_room_above_is_found_however_it_is_written() {
        let rooms = Rooms::parse(ROOMS).unwrap();
        for upward in [
            "use crate::backup::Plan;",
            "use crate::{error::Kind, backup::{self, Plan}};",
            "use crate::{model, backup as b};",
            "fn f() -> crate::backup::Plan { g() }",
            "use super::super::backup;",
            "use super::{super::backup};",
            "mod inner { use super::super::super::backup::Plan; }",
            "pub(in crate::backup) fn f() {}",
            "macro_rules! m { () => { $crate::backup::f() } }",
            "use ::haulout::backup;",
            "use crate::*;",
            "use crate as root;",
            "use crate::{self as root};",
            "use super::super::*;",
            "#[cfg(test)] mod tests { use crate::backup::Plan; }",
        ] {
            assert!(!imports(&in_room("store", upward), &rooms).is_empty(), "{upward}");
        }
    }

    #[test]
    fn imports_that_the_table_allows_pass() {
        let rooms = Rooms::parse(ROOMS).unwrap();
        for fine in [
            "use crate::{error::Kind, model::{Lsn, PageNo}}; use super::other; pub(crate) fn f() {} use self::x;",
            "use crate::store::Store; // use crate::backup\n const TEXT: &str = \"crate::backup\";",
            "mod inner { use super::super::sibling; use super::part; }",
            "use std::collections::HashMap; fn backup() { self.backup(x::backup::y) }",
        ] {
            assert_eq!(imports(&in_room("store", fine), &rooms), [""; 0], "{fine}");
        }
        let in_test = "#[cfg(test)] mod tests { use crate::store::Memory; }";
        assert_eq!(imports(&in_room("backup", in_test), &rooms), [""; 0]);
        assert_eq!(imports(&in_room("backup", "use crate::store::Memory;"), &rooms).len(), 1);
    }

    #[test]
    fn a_room_without_a_row_is_found() {
        let rooms = Rooms::parse(ROOMS).unwrap();
        assert_eq!(imports(&in_room("cellar", ""), &rooms).len(), 1);
        assert_eq!(imports(&in_room("store", "use crate::cellar;"), &rooms).len(), 1);
    }

    #[test]
    fn a_root_that_does_more_than_call_the_command_line_is_found() {
        let rooms = Rooms::parse(ROOMS).unwrap();
        assert_eq!(imports(&Source::new("src/main.rs", &[], "haulout::cli::main()"), &rooms), [""; 0]);
        assert_eq!(imports(&Source::new("src/main.rs", &[], "haulout::store::open()"), &rooms).len(), 1);
    }

    #[test]
    fn a_long_file_is_found() {
        assert!(length(&in_room("store", &"\n".repeat(FILE_LINES_MAX))).is_empty());
        assert_eq!(length(&in_room("store", &"\n".repeat(FILE_LINES_MAX + 1))).len(), 1);
    }

    #[test]
    fn printing_and_the_environment_outside_the_command_line_are_found() {
        let text = "println!(\"a\");\nstd::env::var(\"HOME\");\nuse std::{env, fs};\nenv::var(\"A\");\ndbg!(1);
            use std::io::{self, stdout};\nio::stderr();\nstd::env::home_dir();\nstd::process::exit(1);";
        assert_eq!(lines(edge(&in_room("store", text))), [1, 5, 2, 3, 4, 6, 7, 8, 9]);
        assert!(edge(&in_room("cli", text)).is_empty());
        let fine = "writeln!(out)?; command.env(\"A\", \"b\"); env!(\"CARGO_PKG_VERSION\"); std::env::consts::ARCH;
            #[arg(env = \"X\")] x: u8, // println!\n#[cfg(test)] mod tests { fn f() { println!(); std::env::temp_dir() } }";
        assert_eq!(edge(&in_room("store", fine)), [""; 0]);
    }

    #[test]
    fn time_and_chance_of_one_s_own_are_found() {
        let text = "SystemTime::now();\nuse rand::rng;\njiff::Timestamp::now();\nrand::random();\nrand::rngs::OsRng;\nInstant::now();";
        assert_eq!(lines(time_and_chance(&in_room("store", text))), [1, 2, 3, 4, 5]);
        assert_eq!(lines(time_and_chance(&in_room("model", text))), [1, 2, 3, 4, 5, 6]);
        assert!(time_and_chance(&Source::new(FILE_OF_TIME_AND_CHANCE, &["model", "clock"], "rand::rng()")).is_empty());
        assert_eq!(time_and_chance(&in_room("format", "#[cfg(test)] fn f() { SystemTime::now() }")).len(), 1);
    }

    #[test]
    fn ignored_and_sleeping_tests_are_found() {
        assert_eq!(tests(&in_room("store", "#[test]\n#[ignore]\nfn f() {}")).len(), 1);
        assert_eq!(tests(&in_room("store", "#[test]\n#[ignore = \"slow\"]\nfn f() {}")).len(), 1);
        assert_eq!(tests(&in_room("store", "#[cfg(test)] mod t { use std::thread::sleep; }")).len(), 1);
        assert_eq!(tests(&Source::new("integration/e2e/x.rs", &["x"], "std::thread::sleep(second)")).len(), 1);
        assert!(tests(&in_room("store", "std::thread::sleep(second)")).is_empty());
    }

    #[test]
    fn unsafe_code_is_found() {
        assert_eq!(safety(&in_room("store", "fn f() { unsafe { g() } }")).len(), 1);
        assert!(safety(&Source::new(FILE_OF_UNSAFE, &[], "unsafe { g() }")).is_empty());
        assert!(
            safety(&in_room("store", "#![forbid(unsafe_code)] // unsafe\n const S: &str = \"unsafe\";")).is_empty()
        );
    }
}
