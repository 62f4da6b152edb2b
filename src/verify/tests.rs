//! Checks of made-up repositories, whole and damaged.

use std::sync::Arc;

use object_store::ObjectStoreExt;

use super::synthetic::{Mistake, Synthetic};
use super::*;
use crate::error::{Diagnose, Kind};
use crate::format::map::SpaceKey;
use crate::format::{Credential, KeySlot, NewSlot, SecretKey, Wraps, key_of_file};
use crate::model::{Silent, SpaceId, SystemClock, SystemEntropy};
use crate::repository::{Access, KeySource};
use crate::store::faulty::{Fault as StoreFault, FaultyStore, Operation, Rule, Script};
use crate::store::{RetryPolicy, Store, StoreOptions};

const ALL: ReadData = ReadData { percent: 100, seed: 0, part: None };

/// A repository of three backups.
async fn history(seed: u64) -> (Synthetic, Vec<Manifest>) {
    let mut server = Synthetic::populated(seed).await;
    // More than four extents and pieces, so that there are blocks of both kinds.
    server.add_file("shop/big.MYD", 7 << 20);
    let mut manifests = Vec::new();
    for generation in 0..3 {
        manifests.push(server.backup().await);
        server.live(20);
        server.add_file(&format!("shop/new{generation}.MYD"), 300_000);
    }
    (server, manifests)
}

async fn run(server: &Synthetic, read_data: Option<ReadData>) -> CheckReport {
    check(&server.repository, &Selection::All, read_data, &Silent).await.unwrap()
}

fn ids(manifests: &[Manifest]) -> Vec<BackupId> {
    manifests.iter().map(|manifest| manifest.id.clone()).collect()
}

#[tokio::test]
async fn a_whole_repository_is_clean() {
    let (server, manifests) = history(1).await;
    assert!(server.state().len() > 10);
    let report = run(&server, Some(ALL)).await;
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(report.backups, ids(&manifests));
    assert_eq!(report.packs.objects as usize, server.packs().await.len());
    assert_eq!(report.read, report.packs);
    assert_eq!(report.unreferenced, Some(Tally::default()));
    let report = run(&server, None).await;
    assert!(report.is_clean() && report.read == Tally::default());
}

#[tokio::test]
async fn every_pack_that_is_missing_cut_or_changed_is_found_with_the_backups_it_hits() {
    let (server, manifests) = history(2).await;
    let mut spared = 0;
    for pack in server.packs().await {
        let key = Synthetic::pack_key(pack);
        for change in 0..3 {
            let mut before = Vec::new();
            server
                .tamper(&key, |mut bytes| {
                    before = bytes.clone();
                    let middle = bytes.len() / 3;
                    match change {
                        0 => return None,
                        1 => bytes.truncate(middle),
                        _ => bytes[middle] ^= 1,
                    }
                    Some(bytes)
                })
                .await;
            let report = run(&server, Some(ALL)).await;
            let damaged: Vec<_> = report.damages.iter().map(|damage| damage.object.as_str()).collect();
            assert_eq!(damaged, [key.as_str()], "change {change}");
            assert!(!report.damaged_backups.is_empty() && !report.damages[0].files.is_empty());
            assert_eq!(report.damages[0].backups, report.damaged_backups);
            for manifest in &manifests {
                let alone = Selection::These(BTreeSet::from([manifest.id.clone()]));
                let alone = check(&server.repository, &alone, Some(ALL), &Silent).await.unwrap();
                let hit = report.damaged_backups.contains(&manifest.id);
                assert_eq!(alone.damaged_backups.is_empty(), !hit, "{} and pack {pack}", manifest.id);
                assert_eq!(alone.unreferenced, None);
                spared += u32::from(!hit);
            }
            if change < 2 {
                // Sizes alone tell.
                let quick = run(&server, None).await;
                assert_eq!(quick.damaged_backups, report.damaged_backups);
                assert!(quick.damages[0].problem.contains(["is missing", "expected"][change]), "{quick:?}");
            }
            server.objects.put(&key.as_str().into(), before.into()).await.unwrap();
        }
    }
    assert!(spared > 0, "not every backup needs every pack");
    assert!(run(&server, Some(ALL)).await.is_clean());
}

