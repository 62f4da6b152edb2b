//! How long a restore may take: from what was measured, and nothing from what was not.
//!
//! - **The fetch**: by a stretch of the backup that was read just now ([`read_stretch`]), which is not written anywhere, and by the fetch of
//!   the last drill, which was, on the drill's machine. The longer of the two counts.
//! - **Prepare and start** of the server: by the last drill. A prepare goes with its redo log: of a longer one it takes longer in proportion;
//!   of a shorter one not less, since files are opened all the same.
//!
//! What nobody measured has no estimate, and then there is none of the whole either: so it is where the files are copied into the datadir from
//! another file system, which no drill does.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};

use super::choice::TableChoice;
use super::walk::Walk;
use super::window::Window;
use super::{Cancel, FetchOptions, RestoreError};
use crate::format::{Manifest, Proof};
use crate::model::{BackupId, PackId, ProofId, Timestamp};
use crate::repository::Repository;

/// Bytes that are read in each round. The first ones are few, for a slow line; each makes the connections of the next.
const ROUNDS: [u64; 4] = [1 << 20, 4 << 20, 16 << 20, 64 << 20];
/// A round that took so long tells enough.
const ENOUGH: Duration = Duration::from_secs(1);
/// Longest time of a round; one that did not end tells nothing.
const ROUND_LIMIT: Duration = Duration::from_secs(20);
/// Shortest request of a round.
const REQUEST_BYTES_MIN: u64 = 64 << 10;
/// Pieces that are looked at: more than the rounds need, of a backup of usual pieces.
const PIECES: usize = 4096;

/// What was read of a backup to see how fast that goes.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Stretch {
    /// Bytes of packs.
    pub bytes: u64,
    /// How long they took.
    pub seconds: f64,
}

impl Stretch {
    fn time_for(&self, bytes: u64) -> f64 {
        bytes as f64 * self.seconds / self.bytes.max(1) as f64
    }
}

/// What a drill took whose server answered.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DrillTimes {
    /// Its proof.
    pub proof_id: ProofId,
    /// The backup that it restored.
    pub backup_id: BackupId,
    /// Its machine.
    pub host: String,
    /// When it ended.
    pub finished: Timestamp,
    /// Bytes of all files of the backup.
    pub logical_bytes: u64,
    /// Length of its redo log.
    pub redo_bytes: u64,
    /// How long the fetch took.
    pub fetch_seconds: f64,
    /// How long the prepare took.
    pub prepare_seconds: f64,
    /// How long the server took to answer.
    pub start_seconds: f64,
}

/// How long the parts of a restore may take, as far as they were measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// Fetching.
    pub fetch_seconds: Option<f64>,
    /// Preparing.
    pub prepare_seconds: Option<f64>,
    /// Starting the server, until it answers.
    pub start_seconds: Option<f64>,
    /// All of it.
    pub seconds: Option<f64>,
}

impl Estimate {
    /// The estimate for `manifest`'s backup, of which `fetched_bytes` are to be fetched and whose files come into the datadir by a rename.
    pub fn new(
        manifest: &Manifest,
        fetched_bytes: u64,
        stretch: Option<&Stretch>,
        drill: Option<&DrillTimes>,
    ) -> Estimate {
        let proportion = |now: u64, then: u64| now as f64 / then.max(1) as f64;
        let by_stretch = stretch.map(|stretch| stretch.time_for(fetched_bytes));
        let by_drill =
            drill.map(|drill| drill.fetch_seconds * proportion(manifest.sizes.logical_bytes, drill.logical_bytes));
        let fetch_seconds = by_stretch.into_iter().chain(by_drill).reduce(f64::max);
        let prepare_seconds = drill.map(|drill| {
            let longer = proportion(manifest.redo.bytes, drill.redo_bytes).max(1.0);
            drill.prepare_seconds * longer
        });
        let start_seconds = drill.map(|drill| drill.start_seconds);
        let seconds = fetch_seconds.zip(prepare_seconds).zip(start_seconds);
        let seconds = seconds.map(|((fetch, prepare), start)| fetch + prepare + start);
        Estimate { fetch_seconds, prepare_seconds, start_seconds, seconds }
    }

