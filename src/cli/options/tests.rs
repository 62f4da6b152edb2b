use std::{os::unix::fs::PermissionsExt, path::Path};

use clap::Parser;

use super::*;
use crate::cli::{
    args::{Cli, Command},
    environment::Environment,
    settings::SettingsFile,
};

fn layers(variables: &[(&str, &str)], file: &str) -> Layers {
    let file = SettingsFile::parse(Path::new("/etc/haulout.toml"), file).unwrap();
    Layers::new(Environment::of_variables(variables), Some(file))
}

fn backup(args: &[&str], variables: &[(&str, &str)], file: &str) -> Result<BackupSettings, SettingsError> {
    let cli = Cli::try_parse_from([&["haulout", "backup", "--repo", "s3://b/p"], args].concat()).unwrap();
    let Command::Backup(args) = cli.command else { panic!() };
    BackupSettings::assemble(&layers(variables, file), cli.global.repo.as_deref(), &args)
}

/// A directory with secret files of these names and contents.
fn secrets(files: &[(&str, &str, u32)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, mode) in files {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
    }
    dir
}

#[test]
fn a_backup_needs_no_setting_but_the_repository() {
    let settings = backup(&[], &[("TMPDIR", "/scratch"), ("HOME", "/root")], "").unwrap();
    assert_eq!((settings.mode, settings.store.url.as_str()), (BackupMode::Automatic, "s3://b/p"));
    assert_eq!(settings.spool_dir, Path::new("/scratch"));
    assert_eq!(settings.spool_size.to_string(), "4.00 GiB");
    assert_eq!((settings.parallel.get(), settings.compression_level.get(), settings.uploads.get()), (2, 1, 4));
    assert_eq!(settings.connection.home.as_deref(), Some(Path::new("/root")));
    assert!(settings.store.upload_checksum && settings.store.access_key.is_none());
}

#[test]
fn defaults_in_the_help_are_those_of_the_settings() {
    let help = include_str!("../snapshots/help.txt");
    let settings = backup(&[], &[], "").unwrap();
    for (flag, default) in [
        ("--parallel <N>", settings.parallel.to_string()),
        ("--compression-level <LEVEL>", settings.compression_level.to_string()),
        ("--uploads <N>", settings.uploads.to_string()),
        ("--spool-size <SIZE>", "4GiB".to_owned()),
    ] {
        let line = help.lines().find(|line| line.contains(flag)).unwrap();
        assert!(line.ends_with(&format!("[default: {default}]")), "{line}");
    }
    assert_eq!(settings.spool_size, "4GiB".parse().unwrap());
}

#[test]
fn the_password_comes_from_its_file_or_the_environment() {
    let dir = secrets(&[("password", "hunter2\n", 0o600)]);
    let path = dir.path().join("password");
    let path = path.to_str().unwrap();
    let in_file = format!("[mariadb]\npassword_file = {path:?}");
    let password = |args: &[&str], variables: &[_], file: &str| {
        let settings = backup(args, variables, file)?;
        Ok::<_, SettingsError>(settings.connection.password.map(|secret| secret.reveal().to_owned()))
    };
    let variable = ("HAULOUT_PASSWORD", "swordfish");
    assert_eq!(password(&["--password-file", path], &[variable], "").unwrap().as_deref(), Some("hunter2"));
    assert_eq!(password(&[], &[variable], &in_file).unwrap().as_deref(), Some("swordfish"));
    assert_eq!(password(&[], &[], &in_file).unwrap().as_deref(), Some("hunter2"));
    assert_eq!(password(&[], &[], "").unwrap(), None);
    let both = [variable, ("HAULOUT_PASSWORD_FILE", path)];
    assert!(matches!(password(&[], &both, ""), Err(SettingsError::TwoPasswords { .. })));
}

