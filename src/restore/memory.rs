//! How much memory a prepare is given.

use std::{fs, path::Path};

/// Given at the least: what is left over makes it faster.
const LEAST_BYTES: u64 = 1 << 30;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Recovery keeps records in its buffer pool, and takes a log at once whose records fill some two thirds of it; there is a header to each.
/// A log of 47 MB asked for more than 64 MB and less than 100 MB (seen on 10.11.19).
const POOL_FOR_LOG: u64 = 3;

/// Memory with which recovery takes a redo log of `redo_bytes` bytes at once.
pub(super) fn to_take_at_once(redo_bytes: u64) -> u64 {
    redo_bytes.saturating_mul(POOL_FOR_LOG)
}

/// Memory for the prepare of a backup with a redo log of `redo_bytes` bytes: enough to take it at once, if the machine has it.
pub(super) fn for_prepare(redo_bytes: u64) -> u64 {
    let wanted = to_take_at_once(redo_bytes).max(LEAST_BYTES);
    let machine = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(available);
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|own| left_in_group(&own, Path::new(CGROUPS)));
    match machine {
        // Something must be left for the files' cache, and for others.
        Some(bytes) => wanted.min((bytes.min(group.unwrap_or(u64::MAX)) / 4 * 3).max(LEAST_BYTES)),
        None => LEAST_BYTES,
    }
}

/// Bytes that processes can have before the machine swaps (`proc_meminfo(5)`).
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes that are left below the limit of a container or service, the least of this process's control groups; none where nothing
/// is limited, or groups are of version 1.
///
/// Source: `cgroups(7)`, and the kernel's `admin-guide/cgroup-v2.rst`. The files' cache counts as used, although it gives way.
fn left_in_group(own: &str, groups: &Path) -> Option<u64> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let number = |folder: &Path, name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let folder = groups.join(path);
    let own_and_above = folder.ancestors().take_while(|folder| folder.starts_with(groups));
    own_and_above
        .filter_map(|folder| {
            let cached = fs::read_to_string(folder.join("memory.stat")).ok().as_deref().and_then(file_cache);
            let used = number(folder, "memory.current")?.saturating_sub(cached.unwrap_or(0));
            Some(number(folder, "memory.max")?.saturating_sub(used))
        })
        .min()
}

/// Bytes of files that nobody has written or needed lately.
fn file_cache(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_gets_more_memory_than_a_short_one() {
        assert_eq!(for_prepare(0), LEAST_BYTES);
        assert_eq!(for_prepare(100 << 20), LEAST_BYTES);
        let available = available(&fs::read_to_string("/proc/meminfo").unwrap()).unwrap();
        assert!(available > 1 << 20 && for_prepare(u64::MAX) <= available.max(LEAST_BYTES));
    }

    #[test]
    fn what_is_available_is_read_in_bytes() {
        assert_eq!(available("MemTotal:  9 kB\nMemAvailable:      12 kB\nBuffers: 1 kB\n"), Some(12288));
        assert_eq!(available("MemTotal:  9 kB\n"), None);
        assert_eq!(available("MemAvailable: many kB\n"), None);
    }
    #[test]
    fn the_least_that_a_control_group_leaves_counts() {
        let groups = tempfile::tempdir().unwrap();
        let own = "0::/pod/inner\n";
        assert_eq!(left_in_group(own, groups.path()), None);
        let inner = groups.path().join("pod/inner");
        fs::create_dir_all(&inner).unwrap();
        let write = |folder: &Path, most: &str, used: &str, stat: &str| {
            for (name, text) in [("memory.max", most), ("memory.current", used), ("memory.stat", stat)] {
                fs::write(folder.join(name), text).unwrap();
            }
        };
        write(&inner, "max\n", "70\n", "anon 9\n");
        assert_eq!(left_in_group(own, groups.path()), None, "no limit");
        write(&groups.path().join("pod"), "1000\n", "700\n", "anon 9\ninactive_file 500\nactive_file 1\n");
        assert_eq!(left_in_group(own, groups.path()), Some(800));
        write(&inner, "100\n", "170\n", "anon 9\n");
        assert_eq!(left_in_group(own, groups.path()), Some(0));
        assert_eq!(left_in_group("4:memory:/pod\n", groups.path()), None, "version 1");
        assert_eq!(left_in_group("0::/\n", &groups.path().join("pod")), Some(800), "of a container's own view");
    }
}
