//! The stock tool between server and haulout, so that its stream can be held at given places and is kept.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::support::{Haulout, MariaDb, Tool, binary::Run, wait};

/// Keeps what the tool says and streams, and holds the stream after as many bytes as each line of the file `gates` says,
/// until the test opens that gate or 20 s have gone.
const SCRIPT: &str = r#"
n=0; until mkdir "$here/run.$n" 2>/dev/null; do n=$((n+1)); done
run="$here/run.$n"; printf '%s\n' "$*" > "$run/arguments"
mkfifo "$run/out" "$run/err"
tee "$run/stderr" < "$run/err" >&2 &
{
  gate=0
  for bytes in $(cat "$here/gates"); do
    head -c "$bytes"; : > "$run/at.$gate"; tries=0
    until [ -e "$run/go.$gate" ] || [ $tries -ge 1000 ]; do sleep 0.02; tries=$((tries+1)); done
    gate=$((gate+1))
  done
  exec cat
} < "$run/out" | tee "$run/stream" &
"$real" "$@" > "$run/out" 2> "$run/err"; code=$?
wait; exit $code"#;

/// Time for a stream to come to where its gate is, once the gate says that it has.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(2);

/// The tool with its gates.
#[derive(Debug)]
pub struct GatedTool {
    tool: Tool,
    kept: PathBuf,
}

/// One run of the tool: what it streamed and said.
#[derive(Debug, Clone)]
pub struct Captured {
    folder: PathBuf,
}

impl Captured {
    pub fn stream(&self) -> PathBuf {
        self.folder.join("stream")
    }

    /// What the tool said, as far as it is text.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("stderr")).unwrap_or_default()).into_owned()
    }
}

/// Where a gate holds the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which run of the tool within the backup, from 0: haulout can try again.
    pub run: usize,
    pub gate: usize,
    /// The stream so far.
    pub stream: PathBuf,
    /// Bytes before the gate.
    place: u64,
}

impl Held {
    /// True when the stream really has come so far, and has not ended before.
    pub fn midway(&self) -> bool {
        arrived(&self.stream, self.place)
    }

    /// Opens what gates are still to come, of `count`: nothing is to be done at them.
    pub fn open_all(&self, count: usize) {
        for gate in self.gate..count {
            open(self.stream.parent().unwrap(), gate);
        }
    }
}

fn open(run: &Path, gate: usize) {
    fs::write(run.join(format!("go.{gate}")), "").unwrap();
}

impl GatedTool {
    /// With what it keeps below `folder`.
    pub fn in_folder(folder: &Path) -> GatedTool {
        let kept = folder.join("streams");
        fs::create_dir(&kept).unwrap();
        GatedTool { tool: Tool::new(SCRIPT), kept }
    }

    /// Takes a backup with `gates` (bytes from one to the next), and calls `act` at each before it is opened. Gives the runs
    /// of the tool, of which the last is that of the backup.
    pub fn backup(
        &self,
        haulout: &Haulout,
        server: &MariaDb,
        more: &[&str],
        gates: &[u64],
        mut act: impl FnMut(Held),
    ) -> (Run, Vec<Captured>) {
        let lines: Vec<_> = gates.iter().map(u64::to_string).collect();
        fs::write(self.tool.folder().join("gates"), lines.join("\n")).unwrap();
        let flag = self.tool.flag();
        let mut running = haulout.spawn_backup(server, &[&[flag.as_str()], more].concat());
        let (mut run, mut gate) = (0, 0);
        while !running.ended() {
            let look = || {
                let next = self.run_folder(run + 1);
                let here = self.run_folder(run).filter(|folder| folder.join(format!("at.{gate}")).exists());
                here.map(|folder| (run, folder)).or(next.map(|folder| (run + 1, folder)))
            };
            match wait::try_until(Duration::from_millis(100), look) {
                Some((number, _)) if number > run => (run, gate) = (number, 0),
                Some((_, folder)) => {
                    let place: u64 = gates[..=gate].iter().sum();
                    let stream = folder.join("stream");
                    act(Held { run, gate, place, stream });
                    open(&folder, gate);
                    gate += 1;
                }
                None => {}
            }
        }
        let run = running.wait();
        let runs: Vec<_> = (0..).map_while(|run| self.run_folder(run)).collect();
        (run, runs.iter().map(|folder| self.keep(folder)).collect())
    }

    fn run_folder(&self, run: usize) -> Option<PathBuf> {
        Some(self.tool.folder().join(format!("run.{run}"))).filter(|folder| folder.exists())
    }

    /// Puts a run aside, so that the next backup's begin anew.
    fn keep(&self, folder: &Path) -> Captured {
        let number = fs::read_dir(&self.kept).unwrap().count();
        let kept = self.kept.join(number.to_string());
        fs::rename(folder, &kept).unwrap();
        Captured { folder: kept }
    }
}

fn arrived(stream: &Path, bytes: u64) -> bool {
    let there = || (fs::metadata(stream).map_or(0, |found| found.len()) >= bytes).then_some(());
    wait::try_until(ARRIVAL_LIMIT, there).is_some()
}
