//! The made-up bucket, by itself and below a store.

use std::num::NonZeroU32;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};

use super::{
    bucket::{Bucket, Limits},
    conformance::{Extent, conformance},
    faulty::{Fault, FaultyStore, Odds, Operation, Rule, Script},
    *,
};
use crate::model::{Clock, LockMode, LockPolicy, Retention, Timestamp};

const DAY: i64 = 86_400;

struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::from_second(self.0.load(Ordering::SeqCst)).unwrap())
    }
}

fn hand() -> Arc<Hand> {
    Arc::new(Hand(AtomicI64::new(1_795_000_000)))
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn store(bucket: &Bucket, clock: Arc<Hand>, script: Script) -> Store {
    FaultyStore::over_bucket(bucket, script).store("memory://bucket", StoreOptions { clock, ..Default::default() })
}

fn code(error: &object_store::Error) -> String {
    error.to_string()
}

#[tokio::test(start_paused = true)]
async fn a_made_up_bucket_conforms_also_when_it_fails_now_and_then() {
    let odds = Odds {
        reset: 40,
        lose_answer: 40,
        cut_body: 30,
        break_body: 30,
        throttle: 40,
        expire: 5,
        conflict: 20,
        delay: 40,
        hang: 5,
        ..Odds::default()
    };
    for odds in [Odds::default(), odds] {
        let limits = Limits { page_keys: 7, ..Limits::default() };
        for bucket in [Bucket::plain(hand(), limits), Bucket::locking(hand(), limits)] {
            let store = store(&bucket, hand(), Script { odds, seed: 3, turns_max: 3, ..Script::default() });
            for finding in conformance(&store, Extent { many: 100, large_bytes: 1 << 20 }).await {
                assert_eq!(finding.verdict, Verdict::Good, "{odds:?}: {}: {}", finding.name, finding.detail);
            }
        }
    }
}

#[tokio::test]
async fn a_put_without_its_condition_or_of_too_much_is_refused() {
    let bucket = Bucket::plain(hand(), Limits { put_bytes_max: 5, ..Limits::default() });
    let put = async |key: &str, body: &'static str, mode: PutMode| {
        bucket.put_opts(&Path::from(key), body.into(), PutOptions::from(mode)).await
    };
    assert!(code(&put("a", "x", PutMode::Overwrite).await.unwrap_err()).contains("UnconditionalPut"));
    put("a", "x", PutMode::Create).await.unwrap();
    put("a", "y", PutMode::Overwrite).await.unwrap();
    assert!(code(&put("a", "z", PutMode::Create).await.unwrap_err()).contains("412"));
    assert!(code(&put("b", "123456", PutMode::Create).await.unwrap_err()).contains("EntityTooLarge"));
    let lax = Bucket::plain(hand(), Limits { unconditional: true, ..Limits::default() });
    lax.put_opts(&Path::from("a"), "x".into(), PutMode::Overwrite.into()).await.unwrap();
}

#[tokio::test]
async fn parts_are_joined_in_order_and_neither_too_small_nor_too_many() {
    let bucket = Bucket::plain(hand(), Limits { part_bytes_min: 3, parts_max: 4, ..Limits::default() });
    let upload = async |key: &str, parts: &[&'static str]| {
        let mut upload = bucket.put_multipart(&Path::from(key)).await.unwrap();
        // The requests end in another order than they were begun.
        let sent: Vec<_> = parts.iter().map(|part| upload.put_part((*part).into())).collect();
        for part in sent.into_iter().rev() {
            part.await?;
        }
        upload.complete().await
    };
    upload("a", &["abc", "def", "g"]).await.unwrap();
    let whole = bucket.get(&Path::from("a")).await.unwrap().bytes().await.unwrap();
    assert_eq!(whole, "abcdefg");
    assert!(code(&upload("b", &["abc", "d", "efg"]).await.unwrap_err()).contains("EntityTooSmall"));
    assert!(code(&upload("b", &["abc"; 5]).await.unwrap_err()).contains("InvalidArgument"));
    assert!(code(&upload("b", &[]).await.unwrap_err()).contains("MalformedXML"));
    assert!(bucket.get(&Path::from("b")).await.is_err());
    assert_eq!(Limits::default().part_bytes_min, 5 << 20);
    assert_eq!(Limits::default().parts_max, 10_000);
}

