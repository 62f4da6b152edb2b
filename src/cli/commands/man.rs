//! `haulout man`.

use std::{fs, io, path::Path};

use clap::CommandFactory;
use clap_mangen::Man;

use super::{Context, Finish};
use crate::{
    cli::{
        args::{Cli, ManArgs},
        failure::Failure,
        settings::keys,
    },
    error::Kind,
};

/// Prints the main page, or writes the pages of all commands into a directory.
///
/// # Errors
/// When a page cannot be written.
pub fn run(args: &ManArgs, context: &Context) -> Result<Finish, Failure> {
    let failed = |error: io::Error| Failure::of_io("cannot write the manual pages", &error);
    match &args.out {
        None => context.output.data(&main_page().map_err(failed)?),
        Some(directory) => {
            let failed = |error: io::Error| {
                Failure::of_io(format!("cannot write the manual pages into {}", directory.display()), &error)
            };
            let count = write_all(directory).map_err(failed)?;
            context.output.note(&format!("wrote {count} manual pages into {}", directory.display()));
        }
    }
    Ok(Finish::Done)
}

/// The page of `haulout` itself, with the sections that hold for all commands.
pub(in crate::cli) fn main_page() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page)?;
    page.extend_from_slice(closing_sections().as_bytes());
    Ok(page)
}

fn write_all(directory: &Path) -> io::Result<usize> {
    fs::create_dir_all(directory)?;
    let mut root = Cli::command();
    root.build();
    let commands: Vec<_> = root.get_subcommands().filter(|command| command.get_name() != "help").cloned().collect();
    for command in &commands {
        let man = Man::new(command.clone());
        let mut page = Vec::new();
        man.render(&mut page)?;
        fs::write(directory.join(man.get_filename()), page)?;
    }
    fs::write(directory.join("haulout.1"), main_page()?)?;
    Ok(commands.len() + 1)
}

/// EXIT STATUS, ENVIRONMENT and FILES, in roff.
fn closing_sections() -> String {
    let mut text = String::from(".SH \"EXIT STATUS\"\n.TP\n0\nok\n");
    for kind in EXIT_KINDS {
        text += &format!(".TP\n{}\n{}\n", kind.exit_code(), kind.name().replace('_', " "));
    }
    text += ".SH ENVIRONMENT\n";
    for key in keys::ALL {
        if let Some(name) = key.variable() {
            text += &format!(".TP\n{name}\n{}\n", plain(key.about()));
        }
    }
    text += ".TP\nHAULOUT_PASSWORD\npassword of the server\n";
    text += ".TP\nHAULOUT_CONFIG\nsettings file\n";
    text += ".TP\nHAULOUT_LOG\nlog filter such as haulout=debug\n";
    text += ".SH FILES\n.TP\n/etc/haulout.toml\nSettings, in sections:\n";
    for key in keys::ALL {
        text += &format!(".IP \"[{}] {}\"\n{}\n", key.section(), key.name(), plain(key.about()));
    }
    text
}

/// All kinds of failure, in the order of their exit codes.
pub(in crate::cli) const EXIT_KINDS: [Kind; 11] = [
    Kind::Failed,
    Kind::Usage,
    Kind::Damaged,
    Kind::NoRepository,
    Kind::Locked,
    Kind::WrongKey,
    Kind::Corrupt,
    Kind::ChainBroken,
    Kind::StorageUnavailable,
    Kind::DatabaseRefused,
    Kind::Interrupted,
];

/// A text in which roff sees nothing but letters.
fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let count = write_all(dir.path()).unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), count);
        for name in ["haulout.1", "haulout-backup.1", "haulout-move-back.1"] {
            assert!(names.iter().any(|found| found == name), "{names:?}");
        }
    }

    #[test]
    fn the_page_tells_exit_codes_variables_and_settings() {
        let page = String::from_utf8(main_page().unwrap()).unwrap();
        for text in [".SH \"EXIT STATUS\"", "130\ninterrupted", "HAULOUT_REPO\n", "[backup] spool_size"] {
            assert!(page.contains(text), "{text}");
        }
    }
}