    /// The same where the datadir is written over and only what differs is fetched.
    #[must_use]
    pub fn of_what_differs(self) -> Estimate {
        Estimate { fetch_seconds: None, seconds: None, ..self }
    }

    /// The same where the files are copied into the datadir.
    #[must_use]
    pub fn with_a_copy(self) -> Estimate {
        Estimate { seconds: None, ..self }
    }
}

/// The newest drill of `repository` whose server answered, one of machine `host` before all others; none where there was none.
///
/// # Errors
/// When the proofs cannot be listed or read.
pub async fn newest_drill(repository: &Repository, host: &str) -> Result<Option<DrillTimes>, RestoreError> {
    let proofs = repository.newest_proofs().await?;
    let (own, others): (Vec<Proof>, Vec<Proof>) =
        proofs.into_iter().filter(came_up).partition(|proof| proof.host == host);
    for proof in own.into_iter().chain(others) {
        // One whose backup was pruned meanwhile has nothing to be compared with.
        let Ok(manifest) = repository.manifest(&proof.backup).await else { continue };
        let seconds = |milliseconds: u64| milliseconds as f64 / 1000.0;
        return Ok(Some(DrillTimes {
            proof_id: proof.id,
            backup_id: proof.backup,
            host: proof.host,
            finished: proof.finished,
            logical_bytes: manifest.sizes.logical_bytes,
            redo_bytes: manifest.redo.bytes,
            fetch_seconds: seconds(proof.took.fetch_ms),
            prepare_seconds: seconds(proof.took.prepare_ms),
            start_seconds: seconds(proof.took.start_ms),
        }));
    }
    Ok(None)
}

/// True when its server answered: only then all phases came to their ends.
fn came_up(proof: &Proof) -> bool {
    proof.tables.found > 0 && proof.took.fetch_ms > 0
}

/// Reads some of what a restore of `manifest`'s backup fetches, with as many requests at a time, and tells how long that took. Nothing
/// is kept. Some 85 MiB at the most, and no longer than some seconds where the store answers. The last round counts, for which the
/// connections were there; of a backup that is read as a whole, all of them.
///
/// Nothing where the backup has no packs, or the store gave less than a MiB in 20 s.
///
/// # Errors
/// When the map or a pack cannot be read.
pub async fn read_stretch(
    repository: &Repository,
    manifest: &Manifest,
    options: FetchOptions,
    cancel: &Cancel,
) -> Result<Option<Stretch>, RestoreError> {
    cancel.or(read(repository, manifest, options)).await
}

async fn read(
    repository: &Repository,
    manifest: &Manifest,
    options: FetchOptions,
) -> Result<Option<Stretch>, RestoreError> {
    let root = repository.map_root(manifest).await?;
    let mut walk = Walk::of(repository, &root, &TableChoice::All);
    let mut window = Window::default();
    while window.needs.len() < PIECES
        && !window.is_full()
        && let Some(step) = walk.next().await?
    {
        window.add(step)?;
    }
    let requests = window.requests(options);
    let mut ranges: VecDeque<(PackId, Range<u64>)> =
        requests.into_iter().map(|request| (window.packs[request.pack as usize].id, request.bytes)).collect();
    let (mut last, mut all) = (None, Stretch { bytes: 0, seconds: 0.0 });
    for wanted in ROUNDS {
        let round = round(&mut ranges, wanted, options.requests());
        let begun = Instant::now();
        let reads = round.into_iter().map(|(pack, range)| repository.read_range(pack, range));
        let reads = futures::stream::iter(reads).buffer_unordered(options.requests());
        let sum = reads.try_fold(0, |sum, bytes| async move { Ok(sum + bytes.len() as u64) });
        let Ok(bytes) = tokio::time::timeout(ROUND_LIMIT, sum).await else { break };
        let (bytes, took) = (bytes?, begun.elapsed());
        let seconds = took.as_secs_f64();
        all = Stretch { bytes: all.bytes + bytes, seconds: all.seconds + seconds };
        if bytes < wanted {
            // That was all there is.
            return Ok((all.bytes > 0).then_some(all));
        }
        last = Some(Stretch { bytes, seconds });
        if took >= ENOUGH {
            break;
        }
    }
    Ok(last)
}