/// A changed byte hits the backups that need the chunk in which it is; the others of the pack are as they were.
/// A sealed repository is checked like any other, and a byte that was changed or an object that was exchanged is found.
#[tokio::test]
async fn a_sealed_repository_is_clean_until_an_object_is_exchanged() {
    let mut server = Synthetic::sealed(3).await;
    server.populate();
    let one = server.backup().await;
    server.live(20);
    let other = server.backup().await;
    let report = run(&server, Some(ALL)).await;
    assert!(report.is_clean() && report.pages > 0 && report.unopened == Tally::default(), "{report:#?}");
    assert_eq!(report.read, report.packs);
    let manifest = |backup: &Manifest| ObjectKey::Manifest(backup.id.clone()).text();
    let stored = server.stored().await;
    let packs: Vec<&String> = stored.keys().filter(|key| key.starts_with("packs/")).collect();
    for (key, by) in [(manifest(&one), manifest(&other)), (packs[0].clone(), packs[1].clone())] {
        server.objects.put(&key.as_str().into(), stored[&by].clone().into()).await.unwrap();
        let report = run(&server, Some(ALL)).await;
        assert!(report.damages.iter().any(|damage| damage.object == key), "{key}: {report:#?}");
        server.objects.put(&key.as_str().into(), stored[&key].clone().into()).await.unwrap();
    }
    // Another repository's manifest, which no key of this one opens.
    let mut foreign = Synthetic::sealed(3).await;
    foreign.populate();
    let theirs = foreign.backup().await;
    let bytes = foreign.stored().await[&manifest(&theirs)].clone();
    server.objects.put(&manifest(&one).as_str().into(), bytes.into()).await.unwrap();
    let report = run(&server, None).await;
    assert_eq!(report.damaged_backups, [one.id], "{report:#?}");
}

/// Opens the repository anew with a key for maps alone.
async fn lock_data(server: &mut Synthetic) {
    struct MapKey(SecretKey);
    #[async_trait::async_trait]
    impl KeySource for MapKey {
        async fn key(&self, _: &KeySlot) -> Result<Option<SecretKey>, String> {
            Ok(Some(self.0.clone()))
        }
    }
    let key = key_of_file(&[7; 32]).unwrap();
    let slot = NewSlot { credential: Credential::File(key.clone()), wraps: Wraps::Map, label: String::new() };
    server.repository.add_slot(&slot, &SystemClock).await.unwrap();
    let store = Store::over("memory:///", server.objects.clone(), StoreOptions::default());
    let access = Access { keys: Arc::new(MapKey(key)), entropy: Arc::new(SystemEntropy) };
    server.repository = Repository::unlock(store, &access).await.unwrap();
}

/// With the keys of maps alone, all that they open is checked, and the rest is counted.
#[tokio::test]
async fn a_key_for_maps_checks_all_that_it_opens_and_counts_the_rest() {
    let mut server = Synthetic::sealed(4).await;
    server.populate();
    let manifest = server.backup().await;
    let all = run(&server, Some(ALL)).await;
    lock_data(&mut server).await;
    let report = run(&server, Some(ALL)).await;
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!((report.pages, report.read, report.packs), (0, all.read, all.packs));
    assert!(report.unopened.objects > 0 && report.unopened.bytes < report.read.bytes);
    for pack in server.packs().await {
        let mut bytes = server.repository.read_pack(pack).await.unwrap().to_vec();
        if server.is_data(pack).await {
            bytes[100] ^= 1;
            server.objects.put(&Synthetic::pack_key(pack).as_str().into(), bytes.into()).await.unwrap();
        }
    }
    let report = run(&server, Some(ALL)).await;
    assert_eq!(report.damaged_backups, [manifest.id], "{report:#?}");
}

