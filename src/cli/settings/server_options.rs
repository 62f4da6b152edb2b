//! Options for the server that a drill starts, and those that it must not get.
//!
//! As for the backup tool, a name is compared as MariaDB's programs would: shortened, with `_` for `-`, with prefixes.

use super::{
    SettingsError,
    passthrough::{bare_name, is_shortened},
};

const OWN: &str = "a drill sets it by itself";
const NOTHING_PROVEN: &str = "a drill with it would prove nothing";
const ELSEWHERE: &str = "it leads out of the scratch directory";

/// Option names that are refused, each with its reason. A name that ends in `*` stands for all that begin so.
const REFUSED: &[(&str, &str)] = &[
    ("datadir", OWN),
    ("socket", OWN),
    ("pid-file", OWN),
    ("tmpdir", OWN),
    ("user", OWN),
    ("defaults*", OWN),
    ("no-defaults", OWN),
    ("print-defaults", OWN),
    ("networking", OWN),
    ("port*", OWN),
    ("extra-port", OWN),
    ("bind-address", OWN),
    ("init-file", OWN),
    ("grant-tables", OWN),
    ("read-only", OWN),
    ("log-bin*", OWN),
    ("log-error*", OWN),
    ("log-basename", ELSEWHERE),
    ("general-log*", OWN),
    ("slow-query-log*", OWN),
    ("slave-start", OWN),
    ("event-scheduler", OWN),
    ("wsrep*", "a drill is no node of a cluster"),
    ("bootstrap", NOTHING_PROVEN),
    ("help", NOTHING_PROVEN),
    ("version", NOTHING_PROVEN),
    ("innodb-force-recovery", NOTHING_PROVEN),
    ("innodb-read-only", NOTHING_PROVEN),
    ("chroot", ELSEWHERE),
    ("aria-log-dir-path", ELSEWHERE),
    ("innodb-data-home-dir", ELSEWHERE),
    ("innodb-log-group-home-dir", ELSEWHERE),
    ("innodb-undo-directory", ELSEWHERE),
    ("innodb-temp-data-file-path", ELSEWHERE),
];

/// Option that unlocks the keys of encrypted tables.
const FILE_KEY: &str = "file-key-management-filekey";

/// Checks options of the form `NAME=VALUE` or `NAME`, and gives them as `mariadbd` wants them.
///
/// # Errors
/// Names the first that is refused, without its value.
pub fn server_options(given: &[String]) -> Result<Vec<String>, SettingsError> {
    given.iter().map(|option| server_option(option)).collect()
}

fn server_option(given: &str) -> Result<String, SettingsError> {
    let bare = given.strip_prefix("--").unwrap_or(given);
    let (written, value) = bare.split_once('=').map_or((bare, None), |(name, value)| (name, Some(value)));
    let refuse = |problem: &str| {
        let key = written.chars().take(60).collect();
        Err(SettingsError::BadValue { origin: "option for mariadbd".to_owned(), key, problem: problem.to_owned() })
    };
    let plain = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    if written.is_empty() || written.starts_with('-') || !written.chars().all(plain) || bare.contains('\0') {
        return refuse("expected NAME=VALUE");
    }
    let name = bare_name(written);
    let hit = REFUSED.iter().find(|(refused, _)| match refused.strip_suffix('*') {
        Some(start) => name.starts_with(start) || is_shortened(&name, start),
        None => is_shortened(&name, refused),
    });
    if let Some((_, reason)) = hit {
        return refuse(reason);
    }
    if is_shortened(&name, FILE_KEY) && !value.is_none_or(|value| value.starts_with("FILE:")) {
        return refuse(
            "a secret does not belong on a command line, where every user of the machine can read it; write FILE:PATH",
        );
    }
    Ok(format!("--{bare}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(option: &str) -> Result<String, SettingsError> {
        server_options(&[option.to_owned()]).map(|options| options.concat())
    }

    #[test]
    fn options_that_a_server_needs_pass_in_the_form_that_it_takes() {
        for (given, expected) in [
            ("plugin-dir=/usr/lib/mysql/plugin", "--plugin-dir=/usr/lib/mysql/plugin"),
            ("--innodb_buffer_pool_size=4G", "--innodb_buffer_pool_size=4G"),
            ("lower-case-table-names=1", "--lower-case-table-names=1"),
            ("plugin-load-add=ha_archive", "--plugin-load-add=ha_archive"),
            ("skip-name-resolve", "--skip-name-resolve"),
            ("file-key-management-filekey=FILE:/etc/key", "--file-key-management-filekey=FILE:/etc/key"),
            ("innodb-log-file-size=1G", "--innodb-log-file-size=1G"),
        ] {
            assert_eq!(one(given).unwrap(), expected);
        }
    }

    #[test]
    fn options_that_lead_out_of_the_scratch_or_prove_nothing_are_refused_in_every_spelling() {
        for option in [
            "datadir=/var/lib/mysql",
            "data=/var/lib/mysql",
            "loose-datadir=/x",
            "pid_file=/x",
            "skip-networking=0",
            "NETWORKING=1",
            "port=3306",
            "bind-address=0.0.0.0",
            "skip-grant-tables",
            "log-bin=binlog",
            "log_bin_index=x",
            "skip-slave-start=0",
            "event-scheduler=ON",
            "innodb-force-recovery=1",
            "innodb-undo-directory=/x",
            "wsrep-on=ON",
            "defaults-file=/x",
            "--defaults-extra-file=/x",
            "",
            "=x",
            "---x",
            "a b=c",
        ] {
            assert!(one(option).is_err(), "{option}");
        }
    }

    #[test]
    fn a_secret_is_refused_and_not_repeated() {
        for option in ["file-key-management-filekey=hunter2", "loose_file_key_management_filekey=hunter2"] {
            let error = one(option).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
