//! What a person sees on a terminal, which `script` plays.

use std::{
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::support::{Site, Tool, wait};

#[test]
fn a_terminal_sees_bars_with_rate_and_time_left_which_go_away() {
    let site = Site::new();
    let tool = Tool::held(12_000_000);
    let repository = format!("file://{}", site.repository().display());
    let words = [&[env!("CARGO_BIN_EXE_haulout"), "--repo", &repository, "backup"][..]].concat();
    let mut line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>();
    line.extend(site.server.flags().iter().map(|flag| format!("'{flag}'")));
    line.push(format!("'{}'", tool.flag()));
    let running = Command::new("script")
        .args([
            "--quiet",
            "--return",
            "--flush",
            "--command",
            &format!("stty cols 100; {}", line.join(" ")),
            "/dev/null",
        ])
        .envs([("TERM", "xterm"), ("LC_ALL", "C.UTF-8"), ("HOME", site.folder().to_str().unwrap())])
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script can be run");
    wait::until("the stream to stand still", Duration::from_secs(60), || tool.has("held").then_some(()));
    // Bars are drawn four times a second.
    thread::sleep(Duration::from_millis(1500));
    tool.let_go();
    let output = running.wait_with_output().unwrap();
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{seen}");
    let bar = seen.rsplit(['\r', '\n']).find(|part| part.contains("reading ") && part.contains(" left"));
    let bar = bar.unwrap_or_else(|| panic!("no bar in {seen:?}"));
    assert!(bar.contains('━') && bar.contains("% ") && bar.contains("iB/s") && bar.contains(" of "), "{bar:?}");
    // What stays is a line for each phase, and the summary.
    let last = seen.rsplit(" left").next().unwrap();
    assert!(last.contains("read 2") && last.contains("LSN "), "{last:?}");
}
