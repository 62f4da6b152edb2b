//! What a person sees on a terminal, which `script` plays.

use std::{
    io::Read,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
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
    let mut running = Command::new("script")
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
    let seen = Arc::new(Mutex::new(Vec::new()));
    let reading = thread::spawn({
        let (seen, mut stdout) = (seen.clone(), running.stdout.take().unwrap());
        move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut part) {
                seen.lock().unwrap().extend_from_slice(&part[..length]);
            }
        }
    });
    let so_far = || String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    let is_bar = |part: &str| part.contains("reading ") && part.contains(" left") && part.contains('━');
    wait::until("a bar while the stream stands still", Duration::from_secs(60), || {
        (tool.has("held") && so_far().split(['\r', '\n']).any(is_bar)).then_some(())
    });
    tool.let_go();
    let status = running.wait().unwrap();
    reading.join().unwrap();
    let seen = so_far();
    assert!(status.success(), "{seen}");
    let bar = seen.rsplit(['\r', '\n']).find(|part| is_bar(part));
    let bar = bar.unwrap_or_else(|| panic!("no bar in {seen:?}"));
    assert!(bar.contains("% ") && bar.contains("iB/s") && bar.contains(" of "), "{bar:?}");
    // What stays is a line for each phase, and the summary.
    let last = seen.rsplit(" left").next().unwrap();
    assert!(last.contains("read 2") && last.contains("LSN "), "{last:?}");
}
