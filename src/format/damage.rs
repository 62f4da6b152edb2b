//! `damage/…`: packs that a check found damaged, so that no later backup rests on them.

use serde::{Deserialize, Serialize};

use super::{Document, FormatError};
use crate::model::{BackupId, PackId, RepositoryId, Timestamp};

/// Most packs that a document names: 67 bytes each, so that it stays below [`super::DOCUMENT_BYTES_MAX`]. They stand for
/// 3 TiB of packs that are lost; who has lost more names the rest after the next full backup.
pub const DAMAGED_PACKS_MAX: usize = 200_000;

/// All packs that are known to be damaged; the newest document that can be read counts, and none before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageList {
    /// The repository.
    pub repository_id: RepositoryId,
    /// Name of the document, as in its key; built like that of a backup.
    pub id: BackupId,
    /// When it was written.
    pub written: Timestamp,
    /// Program that wrote it.
    pub haulout_version: String,
    /// The packs, ascending.
    pub packs: Vec<PackId>,
    /// Damaged packs beyond [`DAMAGED_PACKS_MAX`], which are not named.
    #[serde(default)]
    pub more: u64,
}

impl Document for DamageList {
    const WORD: &'static str = "damage";

    fn check(&self) -> Result<(), FormatError> {
        let problem = if self.packs.len() > DAMAGED_PACKS_MAX {
            format!("it names {} packs, at most {DAMAGED_PACKS_MAX} can be", self.packs.len())
        } else if !self.packs.is_sorted_by(|one, other| one < other) {
            "its packs do not ascend".to_owned()
        } else {
            return Ok(());
        };
        Err(FormatError::Document { what: format!("damage/{}.json", self.id), problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{DOCUMENT_BYTES_MAX, decode_document, encode_document};

    fn list(packs: Vec<PackId>) -> DamageList {
        DamageList {
            repository_id: RepositoryId([7; 16]),
            id: "20261122T170445Z-3f9a1c".parse().unwrap(),
            written: Timestamp("2026-11-22T17:04:45Z".parse().unwrap()),
            haulout_version: "0.1.0".to_owned(),
            packs,
            more: 0,
        }
    }

    fn pack(number: usize) -> PackId {
        let mut name = [0xff; 32];
        name[..8].copy_from_slice(&(number as u64).to_be_bytes());
        PackId(name)
    }

    #[test]
    fn the_longest_list_of_damaged_packs_is_a_document() {
        let longest = list((0..DAMAGED_PACKS_MAX).map(pack).collect());
        let bytes = encode_document(&longest).unwrap();
        assert!(bytes.len() as u64 <= DOCUMENT_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(decode_document::<DamageList>("damage", &bytes).unwrap(), longest);
    }

    #[test]
    fn a_list_of_damaged_packs_in_another_order_or_too_long_is_refused() {
        for packs in [vec![pack(2), pack(1)], vec![pack(1), pack(1)], (0..=DAMAGED_PACKS_MAX).map(pack).collect()] {
            let bytes = encode_document(&list(packs)).unwrap();
            assert!(decode_document::<DamageList>("damage", &bytes).is_err());
        }
    }
}
