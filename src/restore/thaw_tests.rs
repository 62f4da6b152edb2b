//! Thawing what a backup needs, over a made-up store with an archive. Its clock is paused: hours take no time.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use object_store::{ObjectStoreExt, PutPayload};
use tokio::sync::watch;

use super::super::synthetic::Synthetic;
use super::super::{Cancel, FetchOptions, TableName, choose_tables, fetch, fetch_tables};
use super::*;
use crate::error::{Diagnose, Kind};
use crate::model::Progress;
use crate::store::ThawAnswer;
use crate::store::frozen::FrozenStore;

const ORDER: ThawOrder = ThawOrder { days: NonZeroU32::MIN, tier: ThawTier::Standard };
const AT_ONCE: ThawOptions = ThawOptions { order: ORDER, until: None };
/// A pack that no backup needs.
const STRANGER: PackId = PackId([9; 32]);

/// Keeps what it is told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        self.note(&format!("begin {phase:?} {total:?}"));
    }
    fn advance(&self, _: Phase, _: u64) {}
    fn end(&self, phase: Phase) {
        self.note(&format!("end {phase:?}"));
    }
    fn note(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
    fn warn(&self, message: &str) {
        self.note(message);
    }
}

/// A backup in a store with an archive.
struct Winter {
    frozen: FrozenStore,
    repository: Repository,
    manifest: Manifest,
    data: Vec<PackId>,
    maps: Vec<PackId>,
    state: std::collections::BTreeMap<String, Vec<u8>>,
    told: Arc<Told>,
    watch: Watch,
}

impl Winter {
    /// In which what is asked for can be read after `patience` listings.
    async fn new(patience: u32) -> Winter {
        let mut server = Synthetic::populated(7).await;
        let manifest = server.backup().await;
        let (mut data, mut maps) = (Vec::new(), Vec::new());
        for pack in server.packs().await {
            if server.is_data(pack).await { data.push(pack) } else { maps.push(pack) }
        }
        let stranger = object_store::path::Path::from(Synthetic::pack_key(STRANGER));
        server.objects.put(&stranger, PutPayload::from_static(b"stranger")).await.unwrap();
        let frozen = FrozenStore::new(server.objects.clone(), patience);
        let repository = Repository::open(frozen.store()).await.unwrap();
        let told = Arc::new(Told::default());
        let watch = Watch { progress: told.clone(), cancel: Cancel::never() };
        Winter { frozen, repository, manifest, data, maps, state: server.state(), told, watch }
    }

    fn freeze(&self, packs: &[PackId], archive: Archive) {
        packs.iter().for_each(|pack| self.frozen.freeze(&Synthetic::pack_key(*pack), archive));
    }

    fn asked(&self) -> Vec<String> {
        let mut asked: Vec<String> = self.frozen.asked().into_iter().map(|(key, _)| key).collect();
        asked.sort();
        asked
    }

    async fn thaw(&self, options: ThawOptions) -> Result<(), RestoreError> {
        thaw(&self.repository, &self.manifest, &TableChoice::All, Some(options), &self.watch).await
    }

    async fn fetch(&self, thaw: Option<ThawOptions>) -> Result<usize, RestoreError> {
        let folder = tempfile::tempdir().unwrap();
        let (target, options) = (folder.path().join("target"), FetchOptions { thaw, ..FetchOptions::default() });
        let fetched = fetch(&self.repository, &self.manifest, &target, options, &self.watch).await;
        assert_eq!(target.exists(), fetched.is_ok());
        let fetched = fetched?;
        for (path, bytes) in self.state.iter().filter(|(path, _)| *path != "xtrabackup_checkpoints") {
            assert!(std::fs::read(target.join(path)).unwrap() == *bytes, "{path}");
        }
        Ok(fetched.figures.files as usize)
    }
}

fn waiting(seconds: u64) -> ThawOptions {
    ThawOptions { order: ORDER, until: Some(Instant::now() + Duration::from_secs(seconds)) }
}

fn keys(packs: &[PackId]) -> Vec<String> {
    packs.iter().map(|pack| Synthetic::pack_key(*pack)).collect()
}

