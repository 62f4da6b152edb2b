//! `proofs/…`: how a drill of a backup ended.

use serde::{Deserialize, Serialize};

use super::{Document, FormatError};
use crate::model::{BackupId, ProofId, RepositoryId, Timestamp};

/// Most failures, and most warnings, that a proof names; whoever has more looks at the machine.
pub const PROOF_LINES_MAX: usize = 100;
/// Most assertions of a drill.
pub const ASSERTIONS_MAX: usize = 500;
/// Longest text in a proof, in bytes: JSON may write six for each, and base64 a third more, and the document is still one that is read.
pub const PROOF_TEXT_BYTES_MAX: usize = 1024;

/// What a restore that was carried out on a scratch server has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The repository.
    pub repository_id: RepositoryId,
    /// Name of the proof, as in its key.
    pub id: ProofId,
    /// The backup, as in the key.
    pub backup: BackupId,
    /// When the drill began.
    pub started: Timestamp,
    /// When its server had been shut down.
    pub finished: Timestamp,
    /// True when nothing failed.
    pub passed: bool,
    /// What failed, for people.
    pub failures: Vec<String>,
    /// Failures beyond [`PROOF_LINES_MAX`], which are not named.
    #[serde(default)]
    pub more_failures: u64,
    /// What was odd, for people.
    pub warnings: Vec<String>,
    /// Program that carried the drill out.
    pub haulout_version: String,
    /// `mariadb-backup` that prepared the files.
    pub tool_version: String,
    /// `mariadbd` that was to be started on them.
    pub server_version: String,
    /// Name of the machine.
    pub host: String,
    /// Bytes of packs that were fetched.
    pub fetched_bytes: u64,
    /// Bytes that were written into files.
    pub written_bytes: u64,
    /// How long each phase took.
    pub took: ProofTimes,
    /// Tables.
    pub tables: ProofTables,
    /// Tablespace files of tables.
    pub spaces: ProofSpaces,
    /// By what tables were chosen to be checked; absent when all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<ProofSample>,
    /// What the operator wanted to be true.
    pub assertions: Vec<ProofAssertion>,
}

/// How long each phase of a drill took, in milliseconds; 0 for what it did not come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofTimes {
    /// Reading the page map and looking at the place.
    pub plan_ms: u64,
    /// Fetching the files.
    pub fetch_ms: u64,
    /// Preparing them.
    pub prepare_ms: u64,
    /// From the start of the server to its first answer.
    pub start_ms: u64,
    /// CHECK TABLE, and the comparison of what is there.
    pub check_ms: u64,
    /// Assertions.
    pub assert_ms: u64,
    /// Shutting the server down.
    pub stop_ms: u64,
}

impl ProofTimes {
    /// The measured time to recover: until the restored server answered.
    pub fn rto_ms(&self) -> u64 {
        [self.plan_ms, self.fetch_ms, self.prepare_ms, self.start_ms].into_iter().fold(0, u64::saturating_add)
    }
}

/// Numbers of tables; zeros where the server did not start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofTables {
    /// Definitions in the backup: tables, sequences and views.
    pub expected: u64,
    /// Those that the server shows.
    pub found: u64,
    /// Views among those found, which are not checked.
    pub views: u64,
    /// Tables that were checked.
    pub checked: u64,
    /// Tables in which the check found damage.
    pub damaged: u64,
    /// Tables that were not checked.
    pub left_out: u64,
}

/// Numbers of tablespace files of tables, partitions and FULLTEXT indexes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofSpaces {
    /// Those in the backup.
    pub expected: u64,
    /// Those of them that the server's dictionary knows.
    pub found: u64,
}

/// By what tables were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofSample {
    /// Shuffles the tables.
    pub seed: u32,
    /// For how long tables were to be checked.
    pub seconds: u64,
}

/// A statement that was to return one true value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofAssertion {
    /// The statement, or its beginning.
    pub statement: String,
    /// True when it did.
    pub passed: bool,
    /// What came back, for people.
    pub found: String,
}

impl Proof {
    fn problem(&self) -> Option<&'static str> {
        let ProofTables { found, views, checked, damaged, left_out, .. } = self.tables;
        let accounted = [views, checked, left_out].into_iter().try_fold(0_u64, u64::checked_add);
        let texts = self.failures.iter().chain(&self.warnings);
        let texts = texts.chain(self.assertions.iter().flat_map(|assertion| [&assertion.statement, &assertion.found]));
        match () {
            () if self.passed != (self.failures.is_empty() && self.more_failures == 0) => {
                Some("it says that it passed and names failures, or the other way round")
            }
            () if self.finished < self.started => Some("it ends before it begins"),
            () if self.failures.len() > PROOF_LINES_MAX || self.warnings.len() > PROOF_LINES_MAX => {
                Some("it names too many failures or warnings")
            }
            () if self.assertions.len() > ASSERTIONS_MAX => Some("it has too many assertions"),
            () if texts.into_iter().any(|text| text.len() > PROOF_TEXT_BYTES_MAX) => {
                Some("it has a text that is too long")
            }
            () if accounted != Some(found) || damaged > checked => Some("its numbers of tables cannot be"),
            () if self.spaces.found > self.spaces.expected => Some("its numbers of tablespaces cannot be"),
            () if self.passed && (damaged > 0 || self.assertions.iter().any(|assertion| !assertion.passed)) => {
                Some("it says that it passed, and something did not")
            }
            () if self.passed && (checked == 0 || (left_out > 0 && self.sample.is_none())) => {
                Some("it says that it passed, and tables were not checked")
            }
            () => None,
        }
    }
}

