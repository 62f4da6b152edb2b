use proptest::prelude::*;

use super::*;
use crate::mariadb::binlog::{kinds, made_events as made};

/// A file as the server writes it: its first bytes, and events that say where they end.
fn file(events: &[Vec<u8>]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    for event in events {
        let end = (file.len() + event.len()) as u32;
        file.extend(placed(event.clone(), end));
    }
    file
}

/// The same event, which says that it ends at byte `end`.
fn placed(mut event: Vec<u8>, end: u32) -> Vec<u8> {
    event[13..17].copy_from_slice(&end.to_le_bytes());
    let flag = event[17] & 1;
    event[17] &= !1;
    let sum_at = event.len() - 4;
    let sum = crc32fast::hash(&event[..sum_at]);
    event[sum_at..].copy_from_slice(&sum.to_le_bytes());
    event[17] |= flag;
    event
}

/// The events of transactions `0-1-<first>` and on, each of three events.
fn transactions(first: u64, count: u64) -> Vec<Vec<u8>> {
    let events = |number: u64| {
        let time = 1_795_000_000 + number as u32;
        let all = made::transaction(time, &format!("0-1-{number}"), &"x".repeat(100));
        let mut parts = Vec::new();
        let mut rest = &all[..];
        while !rest.is_empty() {
            let bytes = u32::from_le_bytes(rest[9..13].try_into().unwrap()) as usize;
            parts.push(rest[..bytes].to_vec());
            rest = &rest[bytes..];
        }
        parts
    };
    (first..first + count).flat_map(events).collect()
}

fn with_head(events: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut all = vec![made::format_description(1_795_000_000)];
    all.extend(events);
    all
}

fn now() -> Instant {
    Instant::now()
}

fn set(text: &str) -> GtidSet {
    text.parse().unwrap()
}

fn cutter() -> Cutter {
    Cutter::new("b.000007", 4, set("0-1-4"))
}

/// What a reader of the draft gets.
fn bytes_of(draft: &Draft, copy: &[u8]) -> Vec<u8> {
    let mut bytes = copy[..draft.head_bytes as usize].to_vec();
    for part in &draft.parts {
        bytes.extend(&copy[part.start as usize..part.end as usize]);
    }
    bytes
}

/// Every transaction in a file that is complete in itself, by what a cutter says of it.
fn gtids(file: &[u8]) -> u64 {
    let (mut parser, mut transactions) = (EventParser::new("b", 4), Transactions::default());
    let (mut rest, mut count) = (&file[4..], 0);
    while let Some(event) = parser.next(&mut rest).unwrap() {
        count += u64::from(matches!(transactions.step(&event, "b", 0).unwrap(), Step::End(_)));
    }
    assert!(parser.is_between() && !transactions.is_open());
    count
}

/// MariaDB 11.4 and later, unless it has `binlog_legacy_event_pos`.
#[test]
fn what_says_no_place_within_a_transaction_is_counted_by_its_length() {
    let told = file(&with_head(transactions(5, 3)));
    let mut untold = MAGIC.to_vec();
    let mut rest = &told[4..];
    while !rest.is_empty() {
        let bytes = u32::from_le_bytes(rest[9..13].try_into().unwrap()) as usize;
        let end = if rest[4] == kinds::QUERY { 0 } else { untold.len() + bytes };
        untold.extend(placed(rest[..bytes].to_vec(), end as u32));
        rest = &rest[bytes..];
    }
    assert_ne!(told, untold);
    let drafted = |copy: &[u8]| {
        let mut cutter = cutter();
        assert!(!cutter.push(&mut &copy[4..], now(), u64::MAX).unwrap());
        let draft = cutter.cut(now()).unwrap();
        assert_eq!(gtids(&bytes_of(&draft, copy)), 3);
        (draft.start, draft.end, draft.transactions, cutter.settled(), bytes_of(&draft, copy).len())
    };
    assert_eq!(drafted(&untold), drafted(&told));
}

#[test]
fn a_draft_holds_whole_transactions_and_what_comes_next_begins_behind_it() {
    let copy = file(&with_head(transactions(5, 3)));
    // All but the last byte.
    let (mut cutter, mut bytes) = (cutter(), &copy[4..copy.len() - 1]);
    let begun = now();
    assert!(!cutter.push(&mut bytes, begun, u64::MAX).unwrap());
    assert_eq!(cutter.created(), Some(1_795_000_000));
    assert_eq!((cutter.position(), cutter.is_amid(), cutter.since()), (&set("0-1-6"), true, Some(begun)));
    let later = begun + std::time::Duration::from_secs(7);
    let first = cutter.cut(later).unwrap();
    assert_eq!((&first.before, &first.after, first.transactions), (&set("0-1-4"), &set("0-1-6"), 2));
    assert_eq!((first.first_gtid.sequence, first.last_gtid.sequence), (5, 6));
    assert_eq!(first.last_time.seconds_since(first.first_time), 1);
    assert_eq!((cutter.settled(), cutter.since()), (first.end, Some(later)));
    assert_eq!(gtids(&bytes_of(&first, &copy)), 2);
    cutter.push(&mut &copy[copy.len() - 1..], now(), u64::MAX).unwrap();
    let second = cutter.cut(now()).unwrap();
    assert_eq!((second.start, second.end, second.transactions), (first.end, copy.len() as u64, 1));
    assert_eq!((&second.before, &second.after), (&first.after, &set("0-1-7")));
    assert_eq!((cutter.settled(), cutter.settled_copy(), cutter.since()), (second.end, second.end, None));
    assert_eq!(cutter.cut(now()), None);
}

