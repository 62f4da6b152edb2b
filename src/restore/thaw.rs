//! Thaws what a restore needs, where the operator asks for that, and tells of it where he does not.
//!
//! ```text
//! documents ──► page map ──► packs that it names ──► wait, or say when to come back
//!     └ archived: all packs are asked for at once, too
//! ```
//! Which packs a backup needs, its page map alone says, and that lies in packs itself, four deep: root, directory, block, data. Thawed one after
//! the other, each would take its hours, up to two days in the end, while a server is down. So what cannot be known is not waited for:
//! where the map cannot be read, every archived pack of the repository is asked for at the same time, which costs more and takes a fourth of the time.
//! How many that are, and how many bytes, is told by `--dry-run` beforehand, and again when they were asked for.
//!
//! A run keeps nothing in mind. The next one finds in the store what was asked for, waits or goes on, and asks only for what nobody has asked for.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::choice::TableChoice;
use super::steps::Watch;
use super::walk::Walk;
use super::window::Window;
use super::{RestoreError, ThawError};
use crate::format::Manifest;
use crate::model::{Archive, BackupId, PackId, Phase, ThawOrder, ThawTier};
use crate::repository::{Care, Cold, ColdObject, ObjectKey, Repository, Wanted};

/// Pause between two looks at what takes hours: some 150 in the longest that Amazon documents for the usual tier, a request for 1000 packs each.
const PAUSE: Duration = Duration::from_secs(300);
/// Pause between two looks at what takes minutes.
const PAUSE_EXPEDITED: Duration = Duration::from_secs(20);
/// Pieces that are looked at before their packs are noted.
const PIECES: usize = 16 << 10;

/// What is asked of the store for a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThawOptions {
    /// For how long, and how fast.
    pub order: ThawOrder,
    /// Until when it is waited for; not at all when absent.
    pub until: Option<Instant>,
}

/// What has to be thawed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thawed {
    /// What opens a repository, or a manifest.
    Documents,
    /// All packs of the repository, because the page map of this backup cannot be read.
    AnyPacks(BackupId),
    /// Packs that this backup needs.
    Packs(BackupId),
}

/// How much cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ice {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Where those lie that take the longest.
    pub archive: Archive,
    /// Objects that lie in a deep archive.
    pub deep: u64,
}

impl Ice {
    fn of<'a>(objects: impl IntoIterator<Item = &'a ColdObject>) -> Option<Ice> {
        objects.into_iter().fold(None, |ice: Option<Ice>, object| {
            let before = ice.unwrap_or(Ice { objects: 0, bytes: 0, archive: object.archive, deep: 0 });
            Some(Ice {
                objects: before.objects + 1,
                bytes: before.bytes + object.bytes,
                archive: before.archive.max(object.archive),
                deep: before.deep + u64::from(object.archive.is_deep()),
            })
        })
    }
}

/// Thaws what the files of `tables` need of a backup, where that is wanted. Nothing is done in a store without archives.
///
/// # Errors
/// [`ThawError::Thawing`] where that takes longer than is waited for; when the map or the store cannot be read.
pub async fn thaw(
    repository: &Repository,
    manifest: &Manifest,
    tables: &TableChoice,
    options: Option<ThawOptions>,
    watch: &Watch,
) -> Result<(), RestoreError> {
    let cold = repository.cold();
    let Some(options) = options.filter(|_| cold.has_archives()) else { return Ok(()) };
    let read = async || watch.cancel.or(needed(repository, manifest, tables)).await;
    let packs = thawed(repository, manifest, Some(options), watch, read).await?;
    let run = Run { cold: &cold, what: Thawed::Packs(manifest.id.clone()), options, watch };
    run.until_readable(Wanted::Packs(packs), None).await
}

/// Reads with `read` what stands in the page map of a backup. Where that is archived it is thawed, if that is wanted, and read again; if
/// not, the error tells how much it is.
///
/// # Errors
/// Those of `read` and of [`thaw`].
pub async fn thawed<T>(
    repository: &Repository,
    manifest: &Manifest,
    options: Option<ThawOptions>,
    watch: &Watch,
    read: impl AsyncFn() -> Result<T, RestoreError>,
) -> Result<T, RestoreError> {
    let error = match read().await {
        Err(error) if error.is_archived() => error,
        result => return result,
    };
    let cold = repository.cold();
    let Some(options) = options.filter(|_| cold.has_archives()) else {
        return Err(told(error, repository, manifest, &TableChoice::All, watch).await);
    };
    let run = Run { cold: &cold, what: Thawed::AnyPacks(manifest.id.clone()), options, watch };
    let found = run.find(&Wanted::AllPacks, Care::BeforeAsking).await?;
    let asked = run.ask(&found).await?;
    let Some(ice) = Ice::of(&found) else { return read().await };
    if options.until.is_some() {
        watch.progress.note("waiting until the page map can be read, which tells what the backup needs");
    }
    // What was asked for may be there at once; and what the map does not name need not be waited for.
    loop {
        match read().await {
            Err(error) if error.is_archived() => {}
            result => return result,
        }
        if !run.pause().await? {
            return Err(run.thawing(ice, asked));
        }
    }
}

