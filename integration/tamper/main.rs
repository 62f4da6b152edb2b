//! Somebody changes what is stored: each byte of each object, one after the other, and each object is removed, cut, lengthened
//! and exchanged for another. Every time a check, or whoever restores, must notice.
//!
//! Who notices is asked in this order, and the first one counts:
//!
//! 1. *opening*: every command that opens the repository.
//! 2. *check*: `check --read-data` of everything.
//! 3. *name*: whoever asks for the backup by its name, as `check --backup` and `restore --backup` do.
//! 4. *fetch*: a restore of each backup gives an error.
//!
//! What nobody notices must change nothing: it is a bug unless no backup needs the object.

// What the made-up server uses of the library by paths of the crate's root.
use haulout::{format, model, repository, store};

#[path = "../../src/restore/synthetic.rs"]
#[allow(dead_code, reason = "made for the library's tests, which need more of it")]
mod synthetic;

mod stash;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use stash::{Judge, Notice, Objects};
use synthetic::Synthetic;

/// Threads that try changes.
const THREADS: usize = 2;

/// True when the long tests are wanted too (`integration/test.sh --full`).
fn full() -> bool {
    std::env::var_os("HAULOUT_TEST_FULL").is_some()
}

/// Who noticed how many changes.
#[derive(Debug, Default)]
struct Tally {
    tried: usize,
    noticed: BTreeMap<Notice, usize>,
    /// Changes of objects that no backup needs, by the folder.
    needless: BTreeMap<String, usize>,
    missed: Vec<String>,
}

impl Tally {
    fn merge(&mut self, other: Tally) {
        self.tried += other.tried;
        other.noticed.into_iter().for_each(|(notice, count)| *self.noticed.entry(notice).or_default() += count);
        other.needless.into_iter().for_each(|(folder, count)| *self.needless.entry(folder).or_default() += count);
        self.missed.extend(other.missed);
    }
}

/// A change: its name, and the objects that are other, or gone.
type Change = (String, Vec<(String, Option<Bytes>)>);

/// Tries `changes`, each in the whole repository, and tells who noticed.
fn try_all(what: &str, objects: &Objects, count: usize, change: impl Fn(usize) -> Change + Sync) {
    let next = AtomicUsize::new(0);
    let sum = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let tally = runtime.block_on(async {
                    let judge = Judge::new(objects).await;
                    let mut tally = Tally::default();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return tally;
                        }
                        let (name, changed) = change(number);
                        tally.tried += 1;
                        match judge.judge(&changed).await {
                            Some(notice) => *tally.noticed.entry(notice).or_default() += 1,
                            None if changed.iter().all(|(key, _)| !stash::is_needed(key)) => {
                                let folder = changed[0].0.split('/').next().unwrap_or_default().to_owned();
                                *tally.needless.entry(folder).or_default() += 1;
                            }
                            None => tally.missed.push(name),
                        }
                    }
                });
                sum.lock().unwrap().merge(tally);
            });
        }
    });
    let Tally { tried, noticed, needless, missed } = sum.into_inner().unwrap();
    let noticed: Vec<String> = noticed.iter().map(|(notice, count)| format!("{count} by {notice}")).collect();
    let needless: Vec<String> =
        needless.iter().map(|(folder, count)| format!(", {count} of {folder}/ that no backup needs")).collect();
    println!("{what}: {tried} tried, noticed {}{}, {} missed", noticed.join(", "), needless.concat(), missed.len());
    assert!(missed.is_empty(), "{what}: {} missed, such as {:#?}", missed.len(), &missed[..missed.len().min(20)]);
}

/// Every single bit of every byte when `bits` is 8, or one bit of each; of one byte in `step`.
fn flip_each_byte(objects: &Objects, bits: usize, step: usize) {
    let places: Vec<(&String, &Bytes, usize)> = objects
        .iter()
        .flat_map(|(key, bytes)| (0..bytes.len()).map(move |place| (key, bytes, place)))
        .step_by(step)
        .collect();
    try_all(&format!("{} bytes, {bits} bits each", places.len()), objects, places.len() * bits, |number| {
        let (key, bytes, place) = places[number / bits];
        // Each bit has its turn.
        let bit = if bits == 8 { number % 8 } else { place % 8 };
        let mut changed = bytes.to_vec();
        changed[place] ^= 1 << bit;
        (format!("bit {bit} of byte {place} of {key}"), vec![(key.clone(), Some(changed.into()))])
    });
}

fn cut_and_lengthen(objects: &Objects, step: usize) {
    let cuts: Vec<(&String, &Bytes, usize)> = objects
        .iter()
        .flat_map(|(key, bytes)| {
            let last = bytes.len() - 1;
            let lengths = (0..last).step_by(step).chain([last]);
            lengths.map(move |length| (key, bytes, length))
        })
        .collect();
    try_all("objects cut to each length", objects, cuts.len(), |number| {
        let (key, bytes, length) = cuts[number];
        (format!("{key} cut to {length} bytes"), vec![(key.clone(), Some(bytes.slice(..length)))])
    });
    let tails: [&[u8]; 5] = [b"\0", b"\n", b" ", b"{}", &[0x5a; 300]];
    let all: Vec<_> = objects.iter().flat_map(|object| tails.iter().map(move |tail| (object, *tail))).collect();
    try_all("objects with bytes behind them", objects, all.len(), |number| {
        let ((key, bytes), tail) = all[number];
        let longer = [bytes, tail].concat();
        (format!("{key} with {tail:?} behind it"), vec![(key.clone(), Some(longer.into()))])
    });
}

