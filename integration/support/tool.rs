//! Stand-ins for `mariadb-backup`: shell scripts around the real one, which go wrong as they are told.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{MariaDb, scratch};

/// A script in place of `mariadb-backup`.
#[derive(Debug)]
pub struct Tool {
    folder: TempDir,
}

impl Tool {
    /// A script that runs `body` when a backup is wanted, and is the real tool for all else. In it `"$real" "$@"` is the
    /// real tool with its arguments, and `$here` a folder that the test sees as [`Tool::folder`].
    pub fn new(body: &str) -> Tool {
        Tool::script(&format!("case \"$*\" in *--version*) exec \"$real\" \"$@\";; esac\n{body}"))
    }

    /// A script that tells `version` as its own, and is the real tool for all else.
    pub fn of_version(version: &str) -> Tool {
        let told = format!("mariadb-backup based on MariaDB server {version} debian-linux-gnu (x86_64)");
        Tool::script(&format!("case \"$*\" in *--version*) echo '{told}'; exit;; esac\nexec \"$real\" \"$@\""))
    }

    fn script(body: &str) -> Tool {
        let folder = scratch();
        let (real, here) = (real("mariadb-backup"), folder.path().display());
        let script = format!("#!/bin/sh\nreal={}\nhere={here}\n{body}\n", real.display());
        // A shell does the writing: a descriptor of ours could live on in a child that another test starts just then, and
        // the script would be "text file busy".
        let write = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let path = folder.path().join("mariadb-backup");
        let done = Command::new("/bin/sh").args(["-c", write, "sh"]).arg(path).arg(script).status().unwrap();
        assert!(done.success());
        Tool { folder }
    }

    /// The real tool, held up in its first backup after `bytes` bytes of the stream until the test lets it go on: the tool
    /// then waits at its next write, and so has hardly read more.
    pub fn held(bytes: u64) -> Tool {
        Tool::new(&format!(
            "[ ! -e \"$here/held\" ] || exec \"$real\" \"$@\"
             mkfifo \"$here/pipe\"
             \"$real\" \"$@\" > \"$here/pipe\" & tool=$!
             {{ head -c {bytes}; : > \"$here/held\"; until [ -e \"$here/on\" ]; do read -r nothing < \"$here/pulse\"; done
                cat; }} < \"$here/pipe\"
             wait $tool"
        ))
        .with_pulse()
    }

    /// The real tool, held up in its first backup when all is done, and before the last of its bytes get through.
    pub fn held_at_the_end() -> Tool {
        Tool::new(
            "[ ! -e \"$here/held\" ] || exec \"$real\" \"$@\"
             \"$real\" \"$@\" > \"$here/stream\" || exit
             : > \"$here/held\"
             until [ -e \"$here/on\" ]; do read -r nothing < \"$here/pulse\"; done
             cat \"$here/stream\"",
        )
        .with_pulse()
    }

    /// Makes the pipe from which a held tool reads that it may go on.
    pub fn with_pulse(self) -> Tool {
        let done = Command::new("mkfifo").arg(self.folder.path().join("pulse")).status().unwrap();
        assert!(done.success());
        self
    }

    /// Lets a held tool go on.
    pub fn let_go(&self) {
        fs::write(self.folder.path().join("on"), "").unwrap();
        fs::write(self.folder.path().join("pulse"), "on\n").unwrap();
    }

    /// The flag that makes haulout use the script.
    pub fn flag(&self) -> String {
        format!("--mariadb-backup={}", self.folder.path().join("mariadb-backup").display())
    }

    /// The folder `$here`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// True when the script has made `name` in its folder.
    pub fn has(&self, name: &str) -> bool {
        self.folder.path().join(name).exists()
    }
}

/// The real tool `name`.
pub fn real(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed"))
}

/// A backup that the real tool took, to be played to haulout in place of a tool.
#[derive(Debug, Clone)]
pub struct Recording {
    pub stream: Vec<u8>,
    stderr: Vec<u8>,
}

impl Recording {
    /// Records a full backup of `server`.
    pub fn of(server: &MariaDb) -> Recording {
        let target = scratch();
        let mut command = Command::new(real("mariadb-backup"));
        command.args(["--no-defaults", "--backup", "--stream=xbstream"]).args(server.flags());
        let output = command.arg(format!("--target-dir={}", target.path().display())).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Recording { stream: output.stdout, stderr: output.stderr }
    }

