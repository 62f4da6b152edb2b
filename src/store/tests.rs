//! What holds of every store, tried on a directory, in memory, and in memory with failures.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, TryStreamExt};
use object_store::memory::InMemory;
use tokio::time::Instant;

use super::{
    conformance::{Extent, conformance},
    faulty::{Fault, FaultyStore, Odds, Operation, Rule, Script},
    *,
};
use crate::{
    error::{Diagnose, Kind},
    model::{Entropy, Phase, Progress, SystemClock},
};

/// More than a page of the listing of a directory, which are 1024 entries, and than one of S3's.
const PAGES: Extent = Extent { many: 1100, large_bytes: 16 << 20 };

/// Chance that is the same in each run.
struct Same(u8);

impl Entropy for Same {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

fn options() -> StoreOptions {
    StoreOptions { entropy: Arc::new(Same(0x5a)), ..StoreOptions::default() }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn faulty(script: Script) -> (Store, FaultyStore) {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()), script);
    (Store::over("memory://faulty", Arc::new(faulty.clone()), options()), faulty)
}

fn rules(rules: impl Into<Vec<Rule>>) -> Script {
    Script { rules: rules.into(), ..Script::default() }
}

fn all_good(findings: &[Finding], context: &str) {
    for finding in findings {
        assert_eq!(finding.verdict, Verdict::Good, "{context}: {}: {}", finding.name, finding.detail);
    }
}

fn verdict(findings: &[Finding], name: &str) -> Verdict {
    findings.iter().find(|finding| finding.name == name).unwrap().verdict
}

async fn directory_store() -> (tempfile::TempDir, Store) {
    let scratch = tempfile::tempdir().unwrap();
    let url = StoreUrl::directory(&scratch.path().join("a/b c#1")).unwrap();
    let options = StoreOptions { create_directory: true, ..options() };
    let store = open(&url, &options).await.unwrap();
    (scratch, store)
}

#[tokio::test]
async fn a_directory_conforms() {
    let (_scratch, store) = directory_store().await;
    all_good(&conformance(&store, PAGES).await, "directory");
}

