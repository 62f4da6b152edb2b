use std::path::PathBuf;

use super::{output::tests::sheets, *};

/// Runs `haulout args…` with these variables; exit code, stdout, stderr.
fn haulout(args: &[&str], variables: &[(&str, &str)]) -> (u8, String, String) {
    let cli = Cli::try_parse_from([&["haulout"], args].concat()).unwrap();
    let options = OutputOptions { json: cli.global.json, quiet: cli.global.quiet, ..OutputOptions::default() };
    let (output, out, err) = sheets(options);
    let code = execute(&cli, Environment::of_variables(variables), &Arc::new(output));
    (code, out.text(), err.text())
}

#[test]
fn a_command_without_a_repository_is_a_usage_error_with_a_hint() {
    for command in ["init", "backup", "list", "show", "check", "doctor"] {
        let (code, out, err) = haulout(&[command], &[]);
        assert_eq!((code, out.as_str()), (2, ""), "{command}");
        assert!(err.contains("no repository is named") && err.contains("hint: give --repo URL"), "{err}");
    }
}

#[test]
fn json_tells_errors_on_stdout_with_the_exit_code() {
    let (code, out, err) = haulout(&["--json", "list"], &[]);
    let line: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, err.as_str()), (2, ""));
    assert_eq!((&line["message_type"], &line["code"], &line["kind"]), (&"error".into(), &2.into(), &"usage".into()));
}

#[test]
fn a_password_argument_is_refused_and_not_repeated() {
    for args in [&["--password=hunter2"][..], &["--password", "hunter2"], &["-phunter2"], &["-p"]] {
        let args: Vec<OsString> = ["haulout", "backup"].iter().chain(args).map(OsString::from).collect();
        let Err(Refusal::Ours(failure)) = parse(&args) else { panic!("{args:?}") };
        let text = failure.text(str::to_owned);
        assert!(text.contains("--password-file") && !text.contains("hunter2"), "{text}");
        assert_eq!(failure.kind.exit_code(), 2);
    }
    let (code, out, err) = haulout(&["backup", "--repo", "file:///x", "--", "-phunter2"], &[]);
    assert_eq!(code, 2);
    assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{err}");
    assert!(
        parse(&["haulout".into(), "list".into(), "--password-file=x".into()])
            .is_err_and(|refusal| matches!(refusal, Refusal::Clap(_)))
    );
    assert!(parse(&["haulout".into(), "backup".into(), "--password-file=x".into()]).is_ok());
}

#[test]
fn a_passphrase_argument_is_refused_and_not_repeated() {
    for args in [&["--passphrase=hunter2"][..], &["--passphrase", "hunter2"]] {
        let args: Vec<OsString> = ["haulout", "list"].iter().chain(args).map(OsString::from).collect();
        let Err(Refusal::Ours(failure)) = parse(&args) else { panic!("{args:?}") };
        let text = failure.text(str::to_owned);
        assert!(text.contains("--passphrase-file") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_settings_file_that_is_wrong_is_a_usage_error_whatever_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("haulout.toml");
    std::fs::write(&path, "[restore]\nuse_memroy = '1G'\n").unwrap();
    let path = path.to_str().unwrap();
    let (code, _, err) = haulout(&["list"], &[("HAULOUT_CONFIG", path), ("HAULOUT_REPO", "file:///x")]);
    assert_eq!(code, 2);
    assert!(err.contains("haulout.toml:2: unknown key `use_memroy`") && err.contains("`use_memory`"), "{err}");
}

#[test]
fn a_settings_file_that_is_named_must_exist() {
    let (code, _, err) = haulout(&["list", "--config", "/nowhere/haulout.toml"], &[]);
    assert_eq!(code, 2);
    assert!(err.contains("/nowhere/haulout.toml") && err.contains("caused by"), "{err}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, err) = haulout(&["completions", shell], &[]);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("move-back"), "{shell}");
        assert!(!out.replace("--password-file", "").contains("--password"), "{shell}");
    }
}

#[test]
fn man_writes_into_a_directory_or_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("man1");
    assert_eq!(haulout(&["man", "--out", out.to_str().unwrap()], &[]).0, 0);
    assert!(out.join("haulout-restore.1").exists());
    let file: PathBuf = out.join("haulout.1");
    let (code, _, err) = haulout(&["man", "--out", file.to_str().unwrap()], &[]);
    assert_eq!(code, 1);
    assert!(err.contains("cannot write the manual pages into"), "{err}");
}

#[test]
fn clap_errors_become_one_json_line() {
    let error = Cli::try_parse_from(["haulout", "--json", "backup", "--fulll"]).unwrap_err();
    let failure = usage_failure(&error);
    assert_eq!(failure.message, "unexpected argument '--fulll' found");
    assert_eq!(failure.hint.unwrap(), "a similar argument exists: '--full'");
    let error = Cli::try_parse_from(["haulout", "restore"]).unwrap_err();
    assert!(usage_failure(&error).message.contains("--datadir <DIR>"));
}