    /// The same with another stream.
    pub fn with(&self, stream: Vec<u8>) -> Recording {
        Recording { stream, stderr: self.stderr.clone() }
    }

    /// A tool that plays the recording.
    pub fn tool(&self) -> Tool {
        let tool = Tool::new("cat \"$here/stderr\" >&2; exec cat \"$here/stream\"");
        fs::write(tool.folder().join("stream"), &self.stream).unwrap();
        fs::write(tool.folder().join("stderr"), &self.stderr).unwrap();
        tool
    }

    /// Path of the tool's own file `name` in the stream.
    pub fn control(&self, name: &str) -> String {
        control(&self.stream, name)
    }

    /// The same with the tool's own files under the other of the two names that they have: `xtrabackup_info`, and from
    /// MariaDB 11 on `mariadb_backup_info`.
    pub fn with_other_names(&self) -> Recording {
        let mut stream = Vec::with_capacity(self.stream.len());
        for chunk in self.chunks() {
            let (head, path) = (chunk.start, chunk.start + CHUNK_HEAD);
            let other = match (chunk.path.strip_prefix("xtrabackup_"), chunk.path.strip_prefix("mariadb_backup_")) {
                (Some(name), _) => format!("mariadb_backup_{name}"),
                (_, Some(name)) => format!("xtrabackup_{name}"),
                _ => chunk.path.clone(),
            };
            stream.extend(&self.stream[head..head + 10]);
            stream.extend(u32::try_from(other.len()).unwrap().to_le_bytes());
            stream.extend(other.as_bytes());
            stream.extend(&self.stream[path + chunk.path.len()..chunk.end]);
        }
        self.with(stream)
    }

    /// The chunks of the stream.
    pub fn chunks(&self) -> Vec<Chunk> {
        chunks(&self.stream)
    }
}

/// One chunk of an xbstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub start: usize,
    pub end: usize,
    pub kind: u8,
    pub path: String,
    /// Where its payload lies; empty for kinds without one.
    pub payload: std::ops::Range<usize>,
}

/// Bytes of a chunk before its path: magic, flags, kind, length of the path.
pub const CHUNK_HEAD: usize = 14;

/// Chunks of a stream of payloads and ends, which is all that a quiet server gives.
pub fn chunks(stream: &[u8]) -> Vec<Chunk> {
    let number = |at: usize, bytes: usize| -> usize {
        stream[at..at + bytes].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let mut chunks = Vec::new();
    let mut start = 0;
    while start < stream.len() {
        assert_eq!(&stream[start..start + 8], b"XBSTCK01", "at byte {start}");
        let (kind, after_path) = (stream[start + 9], start + CHUNK_HEAD + number(start + 10, 4));
        let path = String::from_utf8(stream[start + CHUNK_HEAD..after_path].to_vec()).unwrap();
        let payload = match kind {
            b'P' => {
                let first = after_path + 20;
                first..first + number(after_path, 8)
            }
            b'S' => after_path + 8..after_path + 8,
            b'E' => after_path..after_path,
            other => panic!("chunk of kind {:?} for {path}", char::from(other)),
        };
        chunks.push(Chunk { start, end: payload.end, kind, path, payload: payload.clone() });
        start = payload.end;
    }
    chunks
}

/// Bytes of file `path` of a stream whose files have no seeks.
pub fn file(stream: &[u8], path: &str) -> Vec<u8> {
    let parts = chunks(stream).into_iter().filter(|chunk| chunk.path == path).map(|chunk| chunk.payload);
    parts.flat_map(|payload| stream[payload].to_vec()).collect()
}

/// Path of the tool's own file `name` (`info`, `checkpoints`) in a stream.
pub fn control(stream: &[u8], name: &str) -> String {
    let names = [format!("xtrabackup_{name}"), format!("mariadb_backup_{name}")];
    let found = chunks(stream).into_iter().map(|chunk| chunk.path).find(|path| names.contains(path));
    found.unwrap_or_else(|| panic!("no {} in the stream", names.join(" and no ")))
}

/// Writes the right checksum into a chunk whose payload was changed.
pub fn reseal(stream: &mut [u8], chunk: &Chunk) {
    let sum = crc32fast::hash(&stream[chunk.payload.clone()]);
    stream[chunk.payload.start - 4..chunk.payload.start].copy_from_slice(&sum.to_le_bytes());
}
