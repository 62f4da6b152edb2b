use clap::CommandFactory;

use super::*;
use crate::cli::snapshot;

fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from([&["haulout"], args].concat())
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_whole_help_is_as_reviewed() {
    let mut root = Cli::command().term_width(100);
    root.build();
    let mut text = root.render_help().to_string();
    for command in root.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let name = command.get_name().to_owned();
        text += &format!("\n==== haulout {name}\n\n{}", command.render_help());
        for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
            let below_name = below.get_name().to_owned();
            text += &format!("\n==== haulout {name} {below_name}\n\n{}", below.render_help());
        }
    }
    // clap leaves blanks at the ends of some lines.
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    snapshot::check("help.txt", &format!("{}\n", lines.join("\n")));
}

#[test]
fn global_options_stand_before_or_after_the_command() {
    for args in [["--repo", "s3://b", "list"], ["list", "--repo", "s3://b"]] {
        assert_eq!(parse(&args).unwrap().global.repo.as_deref(), Some("s3://b"));
    }
}

#[test]
fn restore_takes_the_latest_backup_unless_one_is_named() {
    let backup = |args: &[&str]| match parse(args).unwrap().command {
        Command::Restore(args) => args.backup,
        other => panic!("{other:?}"),
    };
    assert_eq!(backup(&["restore", "--datadir", "/d"]), BackupChoice::Latest);
    let id = "20261122T170445Z-3f9a1c";
    assert_eq!(backup(&["restore", "--datadir", "/d", "--backup", id]), BackupChoice::Id(id.parse().unwrap()));
    assert_eq!(
        backup(&["restore", "--datadir", "/d", "--backup", "202611"]),
        BackupChoice::Beginning("202611".to_owned())
    );
    for text in ["../x", "", "last", "2026/", "2026*"] {
        assert!(parse(&["restore", "--datadir", "/d", "--backup", text]).is_err(), "{text}");
    }
    assert!(parse(&["restore"]).is_err());
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    for args in [
        &["backup", "--full", "--incremental"][..],
        &["backup", "--defaults-file", "/a", "--defaults-extra-file", "/b"],
        &["backup", "--ssl", "--skip-ssl"],
        &["list", "--path-style", "--virtual-host-style"],
        &["list", "--quiet", "--verbose"],
    ] {
        assert!(parse(args).is_err(), "{args:?}");
    }
}

#[test]
fn a_command_of_commands_wants_one() {
    for command in ["key", "config", "binlog"] {
        assert!(parse(&[command]).is_err(), "{command}");
    }
}

#[test]
fn a_part_of_a_check_is_one_of_its_parts() {
    for part in ["0/3", "4/3", "1/0", "3", "a/b", "/", "-1/3", "1/99999999999"] {
        assert!(parse(&["check", &format!("--read-part={part}")]).is_err(), "{part}");
    }
    let Command::Check(args) = parse(&["check", "--read-part=3/30"]).unwrap().command else { panic!() };
    assert_eq!((args.part(), args.percent()), (Some((3, 30)), Some(4)));
    assert!(parse(&["check", "--read-part=1/3", "--read-data"]).is_err());
}

#[test]
fn connection_options_bear_the_names_of_mariadb_backup() {
    let args =
        ["backup", "-S", "/s", "-u", "root", "-H", "localhost", "-P", "3306", "--ssl-ca=/ca.pem", "--", "--throttle=1"];
    let Command::Backup(args) = parse(&args).unwrap().command else { panic!() };
    assert_eq!((args.connection.user.as_deref(), args.connection.port), (Some("root"), Some(3306)));
    assert_eq!(args.connection.tls_args(), ["--ssl-ca=/ca.pem"]);
    assert_eq!(args.tool_args, ["--throttle=1"]);
}
