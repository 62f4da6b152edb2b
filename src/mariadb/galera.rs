//! Where a node of a Galera cluster stands: what a prepare tells of it, and the file by which a node knows it again.
//!
//! `mariadb-backup --prepare` writes the cluster's UUID and the number of the last write set of the restored state into a small file,
//! from InnoDB's rollback segment header (MariaDB `extra/mariabackup/wsrep.cc`, `xb_write_galera_info`; nothing where the server was no
//! node): `UUID:SEQNO`, in some versions with the domain of its GTIDs behind a blank. A node reads its position from `grastate.dat` in its
//! datadir (Galera `galera/src/saved_state.cpp`) and asks the cluster for what comes after it.

use std::fmt::Write;

/// Names of the file that a prepare writes, in series up to and after 11.
pub const INFO_NAMES: [&str; 2] = ["xtrabackup_galera_info", "mariadb_backup_galera_info"];
/// Name of the file that a node reads.
pub const STATE_NAME: &str = "grastate.dat";
/// Longest content of the former that is read: a UUID and two numbers.
pub const INFO_BYTES_MAX: u64 = 1024;

/// The state of a cluster that a node holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GaleraState {
    /// The cluster's UUID.
    pub uuid: String,
    /// Number of the last write set.
    pub seqno: u64,
}

impl GaleraState {
    /// Reads what a prepare wrote; nothing where that names no position in a cluster.
    pub fn parse(info: &str) -> Option<GaleraState> {
        let (uuid, rest) = info.trim().split_once(':')?;
        let seqno = rest.split_whitespace().next()?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Vec<&str> = uuid.split('-').collect();
        let lengths = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
        let is_uuid = lengths && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
        // Zeros stand for no cluster.
        let is_some = uuid.bytes().any(|byte| !matches!(byte, b'0' | b'-'));
        let position = (is_uuid && is_some && digits(seqno)).then(|| seqno.parse().ok())?;
        // Galera counts in signed numbers.
        let seqno = position.filter(|seqno| i64::try_from(*seqno).is_ok())?;
        Some(GaleraState { uuid: uuid.to_ascii_lowercase(), seqno })
    }

    /// The first write set that the state lacks.
    pub fn next(&self) -> u64 {
        self.seqno.saturating_add(1)
    }

    /// The file that a node reads. It must not begin a cluster of its own.
    pub fn file(&self) -> String {
        let mut text = "# GALERA saved state\nversion: 2.1\n".to_owned();
        let _ = writeln!(text, "uuid:    {}\nseqno:   {}\nsafe_to_bootstrap: 0", self.uuid, self.seqno);
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "fa90272c-eaaf-11f1-91e9-26ecaaad0201";

    #[test]
    fn what_a_prepare_wrote_is_read_with_and_without_a_domain() {
        let state = GaleraState { uuid: UUID.to_owned(), seqno: 42 };
        for tail in ["", "\n", " 0", " 11\n"] {
            assert_eq!(GaleraState::parse(&format!("{UUID}:42{tail}")), Some(state.clone()), "{tail:?}");
        }
        assert_eq!(GaleraState::parse(&format!("{}:42", UUID.to_uppercase())), Some(state));
    }

    #[test]
    fn what_names_no_position_is_none() {
        let zeros = UUID.replace(|c: char| c != '-', "0");
        for text in [
            String::new(),
            UUID.to_owned(),
            format!("{UUID}:"),
            format!("{UUID}:-1"),
            format!("{UUID}:+4"),
            format!("{UUID}:9223372036854775808"),
            format!("{UUID}x:4"),
            format!("{}:4", UUID.replace('-', "")),
            format!("{}:4", UUID.replace('f', "g")),
            format!("{zeros}:4"),
        ] {
            assert_eq!(GaleraState::parse(&text), None, "{text}");
        }
        assert!(GaleraState::parse(&format!("{UUID}:9223372036854775807")).is_some());
    }

    #[test]
    fn the_file_is_as_galera_writes_it() {
        let state = GaleraState { uuid: UUID.to_owned(), seqno: 42 };
        let expected =
            format!("# GALERA saved state\nversion: 2.1\nuuid:    {UUID}\nseqno:   42\nsafe_to_bootstrap: 0\n");
        assert_eq!((state.file(), state.next()), (expected, 43));
    }

    proptest! {
        #[test]
        fn any_text_is_a_position_or_none(text in "[0-9a-f:-]{0,60} ?[0-9]{0,9}|\\PC{0,80}") {
            if let Some(state) = GaleraState::parse(&text) {
                prop_assert!(text.to_ascii_lowercase().contains(&state.uuid) && i64::try_from(state.seqno).is_ok());
            }
        }
    }
}
