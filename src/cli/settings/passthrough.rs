//! Options after `--`, which `mariadb-backup` gets unseen, and those that it must not get.
//!
//! MariaDB's programs accept shortened names, `_` for `-`, and prefixes such as `loose-`: a name is compared as they would.

use super::SettingsError;

const OWN: &str = "haulout sets it by itself";
const UNSAFE: &str = "the backup might not restore";
const FILTER: &str = "a backup of part of a server is not supported by this version";
const CONNECTION: &str = "give it before the `--`";
const NO_BACKUP: &str = "it does something else than a backup";

/// Option names that are refused, each with its reason. A name that ends in `*` stands for all that begin so.
const REFUSED: &[(&str, &str)] = &[
    ("no-lock", UNSAFE),
    ("log-innodb-page-corruption", UNSAFE),
    ("innodb-force-recovery", UNSAFE),
    ("force-non-empty-directories", UNSAFE),
    ("rsync", UNSAFE),
    ("compress*", OWN),
    ("stream", OWN),
    ("encrypt*", OWN),
    ("incremental*", OWN),
    ("target-dir", OWN),
    ("extra-lsndir", OWN),
    ("backup", OWN),
    ("parallel", "give it as haulout's own --parallel"),
    ("check-privileges", OWN),
    ("databases*", FILTER),
    ("tables", FILTER),
    ("tables-file", FILTER),
    ("tables-exclude", FILTER),
    ("socket", CONNECTION),
    ("host", CONNECTION),
    ("port", CONNECTION),
    ("user", CONNECTION),
    ("defaults*", "option files are named before the `--`"),
    ("no-defaults", "option files are named before the `--`"),
    ("mysqld-args", OWN),
    ("prepare", NO_BACKUP),
    ("export", NO_BACKUP),
    ("copy-back", NO_BACKUP),
    ("move-back", NO_BACKUP),
    ("decompress", NO_BACKUP),
    ("remove-original", NO_BACKUP),
    ("apply-log*", NO_BACKUP),
    ("stats", NO_BACKUP),
    ("print-*", NO_BACKUP),
    ("version", NO_BACKUP),
    ("help", NO_BACKUP),
    ("innobackupex", NO_BACKUP),
];

/// Prefixes that MariaDB's programs take off an option's name.
const PREFIXES: [&str; 6] = ["loose-", "skip-", "disable-", "enable-", "maximum-", "autoset-"];

/// Checks options that are to be handed through to `mariadb-backup --backup`.
///
/// # Errors
/// Names the first that is refused, without its value.
pub fn check_tool_args(args: &[String]) -> Result<(), SettingsError> {
    for arg in args {
        let refuse = |option: &str, reason| {
            let option = option.chars().take(60).collect();
            Err(SettingsError::ToolArgument { option, reason })
        };
        let written = arg.split('=').next().unwrap_or_default();
        let Some(long) = written.strip_prefix("--") else {
            // `-psecret` must not be repeated.
            let shown: String = written.chars().take(2).collect();
            let short = written.starts_with('-');
            return refuse(&shown, if short { "write the long form" } else { "it is no option; write --name=value" });
        };
        let name = bare_name(long);
        if name.is_empty() {
            return refuse(written, "it has no name");
        }
        if is_shortened(&name, "password") || name.starts_with("password") {
            return Err(SettingsError::PasswordArgument);
        }
        let hit = REFUSED.iter().find(|(refused, _)| match refused.strip_suffix('*') {
            Some(start) => name.starts_with(start) || is_shortened(&name, start),
            None => is_shortened(&name, refused),
        });
        if let Some((_, reason)) = hit {
            return refuse(written, reason);
        }
    }
    Ok(())
}

/// True when MariaDB's programs might take `name` for `full`.
pub(super) fn is_shortened(name: &str, full: &str) -> bool {
    full.starts_with(name)
}

/// The name without prefixes, with `-` throughout.
pub(super) fn bare_name(long: &str) -> String {
    let mut name = long.replace('_', "-").to_ascii_lowercase();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest.to_owned();
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(arg: &str) -> Result<(), SettingsError> {
        check_tool_args(&[arg.to_owned()])
    }

    #[test]
    fn options_that_tune_a_backup_pass() {
        for arg in [
            "--throttle=40",
            "--kill-long-queries-timeout=20",
            "--ftwrl-wait-timeout=60",
            "--lock-ddl-per-table",
            "--safe-slave-backup",
            "--slave-info",
            "--galera-info",
            "--innodb-log-checkpoint-now",
            "--tmpdir=/var/tmp",
            "--open-files-limit=65535",
            "--plugin-dir=/usr/lib/mysql/plugin",
            "--history=nightly",
        ] {
            assert!(check(arg).is_ok(), "{arg}");
        }
    }

    #[test]
    fn options_that_endanger_a_backup_are_refused_in_every_spelling() {
        for arg in [
            "--no-lock",
            "--no_lock",
            "--no-loc",
            "--NO-LOCK",
            "--loose-no-lock",
            "--skip-loose_no_lock",
            "--compress",
            "--compress-threads=4",
            "--stream=mbstream",
            "--stre=xbstream",
            "--incremental-lsn=1",
            "--incremental-basedir=/x",
            "--inc",
            "--target-dir=/x",
            "--databases=a",
            "--databases-exclude=a",
            "--tables=a",
            "--tables-file=a",
            "--prepare",
            "--copy-back",
            "--user=root",
            "--defaults-file=/x",
            "--print-defaults",
            "--log-innodb-page-corruption",
            "-uroot",
            "--",
            "--=x",
            "value",
            "",
        ] {
            assert!(check(arg).is_err(), "{arg}");
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for arg in ["--password=hunter2", "-phunter2", "--pass=hunter2", "--loose-password=hunter2"] {
            let error = check(arg).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_passed_or_refused(arg in "-{0,3}[a-z_=-]{0,20}\\PC{0,3}") {
            let _ = check(&arg);
        }
    }
}
