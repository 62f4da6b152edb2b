//! Checks what can be checked without a key: that every object is as it was written.
//!
//! A pack bears the hash of its bytes, and a document that of its body. Which packs the backups need, whether those are there, and
//! whether what was written is right, is sealed.

use std::collections::BTreeSet;

use futures::StreamExt;

use super::error::damage;
use super::{Damage, ReadData, Tally, VerifyError, is_sampled};
use crate::model::{Phase, Progress};
use crate::repository::{Locked, LockedObject, ObjectKey};

/// Objects read at the same time: packs have 16 MiB.
const OBJECTS_AHEAD: usize = 4;

/// What a check without a key found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockedReport {
    /// Backups by the keys of their manifests, of whatever editions.
    pub backups: u64,
    /// Documents that were read and proven to be as they were written.
    pub documents: Tally,
    /// Packs that are there.
    pub packs: Tally,
    /// Packs that were read.
    pub read: Tally,
    /// What is not as it was written; whom it hits, only the key tells.
    pub damages: Vec<Damage>,
}

/// Reads every document, and, when asked, packs.
///
/// # Errors
/// When the store does not answer. Damage is no error: it is in the report.
pub async fn check_locked(
    repository: &Locked,
    read_data: Option<ReadData>,
    progress: &dyn Progress,
) -> Result<LockedReport, VerifyError> {
    let mut report = LockedReport::default();
    let (mut chosen, mut backups) = (Vec::new(), BTreeSet::new());
    for object in repository.objects().await? {
        match &object.key {
            ObjectKey::Pack(id) | ObjectKey::SegmentPack(.., id) => {
                count(&mut report.packs, object.bytes);
                if read_data.is_some_and(|how| is_sampled(*id, how)) {
                    chosen.push(object);
                }
            }
            key => {
                if let ObjectKey::Manifest(id) | ObjectKey::Edition(id, _) = key {
                    backups.insert(id.clone());
                }
                chosen.push(object);
            }
        }
    }
    report.backups = backups.len() as u64;
    progress.begin(Phase::Check, Some(chosen.iter().map(|object| object.bytes).sum()));
    let reads = chosen.into_iter().map(|object| async move {
        let checked = repository.check(&object.key).await;
        (object, checked)
    });
    let mut reads = futures::stream::iter(reads).buffer_unordered(OBJECTS_AHEAD);
    while let Some((LockedObject { key, bytes }, checked)) = reads.next().await {
        progress.advance(Phase::Check, bytes);
        let tally = match key {
            ObjectKey::Pack(_) | ObjectKey::SegmentPack(..) => &mut report.read,
            _ => &mut report.documents,
        };
        count(tally, bytes);
        if let Err(error) = checked {
            let problem = damage(error)?;
            report.damages.push(Damage { object: key.text(), problem, backups: Vec::new(), files: Vec::new() });
        }
    }
    progress.end(Phase::Check);
    report.damages.sort_by(|one, other| one.object.cmp(&other.object));
    Ok(report)
}

fn count(tally: &mut Tally, bytes: u64) {
    tally.objects += 1;
    tally.bytes += bytes;
}