/// Thaws `documents`, without which nobody knows what to ask for, where that is wanted. With them, all that may be needed is asked for.
///
/// # Errors
/// Those of [`thaw`].
pub async fn thaw_documents(
    cold: &Cold,
    documents: Wanted,
    options: Option<ThawOptions>,
    watch: &Watch,
) -> Result<(), RestoreError> {
    let Some(options) = options.filter(|_| cold.has_archives()) else { return Ok(()) };
    let run = Run { cold, what: Thawed::Documents, options, watch };
    run.until_readable(documents, Some(Wanted::Everything)).await
}

/// What of a backup cannot be read now; nothing where all can.
///
/// # Errors
/// When the map or the store cannot be read.
pub async fn frozen(
    repository: &Repository,
    manifest: &Manifest,
    tables: &TableChoice,
    watch: &Watch,
) -> Result<Option<ThawError>, RestoreError> {
    let cold = repository.cold();
    if !cold.has_archives() {
        return Ok(None);
    }
    let find = async {
        let mut found = cold.find(&Wanted::AllPacks, Care::Glance).await?;
        // As nearly always; else the map has to be read.
        if found.is_empty() {
            return Ok(None);
        }
        let what = match needed(repository, manifest, tables).await {
            Ok(packs) => {
                found.retain(|object| matches!(object.key, ObjectKey::Pack(pack) if packs.contains(&pack)));
                Thawed::Packs(manifest.id.clone())
            }
            Err(error) if error.is_archived() => Thawed::AnyPacks(manifest.id.clone()),
            Err(error) => return Err(error),
        };
        let thawing = found.iter().filter(|object| object.is_thawing).count() as u64;
        Ok(Ice::of(&found).map(|ice| ThawError::Archived { what, ice, thawing, source: None }))
    };
    watch.cancel.or(find).await
}

/// An error that tells of one archived object, told of all that the backup needs; any other as it is.
pub(super) async fn told(
    error: RestoreError,
    repository: &Repository,
    manifest: &Manifest,
    tables: &TableChoice,
    watch: &Watch,
) -> RestoreError {
    if !error.is_archived() {
        return error;
    }
    match frozen(repository, manifest, tables, watch).await {
        Ok(Some(ThawError::Archived { what, ice, thawing, .. })) => {
            ThawError::Archived { what, ice, thawing, source: Some(Box::new(error)) }.into()
        }
        // The first error tells more than what went wrong with telling more.
        _ => error,
    }
}

/// The packs that hold the chunks of a backup's files. Memory: 50 bytes for each.
async fn needed(
    repository: &Repository,
    manifest: &Manifest,
    tables: &TableChoice,
) -> Result<HashSet<PackId>, RestoreError> {
    let root = repository.map_root(manifest).await?;
    let mut walk = Walk::of(repository, &root, tables);
    let (mut packs, mut window) = (HashSet::new(), Window::default());
    while let Some(step) = walk.next().await? {
        window.add(step)?;
        if window.holds(PIECES) {
            packs.extend(window.packs.iter().map(|pack| pack.id));
            window = window.next();
        }
    }
    packs.extend(window.packs.iter().map(|pack| pack.id));
    Ok(packs)
}

struct Run<'a> {
    cold: &'a Cold,
    what: Thawed,
    options: ThawOptions,
    watch: &'a Watch,
}