#[tokio::test]
async fn a_changed_chunk_hits_nobody_who_needs_others_of_its_pack() {
    let (server, manifests) = history(2).await;
    let (mut spared, mut hit) = (0, 0);
    for pack in server.packs().await {
        let key = Synthetic::pack_key(pack);
        let bytes = server.repository.read_pack(pack).await.unwrap();
        let needed_by = |report: &CheckReport| report.damaged_backups.len();
        server.tamper(&key, |_| None).await;
        let all = needed_by(&run(&server, None).await);
        for entry in
            crate::format::pack::parse_pack(pack, &bytes, server.repository.keyring()).unwrap().entries.iter().take(6)
        {
            let mut changed = bytes.to_vec();
            changed[(entry.offset + entry.stored_bytes) as usize - 1] ^= 1;
            server.objects.put(&key.as_str().into(), changed.into()).await.unwrap();
            let report = run(&server, Some(ALL)).await;
            assert_eq!((report.damages.len(), report.damages[0].object.as_str()), (1, key.as_str()), "{report:#?}");
            assert!(report.damages[0].problem.contains("hash"), "{report:#?}");
            assert_eq!(report.damages[0].backups, report.damaged_backups);
            assert!(needed_by(&report) > 0 && needed_by(&report) <= all && report.backups.len() == manifests.len());
            spared += usize::from(needed_by(&report) < all);
            hit += 1;
        }
        server.objects.put(&key.as_str().into(), bytes.into()).await.unwrap();
    }
    assert!(spared > 0 && spared < hit, "{spared} of {hit} chunks are needed by fewer backups than their pack");
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_is_damage_and_hides_no_other() {
    let (server, manifests) = history(3).await;
    let key = ObjectKey::Manifest(manifests[1].id.clone()).text();
    server.tamper(&key, |bytes| Some(bytes[..bytes.len() - 40].to_vec())).await;
    let report = run(&server, None).await;
    assert_eq!(report.damaged_backups, [manifests[1].id.clone()]);
    assert_eq!((report.damages.len(), report.damages[0].object.as_str()), (1, key.as_str()));
    assert_eq!(report.backups, ids(&manifests));
    assert_eq!(report.unreferenced, None, "what the unreadable backup needs is not known");
}

#[tokio::test]
async fn where_it_is_not_known_what_a_backup_needs_all_packs_are_read() {
    let (server, manifests) = history(3).await;
    let manifest = ObjectKey::Manifest(manifests[2].id.clone()).text();
    server.tamper(&manifest, |_| None).await;
    let others: BTreeSet<PackId> = {
        let mut check = Check::begin(&server.repository, &Selection::All).await.unwrap();
        check.look(None).await.unwrap();
        check.needed.keys().copied().collect()
    };
    server.repository.commit(&manifests[2], None).await.unwrap();
    let own: Vec<PackId> = server.packs().await.into_iter().filter(|pack| !others.contains(pack)).collect();
    assert!(!own.is_empty());
    server.tamper(&manifest, |bytes| Some(bytes[..bytes.len() - 40].to_vec())).await;
    let whole = run(&server, Some(ALL)).await;
    assert_eq!((whole.damages.len(), whole.read.objects), (1, (others.len() + own.len()) as u64));
    for (place, pack) in own.iter().enumerate() {
        let key = Synthetic::pack_key(*pack);
        server
            .tamper(&key, |bytes| {
                let mut bytes = bytes.to_vec();
                match place % 3 {
                    0 => bytes[40] ^= 1,
                    1 => bytes.truncate(100),
                    _ => bytes.truncate(1),
                }
                Some(bytes)
            })
            .await;
    }
    let report = run(&server, Some(ALL)).await;
    assert_eq!(report.findings.damaged, own.iter().copied().collect());
    assert_eq!(report.damaged_backups, [manifests[2].id.clone()]);
    // Those of a backup that was not asked for are not looked at, and nothing is said of what is known to be needed by nobody.
    let alone = Selection::These([manifests[0].id.clone()].into());
    assert!(check(&server.repository, &alone, Some(ALL), &Silent).await.unwrap().is_clean());
    server.tamper(&manifest, |_| None).await;
    assert!(run(&server, Some(ALL)).await.is_clean());
}

#[tokio::test]
async fn an_edition_that_is_damaged_is_told_and_hits_no_backup_that_has_another() {
    let (server, manifests) = history(3).await;
    let edition = Manifest { edition: 1, ..manifests[1].clone() };
    server.repository.commit(&edition, None).await.unwrap();
    let (first, second) = (ObjectKey::edition(&edition.id, 0).text(), ObjectKey::edition(&edition.id, 1).text());
    assert!(run(&server, None).await.is_clean());
    server.tamper(&second, |bytes| Some(bytes[..bytes.len() - 40].to_vec())).await;
    let report = run(&server, None).await;
    assert_eq!((report.damages.len(), report.damages[0].object.as_str()), (1, second.as_str()));
    assert_eq!((report.damaged_backups.len(), report.unreferenced), (0, None));
    assert_eq!(report.backups, ids(&manifests));
    server.tamper(&first, |_| Some(b"{}".to_vec())).await;
    let report = run(&server, None).await;
    assert_eq!((report.damages.len(), report.damaged_backups), (2, vec![edition.id.clone()]));
    assert_eq!(report.backups, ids(&manifests));
    // One that another has replaced is of no concern.
    server.repository.commit(&Manifest { edition: 2, ..edition.clone() }, None).await.unwrap();
    assert!(run(&server, None).await.is_clean());
}

#[tokio::test]
async fn a_page_without_a_source_is_found_in_every_backup_that_shares_the_map() {
    for space in [4, 70] {
        let mut server = Synthetic::populated(4).await;
        let whole = server.backup().await;
        server.mistake = Some(Mistake::Forget(SpaceKey { space: SpaceId(space), part: 0 }));
        let broken = [server.backup().await, server.backup().await];
        let report = run(&server, None).await;
        assert_eq!(report.damaged_backups, ids(&broken), "{report:#?}");
        assert!(!report.damaged_backups.contains(&whole.id));
        let name = &server.spaces[&SpaceKey { space: SpaceId(space), part: 0 }].name;
        assert!(report.damages[0].problem.contains(name.as_str()), "{report:#?}");
    }
}

#[tokio::test]
async fn a_reference_to_what_a_pack_does_not_hold_is_found_when_packs_are_read() {
    let mut server = Synthetic::populated(5).await;
    server.backup().await;
    server.live(10);
    server.mistake = Some(Mistake::Misplace(SpaceKey { space: SpaceId(3), part: 0 }));
    let broken = server.backup().await;
    assert!(run(&server, None).await.is_clean());
    let report = run(&server, Some(ALL)).await;
    assert_eq!(report.damaged_backups, [broken.id]);
    assert_eq!(report.damages.len(), 1);
    assert!(report.damages[0].problem.contains("holds no chunk"), "{report:#?}");
    assert_eq!(report.damages[0].files, ["shop/orders.ibd"]);
}

fn key(space: u32) -> SpaceKey {
    SpaceKey { space: SpaceId(space), part: 0 }
}

/// A server with two tables of 4 KiB pages, and its first backup.
async fn twins(seed: u64) -> (Synthetic, Manifest) {
    let mut server = Synthetic::populated(seed).await;
    server.add_space(5, "shop/twin.ibd", 4096, 64 * 5);
    let whole = server.backup().await;
    assert!(run(&server, Some(ALL)).await.is_clean());
    (server, whole)
}

#[tokio::test]
async fn every_page_that_is_stored_and_needed_is_counted_once() {
    let (mut server, _) = twins(20).await;
    let stored = |server: &Synthetic| {
        let pages = server.spaces.values().flat_map(|space| &space.pages);
        pages.filter(|page| page.iter().any(|byte| *byte != 0)).count() as u64
    };
    assert_eq!(run(&server, Some(ALL)).await.pages, stored(&server));
    assert_eq!(run(&server, None).await.pages, 0);
    let before = stored(&server);
    server.live(30);
    server.backup().await;
    let after = run(&server, Some(ALL)).await;
    assert!(after.is_clean(), "{after:#?}");
    assert!(after.pages > before && after.pages <= before + 31 + 90 + 1, "{} after {before}", after.pages);
}

#[tokio::test]
async fn a_map_that_points_at_wrong_pages_is_found_with_the_backups_and_files_it_hits() {
    let other = "calls itself page";
    for (mistake, problem, file) in [
        (Mistake::Exchange(key(3)), other, "shop/orders.ibd"),
        (Mistake::Exchange(key(4)), other, "shop/items.ibd"),
        (Mistake::Borrow(key(3), key(5)), "page of tablespace 5, expected 3", "shop/orders.ibd"),
        (Mistake::Shorten(key(3)), "page 0 says 300 pages, the page map 256", "shop/orders.ibd"),
        (Mistake::Shorten(key(4)), "page 0 says 581 pages, the page map 576", "shop/items.ibd"),
        (Mistake::Flags(key(70)), "page 0 has flags 0x15, the page map says 0x35", "other/small.ibd"),
    ] {
        let (mut server, _) = twins(21).await;
        server.mistake = Some(mistake);
        let broken = [server.backup().await, server.backup().await];
        server.mistake = None;
        server.backup().await;
        assert!(run(&server, None).await.is_clean(), "{mistake:?}: sizes and coverage are right");
        let report = run(&server, Some(ALL)).await;
        assert_eq!(report.damaged_backups, ids(&broken), "{mistake:?}: {report:#?}");
        let says = |damage: &Damage| damage.problem.contains(problem);
        assert!(report.damages.iter().any(says), "{mistake:?}: {report:#?}");
        for damage in &report.damages {
            assert_eq!((damage.files.as_slice(), &damage.backups), (&[file.to_owned()][..], &report.damaged_backups));
            assert!(damage.object.starts_with("packs/"), "{damage:?}");
        }
    }
}

#[tokio::test]
async fn a_page_from_the_future_is_damage_of_the_backups_that_end_before_it() {
    let (mut server, whole) = twins(22).await;
    // The next backups end at 2500, 3500, 4500; these pages are of 3550.
    server.ahead = 1500;
    server.live(1);
    let broken = [server.backup().await, server.backup().await];
    server.ahead = 0;
    let sound = server.backup().await;
    let report = run(&server, Some(ALL)).await;
    assert_eq!(report.damaged_backups, ids(&broken), "{report:#?}");
    assert!(report.damages[0].problem.contains("has LSN 3550, but a backup that needs it ends at 2500"), "{report:#?}");
    for (manifest, clean) in [(&whole, true), (&broken[0], false), (&broken[1], false), (&sound, true)] {
        let alone = Selection::These(BTreeSet::from([manifest.id.clone()]));
        let alone = check(&server.repository, &alone, Some(ALL), &Silent).await.unwrap();
        assert_eq!(alone.is_clean(), clean, "{}: {alone:#?}", manifest.lsn.last);
    }
}

#[tokio::test]
async fn a_page_that_was_stored_with_a_wrong_checksum_is_damage_while_it_is_needed() {
    for space in [3, 4] {
        let (mut server, _) = twins(23).await;
        server.spoil(key(space), 70);
        let broken = server.backup().await;
        server.write(key(space), 70);
        let sound = server.backup().await;
        let report = run(&server, Some(ALL)).await;
        assert_eq!(report.damaged_backups, ids(&[broken]), "{report:#?}");
        assert_eq!(report.damages.len(), 1);
        let problem = &report.damages[0].problem;
        assert!(problem.contains(&format!("page 70 of tablespace {space}: checksum is")), "{problem}");
        let alone = Selection::These(BTreeSet::from([sound.id]));
        assert!(check(&server.repository, &alone, Some(ALL), &Silent).await.unwrap().is_clean());
    }
}

#[tokio::test]
async fn many_turns_find_wrong_pages_too() {
    let (mut server, _) = twins(24).await;
    for mistake in [Mistake::Exchange(key(4)), Mistake::Shorten(key(5))] {
        server.mistake = Some(mistake);
        server.backup().await;
        server.live(9);
    }
    let once = run(&server, Some(ALL)).await;
    assert_eq!(once.damaged_backups.len(), 2, "{once:#?}");
    let mut check = Check::begin(&server.repository, &Selection::All).await.unwrap();
    check.look(None).await.unwrap();
    check.read(ALL, true, |start| References::from(start).with_max(3), &Silent).await.unwrap();
    check.blame().await.unwrap();
    assert_eq!(check.report(true, Some(ALL)), once);
}

#[tokio::test]
async fn many_turns_find_what_one_finds() {
    let mut server = Synthetic::populated(6).await;
    server.mistake = Some(Mistake::Misplace(SpaceKey { space: SpaceId(4), part: 0 }));
    server.backup().await;
    let packs = server.packs().await;
    // The map pack stays whole, so that both kinds of damage show.
    let damaged = if server.is_data(packs[1]).await { packs[1] } else { packs[2] };
    let key = Synthetic::pack_key(damaged);
    server
        .tamper(&key, |mut bytes| {
            bytes[60] ^= 1;
            Some(bytes)
        })
        .await;
    let once = run(&server, Some(ALL)).await;
    assert!(!once.is_clean());
    let mut check = Check::begin(&server.repository, &Selection::All).await.unwrap();
    check.look(None).await.unwrap();
    check.read(ALL, true, |start| References::from(start).with_max(2), &Silent).await.unwrap();
    check.blame().await.unwrap();
    assert_eq!(check.report(true, Some(ALL)), once);
}

#[tokio::test]
async fn a_sample_reads_some_packs_and_the_same_ones_again() {
    let (server, _) = history(7).await;
    let half = ReadData { percent: 50, seed: 9, part: None };
    let (one, other) = (run(&server, Some(half)).await, run(&server, Some(half)).await);
    assert!(one.read.objects > 0 && one.read.objects < one.packs.objects, "{one:?}");
    assert_eq!(one, other);
    assert_eq!(run(&server, Some(ReadData { percent: 0, seed: 9, part: None })).await.read, Tally::default());
}

#[tokio::test]
async fn the_parts_of_a_check_are_all_packs_each_once() {
    let (server, _) = history(7).await;
    let mut read = Tally::default();
    let packs = run(&server, None).await.packs;
    for part in 1..=3 {
        let how = ReadData { percent: 34, seed: u64::from(part), part: Some((part, 3)) };
        let tally = run(&server, Some(how)).await.read;
        assert!(tally.objects < packs.objects);
        read = Tally { objects: read.objects + tally.objects, bytes: read.bytes + tally.bytes };
    }
    assert_eq!((read.objects, read.bytes), (packs.objects, packs.bytes));
}

#[tokio::test]
async fn packs_that_nobody_needs_are_counted() {
    let (server, _) = history(8).await;
    let pack = crate::format::pack::PackBuilder::new(crate::format::pack::PackKind::Data).finish().unwrap();
    let bytes = pack.bytes.len() as u64;
    server.repository.put_pack(pack.id, pack.bytes.into()).await.unwrap();
    let report = run(&server, None).await;
    assert!(report.is_clean());
    assert_eq!(report.unreferenced, Some(Tally { objects: 1, bytes }));
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_an_error_and_no_damage() {
    let (server, _) = history(9).await;
    for (operation, keys) in [(Operation::Get, "packs/"), (Operation::List, "packs"), (Operation::Get, "backups/")] {
        let rule = Rule::always(operation, StoreFault::Reset).on_keys(keys);
        let objects = FaultyStore::new(server.objects.clone(), Script { rules: vec![rule], ..Script::default() });
        let retry = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
        let store = Store::over("memory:///", Arc::new(objects), StoreOptions { retry, ..StoreOptions::default() });
        let repository = Repository::open(store).await.unwrap();
        let error = check(&repository, &Selection::All, None, &Silent).await.unwrap_err();
        assert_eq!(error.kind(), Kind::StorageUnavailable, "{keys}: {error}");
    }
}

#[tokio::test]
async fn a_backup_that_does_not_exist_cannot_be_checked() {
    let (server, _) = history(10).await;
    let stranger = Selection::These(BTreeSet::from(["20200101T000000Z-000000".parse().unwrap()]));
    assert!(check(&server.repository, &stranger, None, &Silent).await.is_err());
}

#[tokio::test]
async fn what_is_left_of_each_damaged_backup_is_told_by_file() {
    let (server, manifests) = history(11).await;
    let mut files = BTreeSet::new();
    for pack in server.packs().await {
        let key = Synthetic::pack_key(pack);
        let bytes = server.repository.read_pack(pack).await.unwrap();
        let is_data = server.is_data(pack).await;
        server.tamper(&key, |_| None).await;
        let report = run(&server, None).await;
        let wrecks: Vec<_> = report.wrecks.iter().map(|wreck| wreck.backup.clone()).collect();
        assert_eq!(wrecks, report.damaged_backups);
        assert_eq!(report.findings.damaged, BTreeSet::from([pack]));
        assert!(!report.findings.complete && run(&server, Some(ALL)).await.findings.complete);
        for wreck in &report.wrecks {
            assert!(!is_data || (!wreck.unreadable && !wreck.files.is_empty()), "{wreck:?}");
            assert!(wreck.files.is_sorted());
            files.extend(wreck.files.iter().cloned());
        }
        server.objects.put(&key.as_str().into(), bytes.into()).await.unwrap();
    }
    // Each file that is not empty or zero lies in some pack.
    let expected: BTreeSet<Arc<str>> = server
        .state()
        .into_iter()
        .filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))
        .map(|(path, _)| path.into())
        .collect();
    // What was added behind the last backup is in none.
    assert_eq!(files, expected.into_iter().filter(|path| **path != *"shop/new2.MYD").collect());
    let key = ObjectKey::Manifest(manifests[0].id.clone()).text();
    server.tamper(&key, |bytes| Some(bytes[1..].to_vec())).await;
    let report = run(&server, Some(ALL)).await;
    let wreck = Wreck { backup: manifests[0].id.clone(), unreadable: true, crowded: false, files: Vec::new() };
    assert_eq!((report.wrecks, report.findings.complete), (vec![wreck], false));
}

#[tokio::test]
async fn a_list_of_damaged_packs_that_cannot_be_read_is_damage() {
    use crate::model::{SystemClock, SystemEntropy};
    let (server, manifests) = history(12).await;
    let pack = server.packs().await[0];
    let findings = Findings { damaged: BTreeSet::from([pack]), ..Findings::default() };
    let record = || server.repository.record_damage(&findings, &SystemClock, &SystemEntropy);
    let key = record().await.unwrap().0.unwrap();
    let report = run(&server, Some(ALL)).await;
    assert_eq!((report.is_clean(), report.findings.whole), (true, BTreeSet::from([pack])), "it was read and is right");
    server.tamper(&key, |bytes| Some(bytes[1..].to_vec())).await;
    let report = run(&server, None).await;
    assert_eq!((report.damages.len(), report.damages[0].object.as_str()), (1, key.as_str()));
    assert_eq!((report.damaged_backups.len(), report.wrecks.len()), (0, 0));
    let alone = Selection::These(BTreeSet::from([manifests[0].id.clone()]));
    assert!(check(&server.repository, &alone, None, &Silent).await.unwrap().is_clean());
    record().await.unwrap();
    assert!(run(&server, None).await.is_clean(), "a newer one counts");
}