#[tokio::test]
async fn memory_conforms() {
    let store = open(&"memory://x".parse().unwrap(), &options()).await.unwrap();
    all_good(&conformance(&store, Extent::WHOLE).await, "memory");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_now_and_then_conforms() {
    let odds = Odds { reset: 100, lose_answer: 60, cut_body: 60, break_body: 100, hang: 20, ..Odds::default() };
    for seed in 0..6 {
        let (store, faulty) = faulty(Script { odds, seed, ..Script::default() });
        all_good(&conformance(&store, Extent { many: 300, large_bytes: 1 << 20 }).await, &format!("seed {seed}"));
        assert!(faulty.faults() > 50, "seed {seed}");
        assert!(store.counters().counts().retries > 50, "seed {seed}");
    }
}

#[tokio::test]
async fn a_store_without_conditions_conforms_but_for_races() {
    let (store, _) = faulty(rules([Rule::always(Operation::Put, Fault::RefuseCondition)]));
    let mut findings = conformance(&store, Extent::BRIEF).await;
    findings.retain(|finding| finding.name != "one_winner");
    all_good(&findings, "no conditions");
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_found_out_and_not_called_broken() {
    let (store, _) = faulty(rules([Rule::always(Operation::Put, Fault::IgnoreCondition)]));
    let findings = conformance(&store, Extent::BRIEF).await;
    assert_eq!(verdict(&findings, "other_bytes_refused"), Verdict::Weak);
    assert!(findings.iter().all(|finding| finding.verdict != Verdict::Failed), "{findings:?}");
    let capabilities = store.probe().await.unwrap();
    assert!(matches!(capabilities.conditional_put, Answer::No(_)), "{capabilities:?}");
}

#[tokio::test]
async fn a_flipped_bit_is_a_finding() {
    let (store, _) = faulty(rules([Rule::always(Operation::Get, Fault::FlipBit(77))]));
    assert_eq!(verdict(&conformance(&store, Extent::BRIEF).await, "round_trip"), Verdict::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_answer_is_lost_succeeds_and_stores_once() {
    let (store, _) = faulty(rules([Rule::once(Operation::Put, Fault::LoseAnswer)]));
    assert_eq!(store.put(&key("a"), "content").await.unwrap(), PutOutcome::AlreadyThere);
    assert_eq!(store.get(&key("a"), 100).await.unwrap(), "content");
    let counts = store.counters().counts();
    assert_eq!((counts.puts, counts.errors, counts.retries), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_put_over_other_bytes_is_refused_also_after_a_lost_answer() {
    let (store, faulty) = faulty(Script::default());
    store.put(&key("a"), "first").await.unwrap();
    faulty.set_script(rules([Rule::once(Operation::Put, Fault::Reset)]));
    let error = store.put(&key("a"), "other").await.unwrap_err();
    assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
    assert_eq!(store.get(&key("a"), 100).await.unwrap(), "first");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_is_given_up_in_bounded_time() {
    for fault in [Fault::Reset, Fault::Hang] {
        let (store, _) = faulty(rules([Rule::after(3, fault.clone())]));
        for number in 0..3 {
            store.put(&key(&format!("a{number}")), "x").await.unwrap();
        }
        let started = Instant::now();
        let error = store.put(&key("b"), "x").await.unwrap_err();
        assert_eq!(error.kind(), Kind::StorageUnavailable);
        let StoreError::Unavailable { attempts, .. } = error else { panic!("{error:?}") };
        assert!((4..=12).contains(&attempts), "{fault:?}: {attempts}");
        assert!(started.elapsed() < Duration::from_secs(240), "{fault:?}: {:?}", started.elapsed());
        let counts = store.counters().counts();
        assert_eq!((counts.errors, counts.retries), (u64::from(attempts), u64::from(attempts) - 1));
    }
}

/// Keeps the warnings.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Progress for Heard {
    fn begin(&self, _: Phase, _: Option<u64>) {}
    fn advance(&self, _: Phase, _: u64) {}
    fn end(&self, _: Phase) {}
    fn note(&self, _: &str) {}
    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_store_that_stays_away_is_told_soon_and_seldom() {
    let heard = Arc::new(Heard::default());
    let options = StoreOptions { progress: heard.clone(), ..options() };
    let faulty = FaultyStore::new(Arc::new(InMemory::new()), rules([Rule::once(Operation::Put, Fault::Reset)]));
    let store = Store::over("memory://faulty", Arc::new(faulty.clone()), options);
    store.put(&key("a"), "x").await.unwrap();
    assert_eq!(*heard.0.lock().unwrap(), [""; 0], "it passed at once");
    faulty.set_script(rules([Rule::always(Operation::Put, Fault::Reset)]));
    let (one, other) = (key("b"), key("c"));
    let (one, other) = tokio::join!(store.put(&one, "x"), store.put(&other, "x"));
    assert!(one.is_err() && other.is_err());
    let heard = heard.0.lock().unwrap();
    assert!((1..=3).contains(&heard.len()), "{heard:?}");
    assert!(
        heard[0].starts_with("requests to memory://faulty fail (") && heard[0].ends_with("; still trying"),
        "{heard:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_always_cut_short_is_an_error() {
    for fault in [Fault::CutBody(3), Fault::BreakBody(3)] {
        let (store, _) = faulty(rules([Rule::always(Operation::Get, fault)]));
        store.put(&key("a"), "0123456789").await.unwrap();
        for result in [store.get(&key("a"), 10).await, store.get_range(&key("a"), 2..8).await] {
            assert!(matches!(result, Err(StoreError::Unavailable { .. })), "{result:?}");
        }
    }
}

#[tokio::test]
async fn a_refusal_is_not_tried_again() {
    for (fault, space) in [(Fault::Denied, false), (Fault::NoSpace, true)] {
        let (store, faulty) = faulty(rules([Rule::always(Operation::Put, fault)]));
        let error = store.put(&key("a"), "x").await.unwrap_err();
        assert_eq!(matches!(error, StoreError::NoSpace { .. }), space, "{error:?}");
        assert_eq!(matches!(error, StoreError::Denied { .. }), !space, "{error:?}");
        assert_eq!(error.kind(), Kind::StorageUnavailable);
        assert!(error.hint().is_some());
        assert_eq!(faulty.faults(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_breaks_off_goes_on_where_it_was() {
    let (store, faulty) = faulty(Script::default());
    for number in 0..50 {
        store.put(&key(&format!("f/{number:02}")), "x").await.unwrap();
    }
    faulty.set_script(rules([Rule { times: 6, ..Rule::always(Operation::List, Fault::BreakBody(7)) }]));
    let found: Vec<_> = store.list(Some(&key("f"))).map_ok(|info| info.key.to_string()).try_collect().await.unwrap();
    let wanted: Vec<_> = (0..50).map(|number| format!("f/{number:02}")).collect();
    assert_eq!(found, wanted);
    faulty.set_script(rules([Rule::always(Operation::List, Fault::BreakBody(0))]));
    let error = store.list(None).try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { attempts: 12, .. }), "{error:?}");
}

#[tokio::test]
async fn objects_that_are_none_of_ours_are_not_listed() {
    let objects = Arc::new(InMemory::new());
    for path in ["ours", "not ours", "a b/c", "ümlaut"] {
        let path = object_store::path::Path::parse(path).unwrap();
        object_store::ObjectStoreExt::put(&objects, &path, "x".into()).await.unwrap();
    }
    let store = Store::over("memory://x", objects, options());
    let found: Vec<_> = store.list(None).map_ok(|info| info.key).try_collect().await.unwrap();
    assert_eq!(found, [key("ours")]);
}

#[tokio::test]
async fn a_missing_directory_is_no_repository_and_is_not_created() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("not/mounted");
    let error = open(&StoreUrl::directory(&directory).unwrap(), &options()).await.unwrap_err();
    assert!(matches!(error, StoreError::NoDirectory { .. }), "{error:?}");
    assert_eq!(error.kind(), Kind::NoRepository);
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_directory_that_is_taken_away_is_not_created_anew() {
    let (_scratch, store) = directory_store().await;
    store.put(&key("a/b"), "x").await.unwrap();
    let directory = store.origin().url.parse::<StoreUrl>().unwrap().as_directory().unwrap().to_owned();
    for replaced in [false, true] {
        std::fs::rename(&directory, directory.with_extension(if replaced { "old2" } else { "old" })).unwrap_or(());
        if replaced {
            std::fs::create_dir(&directory).unwrap();
        }
        let errors = [
            store.put(&key("c/d"), "x").await.map(drop),
            store.get(&key("a/b"), 10).await.map(drop),
            store.head(&key("a/b")).await.map(drop),
            store.delete(&key("a/b")).await,
            store.list(None).try_collect::<Vec<_>>().await.map(drop),
        ];
        for error in errors {
            assert!(matches!(error, Err(StoreError::DirectoryGone { .. })), "{error:?}");
        }
        assert_eq!(directory.exists(), replaced);
    }
}

#[tokio::test]
async fn a_file_is_no_repository_directory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = open(&StoreUrl::directory(file.path()).unwrap(), &options()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage, "{error:?}");
}

#[tokio::test]
async fn what_a_killed_run_left_half_written_is_no_object() {
    let (_scratch, store) = directory_store().await;
    store.put(&key("packs/ab/abcd"), "whole").await.unwrap();
    let directory = store.origin().url.parse::<StoreUrl>().unwrap().as_directory().unwrap().to_owned();
    for name in ["packs/ab/abcd#1", "packs/ab/ef01#1", "packs/ab/ef01#2"] {
        std::fs::write(directory.join(name), "half").unwrap();
    }
    let found: Vec<_> = store.list(None).map_ok(|info| info.key).try_collect().await.unwrap();
    assert_eq!(found, [key("packs/ab/abcd")]);
    assert_eq!(store.put(&key("packs/ab/ef01"), "whole too").await.unwrap(), PutOutcome::Stored);
    assert_eq!(store.get(&key("packs/ab/ef01"), 100).await.unwrap(), "whole too");
}

#[tokio::test]
async fn a_probe_tells_what_a_store_can_do_and_leaves_nothing() {
    let (_scratch, directory) = directory_store().await;
    let memory = Store::over("memory://x", Arc::new(InMemory::new()), options());
    for store in [directory, memory] {
        let capabilities = store.probe().await.unwrap();
        for answer in [
            &capabilities.write,
            &capabilities.read,
            &capabilities.list,
            &capabilities.delete,
            &capabilities.conditional_put,
        ] {
            assert_eq!(*answer, Answer::Yes, "{store:?} {capabilities:?}");
        }
        assert_eq!(capabilities.clock_skew_seconds, Some(0));
        assert!(capabilities.findings().iter().all(|finding| finding.verdict != Verdict::Failed));
        assert!(store.list(None).try_collect::<Vec<_>>().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_probe_names_each_right_that_is_missing() {
    for (operation, name, expected) in [
        (Operation::Put, "write", Verdict::Failed),
        (Operation::Get, "read", Verdict::Failed),
        (Operation::List, "list", Verdict::Failed),
        (Operation::Delete, "delete", Verdict::Weak),
    ] {
        let (store, _) = faulty(rules([Rule::always(operation, Fault::Denied)]));
        let findings = store.probe().await.unwrap().findings();
        assert_eq!(verdict(&findings, name), expected, "{findings:?}");
    }
}

#[tokio::test]
async fn a_clock_that_is_off_is_told_in_seconds() {
    struct Off(i64);
    impl crate::model::Clock for Off {
        fn now(&self) -> crate::model::Timestamp {
            crate::model::Timestamp(SystemClock.now().0 + jiff::SignedDuration::from_secs(self.0))
        }
    }
    for (off, expected) in [(-300, Verdict::Weak), (300, Verdict::Weak), (2000, Verdict::Failed)] {
        let options = StoreOptions { clock: Arc::new(Off(off)), ..options() };
        let store = Store::over("memory://x", Arc::new(InMemory::new()), options);
        let capabilities = store.probe().await.unwrap();
        let skew = capabilities.clock_skew_seconds.unwrap();
        assert!((skew + off).abs() <= 2, "{skew} with {off}");
        assert_eq!(verdict(&capabilities.findings(), "clock"), expected);
    }
}

/// As whoever reads ahead does while he has other things to do.
#[tokio::test(start_paused = true)]
async fn reads_that_nobody_polls_keep_no_other_from_the_store() {
    let slow = Rule::always(Operation::Get, Fault::Delay(Duration::from_secs(1)));
    let (store, faulty) = faulty(rules([slow]));
    let store =
        Store::over("memory://faulty", Arc::new(faulty), StoreOptions { reads_max: 1, ..store.shared.options.clone() });
    for name in ["a", "b"] {
        store.put(&key(name), "content").await.unwrap();
    }
    let (first, second) = (key("a"), key("b"));
    for (name, ahead) in [("whole", store.get(&first, 7).boxed()), ("range", store.get_range(&first, 0..7).boxed())] {
        let mut ahead = ahead;
        assert!(futures::poll!(&mut ahead).is_pending(), "{name}");
        let limit = Duration::from_secs(20);
        let read = tokio::time::timeout(limit, store.get(&second, 7)).await;
        assert_eq!(read.expect("it waited for one that nobody polls").unwrap(), "content", "{name}");
        assert_eq!(ahead.await.unwrap(), "content");
    }
    // One that is dropped goes away.
    let mut ahead = store.get(&first, 7).boxed();
    assert!(futures::poll!(&mut ahead).is_pending());
    drop(ahead);
    assert_eq!(store.head(&second).await.unwrap().size, 7);
}

/// On the machine's clock, with a real store: twenty packs of 64 KiB at a quarter of a MiB a second take some five seconds.
#[tokio::test]
async fn uploads_keep_below_the_limit_that_was_set() {
    let scratch = tempfile::tempdir().unwrap();
    let url: StoreUrl = format!("file://{}", scratch.path().display()).parse().unwrap();
    let (count, bytes, rate) = (20u64, 64 << 10, 256 << 10);
    let options = StoreOptions { upload_rate_max: Some(rate), create_directory: true, ..options() };
    let store = open(&url, &options).await.unwrap();
    let begun = std::time::Instant::now();
    let puts = (0..count).map(|number| {
        let store = store.clone();
        async move { store.put(&key(&format!("packs/{number}")), vec![7; bytes as usize]).await.unwrap() }
    });
    futures::future::join_all(puts).await;
    let seconds = begun.elapsed().as_secs_f64();
    // The last one has only begun by then.
    let expected = ((count - 1) * bytes) as f64 / rate as f64;
    assert!(seconds >= expected * 0.95, "{seconds} s for what takes {expected} s");
    assert!(seconds < expected * 3.0, "{seconds} s for what takes {expected} s");
}

/// So that a restore of a small repository keeps below it, too, all of whose packs are asked for at once.
#[tokio::test]
async fn downloads_keep_below_the_limit_that_was_set_however_many_are_asked_for_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let url: StoreUrl = format!("file://{}", scratch.path().display()).parse().unwrap();
    let (count, bytes, rate) = (12u64, 64 << 10, 256 << 10);
    let store = open(&url, &StoreOptions { create_directory: true, ..options() }).await.unwrap();
    for number in 0..count {
        store.put(&key(&format!("packs/{number}")), vec![7; bytes as usize]).await.unwrap();
    }
    let store = open(&url, &StoreOptions { download_rate_max: Some(rate), ..options() }).await.unwrap();
    let begun = std::time::Instant::now();
    let gets = (0..count).map(|number| {
        let store = store.clone();
        async move {
            let key = key(&format!("packs/{number}"));
            match number % 2 {
                0 => store.get(&key, bytes).await.unwrap(),
                _ => store.get_range(&key, 0..bytes).await.unwrap(),
            }
        }
    });
    let got: u64 = futures::future::join_all(gets).await.iter().map(|bytes| bytes.len() as u64).sum();
    let seconds = begun.elapsed().as_secs_f64();
    // What the last one brings has only begun by then.
    let expected = ((count - 1) * bytes) as f64 / rate as f64;
    assert_eq!(got, count * bytes);
    assert!(seconds >= expected * 0.95 && seconds < expected * 3.0, "{seconds} s for what takes {expected} s");
}