fn of_thawing(error: &RestoreError) -> &ThawError {
    match error {
        RestoreError::Thaw(error) => error,
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn nothing_is_thawed_that_nobody_asked_for_and_the_error_tells_how_much_that_is() {
    let winter = Winter::new(1).await;
    winter.freeze(&winter.data, Archive::Deep);
    winter.freeze(&[STRANGER], Archive::Glacier);
    let error = winter.fetch(None).await.unwrap_err();
    let (count, id) = (winter.data.len(), &winter.manifest.id);
    let text = error.to_string();
    assert!(text.starts_with(&format!("{count} packs that backup {id} needs (")), "{text}");
    assert!(text.ends_with("are archived and cannot be read before they are thawed"), "{text}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("--thaw") && hint.contains("up to 12 hours with --thaw-tier standard"), "{hint}");
    assert!(hint.contains("up to 48 hours with bulk") && !hint.contains("expedited"), "{hint}");
    assert_eq!((error.kind(), winter.asked().len()), (Kind::StorageUnavailable, 0));
    let source = std::error::Error::source(of_thawing(&error)).unwrap().to_string();
    assert!(source.contains("archived") || source.contains("cannot restore"), "{source}");
}

#[tokio::test]
async fn what_a_backup_needs_is_asked_for_once_and_fetched_when_it_is_there() {
    let winter = Winter::new(3).await;
    let (deep, others) = winter.data.split_at(2);
    winter.freeze(deep, Archive::Deep);
    winter.freeze(others, Archive::Tier);
    winter.freeze(&[STRANGER], Archive::Deep);
    let error = winter.fetch(Some(AT_ONCE)).await.unwrap_err();
    let count = winter.data.len() as u64;
    let ThawError::Thawing { ice, asked, .. } = of_thawing(&error) else { panic!("{error:?}") };
    assert_eq!((ice.objects, ice.deep, *asked), (count, 2, count));
    assert_eq!((error.kind(), winter.asked()), (Kind::StorageUnavailable, keys(&winter.data)));
    let hint = error.hint().unwrap();
    assert!(hint.contains("up to 12 hours from now (standard)") && hint.contains("--thaw-wait"), "{hint}");
    let error = winter.fetch(Some(AT_ONCE)).await.unwrap_err();
    assert!(matches!(of_thawing(&error), ThawError::Thawing { asked: 0, .. }), "{error:?}");
    assert!(error.to_string().ends_with("are being thawed already, and not yet readable"), "{error}");
    // Without the flag it is told, too.
    let error = winter.fetch(None).await.unwrap_err();
    assert!(matches!(of_thawing(&error), ThawError::Archived { thawing, .. } if *thawing == count), "{error:?}");
    assert_eq!(winter.fetch(Some(AT_ONCE)).await.unwrap(), winter.state.len());
    assert_eq!(winter.asked(), keys(&winter.data));
}

#[tokio::test]
async fn where_the_map_is_archived_all_packs_are_asked_for_at_once() {
    let winter = Winter::new(1).await;
    let mut all = [&winter.data[..], &winter.maps, &[STRANGER]].concat();
    all.sort();
    winter.freeze(&all, Archive::Glacier);
    let error = winter.fetch(None).await.unwrap_err();
    assert!(error.to_string().contains("lies in archived packs, so which it needs is not known"), "{error}");
    assert!(winter.asked().is_empty());
    let error = winter.fetch(Some(AT_ONCE)).await.unwrap_err();
    assert!(matches!(of_thawing(&error), ThawError::Thawing { what: Thawed::AnyPacks(_), .. }), "{error:?}");
    assert_eq!(winter.asked(), keys(&all));
    assert_eq!(winter.fetch(Some(AT_ONCE)).await.unwrap(), winter.state.len());
    assert_eq!(winter.asked(), keys(&all));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_told_how_far_it_is_and_asks_once() {
    let (winter, begun) = (Winter::new(4).await, Instant::now());
    winter.freeze(&winter.data, Archive::Glacier);
    winter.thaw(waiting(3600)).await.unwrap();
    let count = winter.data.len();
    assert_eq!((winter.asked(), winter.frozen.listings()), (keys(&winter.data), 5));
    // Of five listings the first two come at once.
    assert_eq!(begun.elapsed().as_secs(), 3 * PAUSE.as_secs());
    let told = winter.told.0.lock().unwrap().clone();
    assert_eq!(told[0], format!("begin Thaw Some({count})"));
    assert!(told[1].starts_with(&format!("the store was asked to thaw {count} objects (")), "{told:?}");
    assert!(told[1].ends_with("for 1 day (standard), which takes up to 5 hours"), "{told:?}");
    assert_eq!(told[2..], [format!("thawed {count} of {count} objects"), "end Thaw".to_owned()]);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_limit_waits_no_longer_and_makes_few_requests() {
    let (winter, begun) = (Winter::new(1000).await, Instant::now());
    winter.freeze(&winter.data, Archive::Glacier);
    let error = winter.thaw(waiting(3000)).await.unwrap_err();
    assert!(matches!(of_thawing(&error), ThawError::Thawing { .. }), "{error:?}");
    assert_eq!((begun.elapsed().as_secs(), winter.frozen.listings()), (3000, 12));
    assert_eq!(winter.told.0.lock().unwrap().last().unwrap(), "end Thaw");
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_listings_do_not_tell_what_was_thawed_is_asked_for_each_object() {
    let winter = Winter::new(3).await;
    let winter = Winter { frozen: winter.frozen.clone().without_status(), ..winter };
    winter.freeze(&winter.data, Archive::Glacier);
    winter.thaw(waiting(3600)).await.unwrap();
    assert_eq!(winter.asked(), keys(&winter.data));
    // And nothing is asked for again.
    winter.thaw(AT_ONCE).await.unwrap();
    assert_eq!(winter.asked(), keys(&winter.data));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_wishes_and_tells_nothing_of_them_is_not_asked_without_end() {
    for (answer, wishes) in [(ThawAnswer::Accepted, 11), (ThawAnswer::Readable, 11)] {
        let winter = Winter::new(1).await;
        winter.freeze(&winter.data[..1], Archive::Glacier);
        winter.frozen.forget(answer);
        let error = winter.thaw(waiting(3000)).await.unwrap_err();
        assert!(matches!(of_thawing(&error), ThawError::Thawing { .. }), "{error:?}");
        assert!(winter.frozen.wishes() <= wishes + 1, "{}", winter.frozen.wishes());
        let before = winter.frozen.wishes();
        let error = winter.thaw(AT_ONCE).await.unwrap_err();
        assert!(matches!(of_thawing(&error), ThawError::Thawing { .. }), "{error:?}");
        assert!(winter.frozen.wishes() <= before + 2);
    }
}

#[tokio::test]
async fn what_cannot_be_thawed_in_minutes_is_refused_before_anything_is_asked_for() {
    let winter = Winter::new(1).await;
    winter.freeze(&winter.data, Archive::Glacier);
    winter.freeze(&winter.data[..1], Archive::Deep);
    let order = ThawOrder { tier: ThawTier::Expedited, ..ORDER };
    let error = winter.thaw(ThawOptions { order, until: None }).await.unwrap_err();
    assert_eq!(error.to_string(), "1 object lies in a deep archive, which thaws nothing within minutes");
    assert_eq!((error.kind(), winter.asked().len()), (Kind::Usage, 0));
    assert!(error.hint().unwrap().contains("up to 12 hours, bulk up to 48 hours"), "{:?}", error.hint());
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_it_is_interrupted() {
    let winter = Winter::new(1000).await;
    winter.freeze(&winter.data, Archive::Glacier);
    let (ask, asked) = watch::channel(false);
    let winter = Winter { watch: Watch { cancel: asked.into(), ..winter.watch.clone() }, ..winter };
    let begun = Instant::now();
    let (error, ()) = tokio::join!(winter.thaw(waiting(3600)), async {
        tokio::time::sleep(Duration::from_secs(700)).await;
        ask.send_replace(true);
    });
    assert_eq!((error.unwrap_err().kind(), begun.elapsed().as_secs()), (Kind::Interrupted, 700));
    assert_eq!(winter.told.0.lock().unwrap().last().unwrap(), "end Thaw");
}

#[tokio::test]
async fn of_single_tables_only_what_they_need_is_thawed() {
    let winter = Winter::new(1).await;
    winter.freeze(&winter.data, Archive::Glacier);
    let orders = TableName { schema: "shop".to_owned(), table: "orders".to_owned() };
    let tables = TableChoice::These([orders].into());
    let expected = needed(&winter.repository, &winter.manifest, &tables).await.unwrap();
    assert!(!expected.is_empty() && expected.len() < winter.data.len(), "{}", expected.len());
    let folder = tempfile::tempdir().unwrap();
    let options = FetchOptions { thaw: Some(AT_ONCE), ..FetchOptions::default() };
    let (target, watch) = (folder.path().join("target"), &winter.watch);
    let fetched = fetch_tables(&winter.repository, &winter.manifest, &tables, &target, options, watch).await;
    assert!(matches!(of_thawing(&fetched.unwrap_err()), ThawError::Thawing { .. }));
    let mut expected: Vec<_> = expected.into_iter().collect();
    expected.sort();
    assert_eq!(winter.asked(), keys(&expected));
}

#[tokio::test]
async fn whoever_reads_the_map_first_has_it_thawed_too() {
    let winter = Winter::new(1).await;
    winter.freeze(&winter.maps, Archive::Glacier);
    let pattern = ["shop.orders".parse().unwrap()];
    let read = async || choose_tables(&winter.repository, &winter.manifest, &pattern, &Cancel::never()).await;
    let choose = async |options| thawed(&winter.repository, &winter.manifest, options, &winter.watch, read).await;
    assert!(matches!(of_thawing(&choose(None).await.unwrap_err()), ThawError::Archived { .. }));
    let error = choose(Some(AT_ONCE)).await.unwrap_err();
    assert!(matches!(of_thawing(&error), ThawError::Thawing { .. }), "{error:?}");
    assert_eq!(choose(Some(AT_ONCE)).await.unwrap().count(), Some(1));
    assert_eq!(winter.asked(), keys(&winter.maps));
}

#[tokio::test(start_paused = true)]
async fn a_map_is_waited_for_and_then_what_it_names_alone() {
    let (winter, begun) = (Winter::new(1).await, Instant::now());
    winter.freeze(&[&winter.maps[..], &winter.data].concat(), Archive::Glacier);
    winter.freeze(&[STRANGER], Archive::Deep);
    winter.frozen.never(&Synthetic::pack_key(STRANGER));
    let wished = winter.thaw(waiting(7200));
    let others = async {
        tokio::time::sleep(Duration::from_secs(400)).await;
        // Somebody else lists, and time goes by in the archive.
        Cold::of(&winter.frozen.store()).find(&Wanted::AllPacks, Care::Glance).await.unwrap();
    };
    tokio::join!(wished, others).0.unwrap();
    assert!(begun.elapsed().as_secs() < 7200);
    assert!(winter.asked().contains(&Synthetic::pack_key(STRANGER)));
}

#[tokio::test]
async fn archived_documents_have_all_that_may_be_needed_asked_for_with_them() {
    let winter = Winter::new(3).await;
    winter.freeze(&winter.data, Archive::Glacier);
    winter.frozen.freeze("haulout.json", Archive::Glacier);
    let cold = Cold::of(&winter.frozen.store());
    thaw_documents(&cold, Wanted::Head, None, &winter.watch).await.unwrap();
    assert!(winter.asked().is_empty());
    let error = thaw_documents(&cold, Wanted::Head, Some(AT_ONCE), &winter.watch).await.unwrap_err();
    assert!(error.to_string().starts_with("1 document of the repository, without which no backup is found"), "{error}");
    assert!(error.to_string().ends_with("is being thawed"), "{error}");
    assert_eq!(winter.asked(), [vec!["haulout.json".to_owned()], keys(&winter.data)].concat());
    // Its manifest is no archive's.
    let manifest = Wanted::Manifest(winter.manifest.id.clone());
    thaw_documents(&cold, manifest, Some(AT_ONCE), &winter.watch).await.unwrap();
    assert_eq!(winter.asked().len(), 1 + winter.data.len());
}

#[tokio::test]
async fn what_is_archived_is_told_beforehand_and_a_store_without_archives_is_not_asked() {
    let winter = Winter::new(1).await;
    let told = async || frozen(&winter.repository, &winter.manifest, &TableChoice::All, &winter.watch).await.unwrap();
    winter.freeze(&[STRANGER], Archive::Deep);
    assert!(told().await.is_none());
    winter.freeze(&winter.data[..1], Archive::Deep);
    let text = told().await.unwrap().to_string();
    assert!(text.starts_with(&format!("1 pack that backup {} needs (", winter.manifest.id)), "{text}");
    assert!(text.ends_with("is archived and cannot be read before it is thawed"), "{text}");

    let mut server = Synthetic::populated(7).await;
    let manifest = server.backup().await;
    let before = server.repository.store().counters().counts();
    let watch = &winter.watch;
    thaw(&server.repository, &manifest, &TableChoice::All, Some(AT_ONCE), watch).await.unwrap();
    assert!(frozen(&server.repository, &manifest, &TableChoice::All, watch).await.unwrap().is_none());
    assert_eq!(server.repository.store().counters().counts(), before);
}