/// Takes ranges for a round of `wanted` bytes, cut so that `requests` of them are in flight at a time. What is cut off comes after all others.
fn round(ranges: &mut VecDeque<(PackId, Range<u64>)>, wanted: u64, requests: usize) -> Vec<(PackId, Range<u64>)> {
    let longest = (wanted / requests as u64).max(REQUEST_BYTES_MIN);
    let (mut round, mut bytes) = (Vec::new(), 0);
    while bytes < wanted
        && let Some((pack, range)) = ranges.pop_front()
    {
        let end = range.end.min(range.start + longest);
        if end < range.end {
            ranges.push_back((pack, end..range.end));
        }
        bytes += end - range.start;
        round.push((pack, range.start..end));
    }
    round
}

#[cfg(test)]
mod tests {
    use super::super::{RestorePlan, synthetic::Synthetic};
    use super::*;
    use crate::format::{proof_example, proof_passing};

    async fn backup(logical_bytes: u64, redo_bytes: u64) -> (Synthetic, Manifest) {
        let mut server = Synthetic::populated(7).await;
        let mut manifest = server.backup().await;
        (manifest.sizes.logical_bytes, manifest.redo.bytes) = (logical_bytes, redo_bytes);
        (server, manifest)
    }

    fn drill(logical_bytes: u64, redo_bytes: u64) -> DrillTimes {
        let proof = proof_passing();
        DrillTimes {
            proof_id: proof.id,
            backup_id: proof.backup,
            host: proof.host,
            finished: proof.finished,
            logical_bytes,
            redo_bytes,
            fetch_seconds: 100.0,
            prepare_seconds: 10.0,
            start_seconds: 2.0,
        }
    }

    #[tokio::test]
    async fn what_was_not_measured_has_no_estimate() {
        let (_, manifest) = backup(1000, 50).await;
        assert_eq!(Estimate::new(&manifest, 400, None, None), Estimate::default());
        let stretch = Stretch { bytes: 100, seconds: 0.5 };
        let fetch_alone = Estimate { fetch_seconds: Some(2.0), ..Estimate::default() };
        assert_eq!(Estimate::new(&manifest, 400, Some(&stretch), None), fetch_alone);
        assert_eq!(Estimate::new(&manifest, 0, Some(&stretch), None).fetch_seconds, Some(0.0));
    }

    #[tokio::test]
    async fn a_drill_of_a_smaller_backup_is_scaled_by_its_size_and_its_redo_log() {
        let (_, manifest) = backup(3000, 50).await;
        let whole = Estimate::new(&manifest, 400, None, Some(&drill(1000, 25)));
        assert_eq!((whole.fetch_seconds, whole.prepare_seconds), (Some(300.0), Some(20.0)));
        assert_eq!((whole.start_seconds, whole.seconds), (Some(2.0), Some(322.0)));
        let copied = whole.with_a_copy();
        assert_eq!((copied.prepare_seconds, copied.seconds), (Some(20.0), None));
        // A shorter log leaves the files to be opened.
        let longer_log = Estimate::new(&manifest, 400, None, Some(&drill(6000, 500)));
        assert_eq!((longer_log.fetch_seconds, longer_log.prepare_seconds), (Some(50.0), Some(10.0)));
    }

    #[tokio::test]
    async fn of_two_measures_of_the_fetch_the_longer_one_counts() {
        let (_, manifest) = backup(1000, 50).await;
        for (seconds, expected) in [(50.0, 200.0), (1.0, 100.0)] {
            let stretch = Stretch { bytes: 100, seconds };
            let estimate = Estimate::new(&manifest, 400, Some(&stretch), Some(&drill(1000, 50)));
            assert_eq!(estimate.fetch_seconds, Some(expected));
        }
    }