fn remove_and_exchange(objects: &Objects) {
    let keys: Vec<&String> = objects.keys().collect();
    try_all("objects removed", objects, keys.len(), |number| {
        (format!("{} removed", keys[number]), vec![(keys[number].clone(), None)])
    });
    let all = keys.iter().flat_map(|one| keys.iter().map(|other| (*one, *other)));
    let ordered: Vec<(&String, &String)> = all.filter(|(one, other)| one != other).collect();
    let pairs = ordered.iter().copied().filter(|(one, other)| one < other);
    let pairs: Vec<(&String, &String)> = pairs.collect();
    try_all("objects exchanged", objects, pairs.len(), |number| {
        let (one, other) = pairs[number];
        let changed = vec![(one.clone(), Some(objects[other].clone())), (other.clone(), Some(objects[one].clone()))];
        (format!("{one} and {other} exchanged"), changed)
    });
    try_all("objects under another's name too", objects, ordered.len(), |number| {
        let (one, other) = ordered[number];
        (format!("{one} has the bytes of {other}"), vec![(one.clone(), Some(objects[other].clone()))])
    });
}

/// A repository of a few KiB: a full backup and an incremental of two tables of 1 KiB pages and some files, the documents of a run
/// that ended, and one of packs that were damaged once.
async fn small(mut server: Synthetic) -> Objects {
    server.add_space(3, "shop/orders.ibd", 1024, 3);
    server.add_space(4, "shop/items.ibd", 1024, 2);
    server.add_file("ib_logfile0", 300);
    server.add_file("shop/orders.frm", 60);
    let checkpoints = "backup_type = incremental\nfrom_lsn = 7\nto_lsn = 8\nlast_lsn = 9\nrecover_binlog_info = 1\n";
    server.files.insert("xtrabackup_checkpoints".to_owned(), checkpoints.into());
    let key = |space| format::map::SpaceKey { space: model::SpaceId(space), part: 0 };
    for page in 1..3 {
        server.backup().await;
        server.write(key(3), page);
        server.write(key(4), 1);
    }
    let mut lease = server.repository.lease("backup", &model::SystemEntropy).await.unwrap();
    server.repository.release(&mut lease).await.unwrap();
    for damaged in [BTreeSet::from([model::PackId([7; 32])]), BTreeSet::new()] {
        let findings = repository::Findings { damaged, complete: true, ..repository::Findings::default() };
        server.repository.record_damage(&findings, &model::SystemClock, &model::SystemEntropy).await.unwrap();
    }
    stash::read(&server.objects).await
}

#[tokio::test]
async fn whatever_is_changed_in_a_small_repository_is_noticed() {
    let objects = small(Synthetic::new(1).await).await;
    println!("{} objects, {} bytes", objects.len(), objects.values().map(Bytes::len).sum::<usize>());
    assert!(objects.keys().filter(|key| key.starts_with("packs/")).count() >= 4, "{:#?}", objects.keys());
    remove_and_exchange(&objects);
    cut_and_lengthen(&objects, if full() { 1 } else { 3 });
    flip_each_byte(&objects, if full() { 8 } else { 1 }, 1);
}

/// The same where all is sealed, by whoever has the key.
#[tokio::test]
async fn whatever_is_changed_in_a_small_sealed_repository_is_noticed() {
    let objects = small(Synthetic::sealed(1).await).await;
    println!("{} sealed objects, {} bytes", objects.len(), objects.values().map(Bytes::len).sum::<usize>());
    remove_and_exchange(&objects);
    cut_and_lengthen(&objects, if full() { 1 } else { 7 });
    flip_each_byte(&objects, if full() { 8 } else { 1 }, if full() { 1 } else { 3 });
}

/// The same of what a real server's backups are, as an earlier version wrote them.
#[tokio::test]
async fn whatever_is_changed_in_a_golden_repository_is_noticed() {
    let objects = stash::load("integration/golden/format1-timeline/repository");
    remove_and_exchange(&objects);
    if full() {
        cut_and_lengthen(&objects, 997);
        flip_each_byte(&objects, 1, 97);
    }
}

/// Whatever is changed: backups that a check calls whole, and tables that it calls whole, come back byte for byte.
#[tokio::test]
async fn what_a_check_calls_whole_comes_back_as_it_was() {
    let objects = small(Synthetic::new(1).await).await;
    let judge = Judge::new(&objects).await;
    let expected = judge.all().await;
    assert!(expected.keys().any(|(_, table)| table.as_deref() == Some("items")), "{:#?}", expected.keys());
    let packs = objects.iter().filter(|(key, _)| key.starts_with("packs/"));
    let mut changes: Vec<Change> = Vec::new();
    for (key, bytes) in packs {
        changes.push((format!("{key} removed"), vec![(key.clone(), None)]));
        changes.push((format!("{key} cut"), vec![(key.clone(), Some(bytes.slice(..bytes.len() / 2)))]));
        for place in (0..bytes.len()).step_by(if full() { 5 } else { 41 }) {
            let mut changed = bytes.to_vec();
            changed[place] ^= 1;
            changes.push((format!("byte {place} of {key}"), vec![(key.clone(), Some(changed.into()))]));
        }
    }
    let (mut backups, mut tables) = (0, 0);
    for (name, changed) in &changes {
        judge.put(changed).await;
        let whole = judge.called_whole().await;
        backups += whole.iter().filter(|(_, table)| table.is_none()).count();
        tables += whole.iter().filter(|(_, table)| table.is_some()).count();
        for what in whole {
            assert_eq!(judge.fetched(&what).await.as_ref(), Some(&expected[&what]), "{name}: {what:?}");
        }
        judge.put_right(changed).await;
    }
    println!("{} changes: {backups} whole backups and {tables} whole tables of others came back", changes.len());
    assert!(backups > 20 && tables > 20, "{backups} and {tables}");
}
