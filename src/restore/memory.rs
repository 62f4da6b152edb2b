//! How much memory a prepare is given.

use std::fs;

/// Given at the least: what is left over makes it faster.
const LEAST_BYTES: u64 = 1 << 30;

/// Recovery keeps records in its buffer pool, and takes a log at once whose records fill some two thirds of it; there is a header to each.
/// A log of 47 MB asked for more than 64 MB and less than 100 MB (seen on 10.11.19).
const POOL_FOR_LOG: u64 = 3;

/// Memory for the prepare of a backup with a redo log of `redo_bytes` bytes: enough to take it at once, if the machine has it.
pub(super) fn for_prepare(redo_bytes: u64) -> u64 {
    let wanted = redo_bytes.saturating_mul(POOL_FOR_LOG).max(LEAST_BYTES);
    match fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(available) {
        // Something must be left for the files' cache, and for others.
        Some(available) => wanted.min((available / 4 * 3).max(LEAST_BYTES)),
        None => LEAST_BYTES,
    }
}

/// Bytes that processes can have before the machine swaps (`proc_meminfo(5)`).
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
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
}
