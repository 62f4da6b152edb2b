//! All decisions of a run, made from its seed before it begins.

use crate::support::{ServerOptions, random::Random};

/// What becomes of the server before a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Nothing,
    /// A table's file is replaced by another's, without an LSN that tells.
    Import,
    /// A transaction fills an undo tablespace so that it is truncated.
    Undo,
    Restart,
    Crash,
    /// All pages are written and the checkpoint moves up.
    Checkpoint,
}

/// One backup.
#[derive(Debug, Clone)]
pub struct Planned {
    pub before: Before,
    pub full: bool,
    /// Bytes of the stream from one gate to the next, as thousandths of the length of the last stream of the kind.
    pub gates: Vec<u64>,
    /// Whether there is DDL on tables of other engines than InnoDB during the backup.
    pub plain: bool,
    /// Whether a log file of Aria's is filled at the first gate.
    pub aria_log: bool,
    /// Whether a table is imported at the first gate.
    pub import: bool,
    /// Seed of what is done at the gates.
    pub seed: u64,
    /// Restored by `restore`, or by `fetch` and `prepare`.
    pub in_one: bool,
}

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub page_size: &'static str,
    pub undo_tablespaces: u64,
    pub checksums: &'static str,
    pub backups: Vec<Planned>,
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let mut random = Random::new(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let page_size = ["16K", "16K", "16K", "16K", "8K", "4K"][random.below(6) as usize];
        let checksums = ["full_crc32", "full_crc32", "crc32"][random.below(3) as usize];
        let undo_tablespaces = [3, 2, 3, 0][random.below(4) as usize];
        let count = 4 + random.below(3);
        let backups = (0..count).map(|number| planned(&mut random, number)).collect();
        Plan { page_size, undo_tablespaces, checksums, backups }
    }

    /// Options of every server of this run.
    pub fn options(&self) -> ServerOptions {
        ServerOptions::new()
            .install_argument(format!("--innodb-page-size={}", self.page_size))
            .install_argument(format!("--innodb-undo-tablespaces={}", self.undo_tablespaces))
            .install_argument(format!("--innodb-checksum-algorithm={}", self.checksums))
            .argument("--event-scheduler=OFF")
            .argument("--innodb-stats-auto-recalc=OFF")
            .argument("--lower-case-table-names=0")
    }
}

fn planned(random: &mut Random, number: u64) -> Planned {
    let before = match random.below(10) {
        0 => Before::Import,
        1 | 2 => Before::Undo,
        3 => Before::Restart,
        4 => Before::Crash,
        5 | 6 => Before::Checkpoint,
        _ => Before::Nothing,
    };
    let gates = (0..1 + random.below(4)).map(|_| random.below(500)).collect();
    let (full, import) = (number > 0 && random.below(7) == 0, random.below(9) == 0);
    let (plain, aria_log) = (random.below(3) == 0, random.below(2) == 0);
    Planned { before, full, gates, plain, aria_log, import, seed: random.next(), in_one: random.below(3) == 0 }
}
