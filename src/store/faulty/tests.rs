use std::time::Duration;

use futures::TryStreamExt;
use object_store::memory::InMemory;
use tokio::time::Instant;

use super::*;
use crate::{
    model::SystemClock,
    store::{Key, PutOutcome, Refused, StoreError, bucket::Limits},
};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn rules(rules: impl Into<Vec<Rule>>) -> Script {
    Script { rules: rules.into(), ..Script::default() }
}

fn faulty(script: Script) -> FaultyStore {
    FaultyStore::new(Arc::new(InMemory::new()), script)
}

fn over(faulty: &FaultyStore) -> Store {
    faulty.store("memory://faulty", StoreOptions::default())
}

#[tokio::test(start_paused = true)]
async fn a_store_that_asks_for_patience_gets_it_for_a_minute_at_most() {
    for (status, asked, least, most) in [(503, Some(7), 7, 8), (429, Some(3600), 60, 61), (429, None, 0, 1)] {
        let retry_after = asked.map(Duration::from_secs);
        let faulty = faulty(rules([Rule::once(Operation::Put, Fault::Throttle { status, retry_after })]));
        let (store, started) = (over(&faulty), Instant::now());
        store.put(&key("a"), "x").await.unwrap();
        let waited = started.elapsed();
        assert!(waited >= Duration::from_secs(least) && waited < Duration::from_secs(most), "{asked:?}: {waited:?}");
        assert_eq!((faulty.faults(), store.counters().counts().retries), (1, 1));
    }
    let retry_after = Some(Duration::from_secs(30));
    let faulty = faulty(rules([Rule::always(Operation::Put, Fault::Throttle { status: 503, retry_after })]));
    let started = Instant::now();
    let error = over(&faulty).put(&key("a"), "x").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(started.elapsed() <= Duration::from_secs(200), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn credentials_that_end_before_a_lost_put_is_compared_are_renewed() {
    let expire = Rule::once(Operation::Get, Fault::Expire);
    let faulty = faulty(rules([Rule::once(Operation::Put, Fault::LoseAnswer), expire]));
    assert_eq!(over(&faulty).put(&key("a"), "x").await.unwrap(), PutOutcome::AlreadyThere);
    assert_eq!(faulty.faults(), 2);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_end_refuse_every_request_until_there_are_others() {
    let faulty = faulty(rules([]));
    let (one, other) = (over(&faulty), over(&faulty.beside(rules([]))));
    for number in 0..4 {
        one.put(&key(&format!("f/{number}")), "x").await.unwrap();
    }
    faulty.set_script(rules([Rule { skip: 1, ..Rule::once(Operation::Get, Fault::Expire) }]));
    let keys: Vec<Key> = (0..4).map(|number| key(&format!("f/{number}"))).collect();
    let reads = futures::future::join_all(keys.iter().map(|key| one.get(key, 9))).await;
    assert!(reads.iter().all(Result::is_ok), "{reads:?}");
    // The one that ended them, and those that were under way with them.
    assert!(one.counters().counts().retries >= 1);
    // Other processes have others.
    other.get(&keys[0], 9).await.unwrap();
    assert_eq!(other.counters().counts().retries, 0);
    faulty.set_script(rules([Rule::always(Operation::Get, Fault::Expire)]));
    let error = one.get(&keys[0], 9).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { reason: Refused::Expired, .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_change_on_their_way_are_not_stored_where_sums_are_checked() {
    let bucket = Bucket::plain(Arc::new(SystemClock), Limits::default());
    let faulty = FaultyStore::over_bucket(&bucket, rules([Rule::once(Operation::Put, Fault::FlipBit(9))]));
    let store = over(&faulty);
    assert_eq!(store.put(&key("a"), "content").await.unwrap(), PutOutcome::Stored);
    assert_eq!((store.get(&key("a"), 9).await.unwrap(), store.counters().counts().retries), ("content".into(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_put_that_meets_another_is_tried_again() {
    let faulty = faulty(rules([Rule::once(Operation::Put, Fault::Conflict)]));
    let store = over(&faulty);
    assert_eq!(store.put(&key("a"), "content").await.unwrap(), PutOutcome::Stored);
    assert_eq!(store.counters().counts().retries, 1);
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_waited_for_and_silence_is_not() {
    let delay = Fault::Delay(Duration::from_secs(20));
    let faulty = faulty(rules([Rule::once(Operation::Put, delay), Rule::once(Operation::Get, Fault::Hang)]));
    let (store, started) = (over(&faulty), Instant::now());
    store.put(&key("a"), "x").await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(20));
    store.get(&key("a"), 9).await.unwrap();
    assert_eq!((faulty.faults(), store.counters().counts().retries), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn an_old_list_lacks_what_came_last_and_has_what_went_last() {
    let one = faulty(rules([]));
    let other = one.beside(rules([]));
    let (store, beside) = (over(&one), over(&other));
    for number in 0..6 {
        store.put(&key(&format!("f/{number}")), "x").await.unwrap();
    }
    for number in [1, 2] {
        beside.delete(&key(&format!("f/{number}"))).await.unwrap();
    }
    let list = async || -> Vec<String> {
        store.list(Some(&key("f"))).map_ok(|info| info.key.to_string()).try_collect().await.unwrap()
    };
    assert_eq!(list().await, ["f/0", "f/3", "f/4", "f/5"]);
    one.set_script(rules([Rule::always(Operation::List, Fault::OldList(1))]));
    assert_eq!(list().await, ["f/0", "f/2", "f/3", "f/4"]);
    one.set_script(rules([Rule::always(Operation::List, Fault::OldList(3))]));
    assert_eq!(list().await, ["f/0", "f/1", "f/2"]);
}

#[tokio::test(start_paused = true)]
async fn every_fault_comes_by_chance_when_it_is_asked_for() {
    let none = Odds::default();
    type Case = (Odds, fn(&Fault) -> bool);
    let cases: [Case; 11] = [
        (Odds { reset: 1000, ..none }, |fault| *fault == Fault::Reset),
        (Odds { lose_answer: 1000, ..none }, |fault| *fault == Fault::LoseAnswer),
        (Odds { cut_body: 1000, ..none }, |fault| matches!(fault, Fault::CutBody(_))),
        (Odds { break_body: 1000, ..none }, |fault| matches!(fault, Fault::BreakBody(_))),
        (Odds { hang: 1000, ..none }, |fault| *fault == Fault::Hang),
        (Odds { flip_bit: 1000, ..none }, |fault| matches!(fault, Fault::FlipBit(_))),
        (Odds { old_list: 1000, ..none }, |fault| matches!(fault, Fault::OldList(1..=3))),
        (Odds { throttle: 1000, ..none }, |fault| matches!(fault, Fault::Throttle { status: 429 | 503, .. })),
        (Odds { expire: 1000, ..none }, |fault| *fault == Fault::Expire),
        (Odds { conflict: 1000, ..none }, |fault| *fault == Fault::Conflict),
        (Odds { delay: 1000, ..none }, |fault| matches!(fault, Fault::Delay(_))),
    ];
    use Operation::{Delete, Get, Head, List, Lock, Put};
    for (odds, is_it) in cases {
        let mut play = Play::new(Script { odds, ..Script::default() });
        let found: Vec<Fault> =
            [Put, Get, Head, List, Delete, Lock].iter().filter_map(|operation| play.decide(*operation, "k")).collect();
        assert!(!found.is_empty() && found.iter().all(is_it), "{odds:?}: {found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_and_the_same_requests_give_the_same_faults() {
    let odds = Odds {
        reset: 60,
        lose_answer: 60,
        throttle: 60,
        expire: 30,
        conflict: 60,
        delay: 60,
        break_body: 60,
        ..Odds::default()
    };
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let faulty = faulty(Script { odds, seed, turns_max: 3, ..Script::default() });
        let mut seen = Vec::new();
        for number in 0..60 {
            let path = Path::from(format!("k{}", number % 7));
            let put = faulty.put_opts(&path, "x".into(), PutMode::Create.into()).await;
            seen.push((put.is_ok(), faulty.get(&path).await.is_ok(), faulty.faults(), faulty.requests()));
        }
        runs.push(seen);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn others_have_their_turn_between_a_request_and_its_effect() {
    let faulty = faulty(Script { turns_max: 4, ..Script::default() });
    let mut pauses = 0;
    for number in 0..20 {
        let path = Path::from(format!("k{number}"));
        let mut put = std::pin::pin!(faulty.put_opts(&path, "x".into(), PutMode::Create.into()));
        while futures::poll!(&mut put).is_pending() {
            pauses += 1;
        }
    }
    assert!(pauses > 20, "{pauses}");
}