    #[tokio::test]
    async fn the_last_drill_of_this_machine_counts_before_newer_ones_of_others() {
        let (server, manifest) = backup(1000, 50).await;
        let repository = &server.repository;
        assert_eq!(newest_drill(repository, "here").await.unwrap(), None);
        let put = async |hour: u32, host: &str, mut proof: Proof| {
            proof.repository_id = repository.config().repository_id;
            proof.backup = manifest.id.clone();
            proof.id = format!("20261123T{hour:02}0000Z-7c01d2").parse().unwrap();
            proof.host = host.to_owned();
            repository.put_proof(&proof).await.unwrap();
            proof.id
        };
        let there = put(1, "there", proof_passing()).await;
        let of = async |host| newest_drill(repository, host).await.unwrap().map(|drill| (drill.proof_id, drill.host));
        assert_eq!(of("here").await, Some((there, "there".to_owned())));
        // An assertion that failed says nothing of the time.
        let here = put(2, "here", proof_example()).await;
        let later = put(3, "there", proof_passing()).await;
        assert_eq!(of("here").await, Some((here, "here".to_owned())));
        assert_eq!(of("elsewhere").await, Some((later.clone(), "there".to_owned())));
        // Its server did not start.
        let mut down = proof_example();
        (down.tables, down.spaces, down.sample) = Default::default();
        put(4, "elsewhere", down).await;
        assert_eq!(of("elsewhere").await, Some((later, "there".to_owned())));
        let times = newest_drill(repository, "there").await.unwrap().unwrap();
        assert_eq!((times.fetch_seconds, times.prepare_seconds, times.start_seconds), (290.1, 21.9, 1.8));
    }

    #[tokio::test]
    async fn a_stretch_is_read_of_what_the_restore_fetches_and_no_more() {
        let mut server = Synthetic::populated(7).await;
        let manifest = server.backup().await;
        let options = FetchOptions { requests: 4, ..FetchOptions::default() };
        let never = Cancel::never();
        let plan = RestorePlan::read(&server.repository, &manifest, options, &never).await.unwrap();
        let stretch = read_stretch(&server.repository, &manifest, options, &never).await.unwrap().unwrap();
        // It is small, and read as a whole.
        assert_eq!(stretch.bytes, plan.fetched_bytes);
        assert!(stretch.seconds > 0.0);
        for pack in server.packs().await {
            if server.is_data(pack).await {
                server.tamper(&Synthetic::pack_key(pack), |_| None).await;
            }
        }
        let gone = read_stretch(&server.repository, &manifest, options, &never).await.unwrap_err();
        assert!(matches!(gone, RestoreError::Repository(_)), "{gone}");
    }

    #[test]
    fn rounds_take_one_range_after_the_other_cut_for_their_size() {
        let pack = PackId([7; 32]);
        const MIB: u64 = 1 << 20;
        let mut ranges: VecDeque<_> = (0..3).map(|number| (pack, number * 10 * MIB..(number * 10 + 3) * MIB)).collect();
        let first = round(&mut ranges, MIB, 8);
        let starts: Vec<u64> = first.iter().map(|(_, range)| range.start).collect();
        // Each pack in turn, then what was cut off before.
        let expected: Vec<u64> = (0..8).map(|number| number % 3 * 10 * MIB + number / 3 * (MIB / 8)).collect();
        assert_eq!(starts, expected);
        assert!(first.iter().all(|(_, range)| range.end - range.start == MIB / 8), "{first:?}");
        // The rest is what nobody has read yet, and no more.
        let rest = round(&mut ranges, 64 * MIB, 1);
        let bytes =
            |round: &[(PackId, Range<u64>)]| round.iter().map(|(_, range)| range.end - range.start).sum::<u64>();
        assert_eq!(bytes(&first) + bytes(&rest), 9 * MIB);
        assert_eq!(round(&mut ranges, MIB, 1), []);
        let mut tiny = VecDeque::from([(pack, 0..10), (pack, 10..20)]);
        assert_eq!(round(&mut tiny, MIB, 64), [(pack, 0..10), (pack, 10..20)]);
    }
}
