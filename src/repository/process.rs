//! Tells whether a process that took a lease on this machine is still alive.

use std::fs;

/// A process, told from a later one with the same number and from one on another machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessIdentity {
    /// Host name, for people.
    pub host: String,
    /// Random name of the machine's present run, from `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Process id.
    pub pid: u32,
    /// Ticks from boot to the start of the process: field 22 of `/proc/<pid>/stat`.
    pub started: u64,
}

impl ProcessIdentity {
    /// This process.
    pub fn current() -> ProcessIdentity {
        let pid = std::process::id();
        ProcessIdentity {
            host: read("/proc/sys/kernel/hostname"),
            boot: read("/proc/sys/kernel/random/boot_id"),
            pid,
            started: start_of(pid).unwrap_or(0),
        }
    }

    /// True when the process ran on this machine since its last start and is gone.
    pub fn is_known_dead(&self) -> bool {
        let boot = read("/proc/sys/kernel/random/boot_id");
        !boot.is_empty() && boot == self.boot && start_of(self.pid) != Some(self.started)
    }
}

impl std::fmt::Display for ProcessIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command's name in parentheses and may hold blanks and parentheses itself.
    let after_name = stat.rsplit_once(')')?.1;
    // A zombie does nothing any more; where nobody collects it, it would hold its lease for ever.
    if matches!(after_name.split_ascii_whitespace().next(), Some("Z" | "X")) {
        return None;
    }
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_is_known_dead_and_this_one_is_not() {
        assert!(!ProcessIdentity::current().is_known_dead());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let identity = ProcessIdentity { pid: child.id(), started: 1, ..ProcessIdentity::current() };
        child.wait().unwrap();
        assert!(identity.is_known_dead());
    }

    #[test]
    fn a_zombie_is_known_dead() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let started = start_of(child.id()).unwrap();
        let identity = ProcessIdentity { pid: child.id(), started, ..ProcessIdentity::current() };
        assert!(!identity.is_known_dead());
        drop(child.stdin.take());
        while !identity.is_known_dead() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_process_of_another_machine_is_not_known_dead() {
        let identity = ProcessIdentity { boot: "elsewhere".into(), pid: u32::MAX, ..ProcessIdentity::current() };
        assert!(!identity.is_known_dead());
    }
}