#[test]
fn a_draft_is_cut_at_the_first_transaction_that_makes_it_large_enough() {
    let copy = file(&with_head(transactions(5, 9)));
    let (mut cutter, mut bytes) = (cutter(), &copy[4..]);
    let mut drafts = Vec::new();
    while cutter.push(&mut bytes, now(), 300).unwrap() {
        drafts.push(cutter.cut(now()).unwrap());
    }
    drafts.extend(cutter.cut(now()));
    assert!(drafts.len() > 3 && drafts.iter().all(|draft| draft.end - draft.start < 600), "{drafts:?}");
    assert!(drafts.windows(2).all(|pair| pair[0].end == pair[1].start && pair[0].after == pair[1].before));
    assert_eq!(drafts.iter().map(|draft| draft.transactions).sum::<u64>(), 9);
}

/// Followed from a later byte, the copy has a made up beginning, and positions are those of the server's file, beyond 32 bits too.
#[test]
fn places_in_the_servers_file_are_counted_on_from_where_it_is_followed() {
    let first: u64 = (5 << 32) - 300;
    let mut copy = MAGIC.to_vec();
    copy.extend(placed(made::format_description(77), 0));
    let head = copy.len() as u64;
    for event in transactions(5, 3) {
        let end = first + (copy.len() + event.len()) as u64 - head;
        copy.extend(placed(event, end as u32));
    }
    let mut cutter = Cutter::new("b.000007", first, set("0-1-4"));
    cutter.push(&mut &copy[4..], now(), u64::MAX).unwrap();
    let draft = cutter.cut(now()).unwrap();
    assert_eq!((draft.start, draft.end, draft.created), (first, first + copy.len() as u64 - head, 77));
    assert!(draft.end > 5 << 32);
    assert_eq!(bytes_of(&draft, &copy), copy);
}

#[test]
fn events_of_no_file_are_left_out() {
    let events = transactions(5, 4);
    let plain = file(&with_head(events.clone()));
    let mut copy = plain.clone();
    let made_up = placed(made::event(0, kinds::ROTATE, 0, b"\x04\0\0\0\0\0\0\0b.000008"), 0);
    // Inside of the second transaction, and behind the third.
    let at = |count: usize| file(&with_head(events[..count].to_vec())).len();
    copy.splice(at(9)..at(9), made_up.clone());
    copy.splice(at(4)..at(4), made_up.clone());
    let mut cutter = cutter();
    let (mut bytes, mut found) = (&copy[4..], Vec::new());
    while cutter.push(&mut bytes, now(), 700).unwrap() {
        let draft = cutter.cut(now()).unwrap();
        found.extend(bytes_of(&draft, &copy)[draft.head_bytes as usize..].to_vec());
    }
    if let Some(draft) = cutter.cut(now()) {
        found.extend(bytes_of(&draft, &copy)[draft.head_bytes as usize..].to_vec());
    }
    assert_eq!(found, plain[at(0)..]);
}

#[test]
fn an_event_that_says_that_it_stands_elsewhere_is_damage() {
    for (by, from) in [(36, 0), (36, 1), (36, 2), (u32::MAX - 9, 1)] {
        let mut copy = MAGIC.to_vec();
        for (number, event) in with_head(transactions(5, 1)).into_iter().enumerate() {
            let end = (copy.len() + event.len()) as u32;
            copy.extend(placed(event, if number >= from { end.wrapping_add(by) } else { end }));
        }
        let error = cutter().push(&mut &copy[4..], now(), u64::MAX).unwrap_err();
        assert!(error.to_string().contains("by its own words"), "{by} from event {from} on: {error}");
    }
}

#[test]
fn what_a_killed_server_left_unfinished_is_in_no_draft() {
    let mut events = transactions(5, 2);
    events.pop();
    let copy = file(&with_head(events));
    let mut cutter = cutter();
    cutter.push(&mut &copy[4..], now(), u64::MAX).unwrap();
    let draft = cutter.cut(now()).unwrap();
    assert_eq!((draft.transactions, cutter.is_amid()), (1, true));
    assert_eq!(gtids(&bytes_of(&draft, &copy)), 1);
    assert_eq!(cutter.cut(now()), None);
}

proptest! {
    /// However the bytes come and wherever it is cut, each transaction is in one draft, and all bytes follow on each other.
    #[test]
    fn drafts_follow_on_each_other(cuts in prop::collection::vec(1usize..400, 1..40), sizes in prop::collection::vec(1u64..900, 1..9)) {
        let copy = file(&with_head(transactions(5, 6)));
        let (mut cutter, mut rest, mut drafts) = (cutter(), &copy[4..], Vec::new());
        let (mut cuts, mut sizes) = (cuts.into_iter().cycle(), sizes.into_iter().cycle());
        while !rest.is_empty() {
            let (mut part, next) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            rest = next;
            while cutter.push(&mut part, now(), sizes.next().unwrap()).unwrap() {
                drafts.extend(cutter.cut(now()));
            }
        }
        drafts.extend(cutter.cut(now()));
        let mut end = drafts[0].head_bytes;
        let mut sequence = 5;
        for draft in &drafts {
            prop_assert_eq!((draft.start, draft.first_gtid.sequence), (end, sequence));
            prop_assert_eq!(gtids(&bytes_of(draft, &copy)), draft.transactions);
            (end, sequence) = (draft.end, draft.last_gtid.sequence + 1);
        }
        prop_assert_eq!((end, sequence), (copy.len() as u64, 11));
    }
}