impl Run<'_> {
    /// Asks for what of `wanted` is frozen, and with it for `besides`, and waits as long as is wanted.
    async fn until_readable(&self, mut wanted: Wanted, besides: Option<Wanted>) -> Result<(), RestoreError> {
        let (mut found, mut asked) = (self.find(&wanted, Care::BeforeAsking).await?, 0);
        if let (false, Some(besides)) = (found.is_empty(), &besides) {
            let others = self.find(besides, Care::BeforeAsking).await?;
            asked = self.ask(&others).await?;
            found = self.find(&wanted, Care::BeforeAsking).await?;
        }
        let total = found.len() as u64;
        let is_told = total > 0 && self.options.until.is_some();
        if is_told {
            self.watch.progress.begin(Phase::Thaw, Some(total));
        }
        let outcome = self.wait(&mut wanted, found, asked).await;
        if is_told {
            self.watch.progress.end(Phase::Thaw);
        }
        outcome
    }

    async fn wait(&self, wanted: &mut Wanted, mut found: Vec<ColdObject>, mut asked: u64) -> Result<(), RestoreError> {
        let (total, mut is_first) = (found.len() as u64, true);
        while let Some(ice) = Ice::of(&found) {
            asked += self.ask(&found).await?;
            // Once, and not for ever: of what was just asked for something may be there at once, and all that a listing took for frozen
            // may have been thawed before.
            let waits = self.options.until.is_some();
            let is_asleep = asked == 0 && found.iter().all(|object| !object.is_thawing);
            let look = is_first && if waits { asked > 0 } else { is_asleep };
            is_first = false;
            if !look && !self.pause().await? {
                return Err(self.thawing(ice, asked));
            }
            *wanted = narrowed(std::mem::replace(wanted, Wanted::AllPacks), &found);
            let after = self.find(wanted, Care::Full).await?;
            self.tell(total, found.len() as u64, after.len() as u64);
            found = after;
        }
        Ok(())
    }

    /// Waits for a while; false when that is not wanted, or the time is over.
    async fn pause(&self) -> Result<bool, RestoreError> {
        let left = self.options.until.map(|until| until.saturating_duration_since(Instant::now()));
        let Some(left) = left.filter(|left| !left.is_zero()) else { return Ok(false) };
        let pause = if self.options.order.tier == ThawTier::Expedited { PAUSE_EXPEDITED } else { PAUSE };
        let slept = async {
            tokio::time::sleep(pause.min(left)).await;
            Ok(true)
        };
        self.watch.cancel.or(slept).await
    }

    fn thawing(&self, ice: Ice, asked: u64) -> RestoreError {
        ThawError::Thawing { what: self.what.clone(), ice, asked, tier: self.options.order.tier }.into()
    }

    async fn find(&self, wanted: &Wanted, care: Care) -> Result<Vec<ColdObject>, RestoreError> {
        self.watch.cancel.or(async { Ok(self.cold.find(wanted, care).await?) }).await
    }

    /// Asks for what nobody has asked for; how many objects begin to thaw by that.
    async fn ask(&self, found: &[ColdObject]) -> Result<u64, RestoreError> {
        let Some(ice) = Ice::of(found.iter().filter(|object| !object.is_thawing)) else { return Ok(0) };
        let ThawOrder { days, tier } = self.options.order;
        let Some(longest) = ice.archive.longest(tier) else {
            let objects = ice.deep;
            return Err(ThawError::NoExpedited { what: self.what.clone(), objects }.into());
        };
        let wishes = self.watch.cancel.or(async { Ok(self.cold.thaw(found, self.options.order).await?) }).await?;
        if wishes.accepted > 0 {
            let Ice { objects, bytes, .. } = ice;
            let (amount, longest) = (mebibytes(bytes), time(longest));
            self.watch.progress.note(&format!(
                "the store was asked to thaw {} ({amount}) for {} ({tier}), which takes up to {longest}",
                counted(objects, "object"),
                counted(days.get().into(), "day")
            ));
        }
        Ok(wishes.accepted + wishes.under_way)
    }

    fn tell(&self, total: u64, before: u64, after: u64) {
        let done = before.saturating_sub(after);
        self.watch.progress.advance(Phase::Thaw, done);
        if done > 0 {
            let so_far = total.saturating_sub(after);
            self.watch.progress.note(&format!("thawed {so_far} of {}", counted(total, "object")));
        }
    }
}

/// What is still to be looked at.
fn narrowed(wanted: Wanted, found: &[ColdObject]) -> Wanted {
    let pack = |object: &ColdObject| if let ObjectKey::Pack(pack) = object.key { Some(pack) } else { None };
    match wanted {
        Wanted::AllPacks | Wanted::Packs(_) => Wanted::Packs(found.iter().filter_map(pack).collect()),
        documents => documents,
    }
}

/// `count` things, such as `1 pack` or `7 packs`.
pub(super) fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// An amount in MiB, never less than there is.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// A time as it is documented: in hours, or minutes where it is shorter.
pub(super) fn time(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    if minutes < 60 { counted(minutes, "minute") } else { counted(minutes / 60, "hour") }
}

#[cfg(test)]
#[path = "thaw_tests.rs"]
mod tests;