impl Document for Proof {
    const WORD: &'static str = "proof";

    fn check(&self) -> Result<(), FormatError> {
        let Some(problem) = self.problem() else { return Ok(()) };
        Err(FormatError::Document { what: format!("proof {}", self.id), problem: problem.to_owned() })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::format::{DOCUMENT_BYTES_MAX, decode_document, encode_document};

    /// The proof that FORMAT.md shows.
    pub(crate) fn example() -> Proof {
        let moment = |text: &str| Timestamp(text.parse().unwrap());
        Proof {
            repository_id: RepositoryId([0x5a; 16]),
            id: "20261122T053000Z-7c01d2".parse().unwrap(),
            backup: "20261122T020000Z-3f9a16".parse().unwrap(),
            started: moment("2026-11-22T05:30:00Z"),
            finished: moment("2026-11-22T05:43:20Z"),
            passed: false,
            failures: vec!["assertion `SELECT COUNT(*) > 0 FROM shop.orders` came back with 0".to_owned()],
            more_failures: 0,
            warnings: Vec::new(),
            haulout_version: "0.1.0".to_owned(),
            tool_version: "10.11.19-MariaDB".to_owned(),
            server_version: "10.11.19-MariaDB".to_owned(),
            host: "drill1.example.com".to_owned(),
            fetched_bytes: 33_500_000_000,
            written_bytes: 120_000_000_000,
            took: ProofTimes {
                plan_ms: 1_200,
                fetch_ms: 290_100,
                prepare_ms: 21_900,
                start_ms: 1_800,
                check_ms: 480_000,
                assert_ms: 40,
                stop_ms: 1_100,
            },
            tables: ProofTables { expected: 900, found: 900, views: 12, checked: 700, damaged: 0, left_out: 188 },
            spaces: ProofSpaces { expected: 812, found: 812 },
            sample: Some(ProofSample { seed: 4_711, seconds: 480 }),
            assertions: vec![ProofAssertion {
                statement: "SELECT COUNT(*) > 0 FROM shop.orders".to_owned(),
                passed: false,
                found: "0".to_owned(),
            }],
        }
    }

    /// The same with nothing to complain of.
    pub(crate) fn passing() -> Proof {
        let mut proof = example();
        (proof.passed, proof.failures) = (true, Vec::new());
        (proof.assertions[0].passed, proof.assertions[0].found) = (true, "1".to_owned());
        proof
    }

    #[test]
    fn the_proof_of_the_specification_is_what_is_written() {
        let written = String::from_utf8(encode_document(&example()).unwrap()).unwrap();
        assert!(include_str!("FORMAT.md").contains(&format!("\n{written}```\n")), "FORMAT.md lacks\n{written}");
        assert_eq!(decode_document::<Proof>("proof", written.as_bytes()).unwrap(), example());
        let passed = encode_document(&passing()).unwrap();
        assert_eq!(decode_document::<Proof>("proof", &passed).unwrap(), passing());
    }

    #[test]
    fn a_proof_that_contradicts_itself_is_refused() {
        let change = |change: fn(&mut Proof)| {
            let mut proof = passing();
            change(&mut proof);
            decode_document::<Proof>("proof", &encode_document(&proof).unwrap()).is_ok()
        };
        assert!(change(|_| ()));
        assert!(change(|proof| (proof.passed, proof.more_failures) = (false, 1)));
        for broken in [
            |proof: &mut Proof| proof.passed = false,
            |proof: &mut Proof| proof.failures.push("something".to_owned()),
            |proof: &mut Proof| proof.more_failures = 1,
            |proof: &mut Proof| std::mem::swap(&mut proof.started, &mut proof.finished),
            |proof: &mut Proof| proof.assertions[0].passed = false,
            |proof: &mut Proof| proof.tables.damaged = 1,
            |proof: &mut Proof| proof.tables.found += 1,
            |proof: &mut Proof| (proof.tables.views, proof.tables.checked) = (u64::MAX, u64::MAX),
            |proof: &mut Proof| proof.spaces.found = 813,
            |proof: &mut Proof| proof.sample = None,
            |proof: &mut Proof| (proof.tables.checked, proof.tables.left_out) = (0, 888),
            |proof: &mut Proof| proof.warnings = vec![String::new(); PROOF_LINES_MAX + 1],
            |proof: &mut Proof| proof.warnings = vec!["x".repeat(PROOF_TEXT_BYTES_MAX + 1)],
            |proof: &mut Proof| proof.assertions = vec![proof.assertions[0].clone(); ASSERTIONS_MAX + 1],
        ] {
            assert!(!change(broken));
        }
    }

    #[test]
    fn the_longest_proof_is_a_document() {
        let mut proof = passing();
        // Of characters that JSON writes as six.
        let text = "\u{1}".repeat(PROOF_TEXT_BYTES_MAX);
        proof.warnings = vec![text.clone(); PROOF_LINES_MAX];
        proof.assertions =
            vec![ProofAssertion { statement: text.clone(), passed: true, found: text.clone() }; ASSERTIONS_MAX];
        let bytes = encode_document(&proof).unwrap();
        assert!(bytes.len() as u64 <= DOCUMENT_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(decode_document::<Proof>("proof", &bytes).unwrap(), proof);
    }

    #[test]
    fn the_time_to_recover_ends_when_the_server_answers() {
        assert_eq!(example().took.rto_ms(), 315_000);
        assert_eq!(ProofTimes { plan_ms: u64::MAX, fetch_ms: 1, ..ProofTimes::default() }.rto_ms(), u64::MAX);
    }
}