#[test]
fn no_secret_is_shown_by_any_settings() {
    let dir = secrets(&[("key", "hunter2", 0o600)]);
    let file = format!("[s3]\naccess_key_id = 'AKIA'\nsecret_access_key_file = '{}/key'", dir.path().display());
    let settings = backup(&[], &[("HAULOUT_PASSWORD", "hunter3")], &file).unwrap();
    assert_eq!(settings.store.access_key.as_ref().unwrap().secret.reveal(), "hunter2");
    let shown = format!("{settings:?} {settings:#?}");
    assert!(!shown.contains("hunter"), "{shown}");
}

#[test]
fn half_an_access_key_is_refused() {
    for file in ["access_key_id = 'A'", "secret_access_key_file = '/x'", "session_token_file = '/x'"] {
        let error = backup(&[], &[], &format!("[s3]\n{file}")).unwrap_err();
        assert!(matches!(error, SettingsError::HalfAccessKey { .. }), "{error}");
    }
    assert!(backup(&["--profile", "nightly"], &[], "[s3]\naccess_key_id = 'A'").is_ok(), "a profile by flag wins");
}

#[test]
fn a_secret_file_open_to_everyone_is_told_once() {
    let dir = secrets(&[("password", "hunter2", 0o644)]);
    let layers = layers(&[("HAULOUT_PASSWORD_FILE", dir.path().join("password").to_str().unwrap())], "");
    ConnectionSettings::assemble(&layers, &ConnectionArgs::default()).unwrap();
    assert!(layers.take_warnings()[0].contains("can be read by every user"));
    assert!(layers.take_warnings().is_empty());
}

#[test]
fn a_way_to_the_server_by_flag_is_not_mixed_with_another_from_the_file() {
    let file = "[mariadb]\nsocket = '/s'\ndefaults_extra_file = '/e'\nuser = 'u'";
    let connection = |args: &[&str]| backup(args, &[], file).unwrap().connection;
    let tcp = connection(&["--host", "127.0.0.1", "--defaults-file", "/d"]);
    assert_eq!((tcp.socket, tcp.defaults_extra_file, tcp.user.as_deref()), (None, None, Some("u")));
    assert_eq!(connection(&[]).socket.as_deref(), Some(Path::new("/s")));
    let file = "[mariadb]\nhost = 'db'\nport = 3307";
    let local = backup(&["--socket", "/s"], &[], file).unwrap().connection;
    assert_eq!((local.host, local.port), (None, None));
}

#[test]
fn tools_are_searched_along_path_and_inherit_little() {
    let variables = [("PATH", "/opt/bin:bin:/usr/bin"), ("TZ", "UTC"), ("HAULOUT_PASSWORD", "x"), ("VAULT_TOKEN", "t")];
    let tools = backup(&[], &variables, "").unwrap().tools;
    assert_eq!(tools.search[..2], [PathBuf::from("/opt/bin"), PathBuf::from("/usr/bin")]);
    assert_eq!(tools.environment, [("TZ".into(), "UTC".into())]);
    let tools =
        backup(&["--tool-dir", "/m"], &variables, "[mariadb]\npass_environment = ['VAULT_TOKEN']").unwrap().tools;
    assert_eq!((tools.search.len(), tools.environment.len()), (1, 2));
}

#[test]
fn options_of_the_tool_are_checked_wherever_they_come_from() {
    assert!(backup(&["--", "--no-lock"], &[], "").is_err());
    assert!(backup(&[], &[], "[backup]\ntool_args = ['--no-lock']").is_err());
    assert!(backup(&[], &[], "[mariadb]\ntls = ['--datadir=/x']").is_err());
    let settings = backup(&["--", "--throttle=4"], &[], "[backup]\ntool_args = ['--galera-info']").unwrap();
    assert_eq!(settings.tool_args, ["--throttle=4"]);
}

#[test]
fn the_store_has_as_many_requests_in_flight_as_the_operator_wants() {
    assert_eq!(backup(&["--uploads", "9"], &[], "").unwrap().store.uploads_max, Some(9));
    let layers = layers(&[("HAULOUT_REPO", "s3://b"), ("HAULOUT_CONNECTIONS", "40")], "");
    let read = ReadSettings::assemble(&layers, None, &StoreArgs::default(), None).unwrap();
    assert_eq!((read.store.reads_max, read.connections.get()), (Some(40), 40));
}