#[tokio::test]
async fn each_page_of_a_listing_is_of_its_own_moment() {
    let bucket = Bucket::plain(hand(), Limits { page_keys: 2, ..Limits::default() });
    let store = store(&bucket, hand(), Script::default());
    for name in ["f/a", "f/b", "f/d", "f/e"] {
        store.put(&key(name), "x").await.unwrap();
    }
    let mut listing = store.list(Some(&key("f")));
    let mut seen = vec![listing.next().await.unwrap().unwrap().key.to_string()];
    store.put(&key("f/c"), "x").await.unwrap();
    store.put(&key("f/aa"), "x").await.unwrap();
    store.delete(&key("f/e")).await.unwrap();
    while let Some(info) = listing.try_next().await.unwrap() {
        seen.push(info.key.to_string());
    }
    assert_eq!(seen, ["f/a", "f/b", "f/c", "f/d"]);
}

#[tokio::test(start_paused = true)]
async fn a_lock_keeps_an_object_and_whoever_deletes_it_all_the_same_is_told_of() {
    let clock = hand();
    let bucket = Bucket::locking(clock.clone(), Limits::default());
    let lost = vec![Rule::once(Operation::Lock, Fault::LoseAnswer), Rule::once(Operation::Lock, Fault::Reset)];
    let store = store(&bucket, clock.clone(), Script { rules: lost, ..Script::default() });
    let policy = LockPolicy { mode: LockMode::Compliance, days: NonZeroU32::new(3).unwrap() };
    assert!(store.lock_puts(policy));
    store.put(&key("a"), "x").await.unwrap();
    let until = bucket.first_locked_until("a").unwrap();
    assert_eq!(until.seconds_since(clock.now()), 4 * DAY);
    assert!(matches!(store.delete(&key("a")).await, Err(StoreError::Locked { .. })));
    let shorter = Retention { mode: LockMode::Compliance, until: until.after(-1) };
    assert!(matches!(store.extend_lock(&key("a"), None, shorter).await, Err(StoreError::Denied { .. })));
    store.extend_lock(&key("a"), None, Retention { until: until.after(DAY), ..shorter }).await.unwrap();
    assert_eq!(bucket.hidden_though_locked(), [""; 0]);
    // Without asking, it is hidden, and its first version is there still.
    store.delete_brief(&key("a")).await.unwrap();
    assert_eq!(bucket.hidden_though_locked().len(), 1);
    assert!(store.get(&key("a"), 9).await.unwrap_err().is_not_found());
    let versions: Vec<_> = store.versions("").try_collect().await.unwrap();
    assert_eq!(versions.iter().map(|version| version.is_marker).collect::<Vec<_>>(), [false, true]);
    assert!(matches!(store.delete_version(&key("a"), &versions[0].version).await, Err(StoreError::Denied { .. })));
    store.delete_version(&key("a"), &versions[1].version).await.unwrap();
    assert_eq!(store.get(&key("a"), 9).await.unwrap(), "x");
    clock.0.fetch_add(6 * DAY, Ordering::SeqCst);
    store.delete(&key("a")).await.unwrap();
    assert!(store.get(&key("a"), 9).await.unwrap_err().is_not_found());
}

/// Looks that make time pass.
struct Sleepy(AtomicI64);

impl Clock for Sleepy {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::from_second(1_795_000_000 + self.0.fetch_add(901, Ordering::SeqCst)).unwrap())
    }
}

#[tokio::test]
async fn a_request_that_was_signed_long_ago_is_refused() {
    let bucket = Bucket::plain(Arc::new(Sleepy(AtomicI64::new(0))), Limits::default());
    let error = store(&bucket, hand(), Script::default()).put(&key("a"), "x").await.unwrap_err();
    assert!(matches!(error, StoreError::ClockSkew { .. }), "{error:?}");
}
