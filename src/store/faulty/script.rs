//! What goes wrong, by a script or by seeded chance.

use std::time::Duration;

/// Longest delay by chance. 3 ms: tests have many requests, and a pause of whatever length lets others go on.
const DELAY_MS_MAX: u64 = 3;

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request fails with the connection, before it has any effect.
    Reset,
    /// The store refuses the account.
    Denied,
    /// No room is left.
    NoSpace,
    /// The store is asked too much and refuses, before any effect: 503 `SlowDown`, 429.
    Throttle {
        /// The HTTP status.
        status: u16,
        /// What it says in `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The credentials end: this request and all further ones that come with them are refused, until there are others.
    Expire,
    /// The store says that another conditional put of the key is under way, and does nothing: 409.
    Conflict,
    /// The request takes this much longer.
    Delay(Duration),
    /// The request never ends.
    Hang,
    /// The request has its effect, and the connection breaks before the answer.
    LoseAnswer,
    /// The body of an answer ends after so many bytes, as if it were whole.
    CutBody(u64),
    /// The body of an answer breaks off after so many bytes; a listing after so many objects.
    BreakBody(u64),
    /// Bit number n of the body is inverted, counted from its start and modulo its length: of what is stored in a put,
    /// of what is read in a get. A store that checks sums, as [`super::super::bucket::Bucket`] does, refuses such a put.
    FlipBit(u64),
    /// A listing is of a while ago: it lacks the so many objects that were stored last, and has as many that were deleted last.
    OldList(u64),
    /// The store answers that it knows no conditional put.
    RefuseCondition,
    /// The store takes a conditional put for an unconditional one, and says nothing.
    IgnoreCondition,
}

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Storing an object.
    Put,
    /// Reading an object or a range.
    Get,
    /// Asking for an object's size.
    Head,
    /// Listing, of versions too.
    List,
    /// Deleting an object.
    Delete,
    /// Asking for a lock, extending it, or bringing a version back.
    Lock,
}

/// A line of the script: which requests go wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The requests meant; all when nothing is given.
    pub operation: Option<Operation>,
    /// A part of the keys meant.
    pub key_part: String,
    /// Requests meant that go well first.
    pub skip: u64,
    /// Requests that then go wrong.
    pub times: u64,
    /// What goes wrong.
    pub fault: Fault,
}

impl Rule {
    /// The next request of this kind goes wrong.
    pub fn once(operation: Operation, fault: Fault) -> Rule {
        Rule { operation: Some(operation), key_part: String::new(), skip: 0, times: 1, fault }
    }

    /// Every request of this kind goes wrong.
    pub fn always(operation: Operation, fault: Fault) -> Rule {
        Rule { times: u64::MAX, ..Rule::once(operation, fault) }
    }

    /// Every request goes wrong after the first `requests`.
    pub fn after(requests: u64, fault: Fault) -> Rule {
        Rule { operation: None, key_part: String::new(), skip: requests, times: u64::MAX, fault }
    }

    /// The same rule for keys that contain `part`.
    pub fn on_keys(self, part: &str) -> Rule {
        Rule { key_part: part.to_owned(), ..self }
    }
}

/// How often requests go wrong by chance, each per thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Odds {
    /// [`Fault::Reset`].
    pub reset: u64,
    /// [`Fault::LoseAnswer`].
    pub lose_answer: u64,
    /// [`Fault::CutBody`], at a random length.
    pub cut_body: u64,
    /// [`Fault::BreakBody`], at a random length.
    pub break_body: u64,
    /// [`Fault::Hang`].
    pub hang: u64,
    /// [`Fault::FlipBit`], of bodies read, and of bodies stored on their way to the store.
    pub flip_bit: u64,
    /// [`Fault::OldList`], of up to three objects.
    pub old_list: u64,
    /// [`Fault::Throttle`], by 503 or 429, with a `Retry-After` of no time at all or without.
    pub throttle: u64,
    /// [`Fault::Expire`].
    pub expire: u64,
    /// [`Fault::Conflict`], of puts.
    pub conflict: u64,
    /// [`Fault::Delay`], of some milliseconds.
    pub delay: u64,
}

/// The script, the odds and the seed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// Rules; the first that fits a request is used.
    pub rules: Vec<Rule>,
    /// Chance, for requests that no rule fits.
    pub odds: Odds,
    /// Where chance begins: the same seed and the same requests give the same faults.
    pub seed: u64,
    /// Before each request, and between its effect and its answer, up to so many turns are left to whatever else waits to run, by
    /// chance. A store in memory answers at once, so nothing would ever come between.
    pub turns_max: u64,
}

/// A script as far as it has been played.
#[derive(Debug, Default)]
pub(super) struct Play {
    pub(super) script: Script,
    pub(super) faults: u64,
    pub(super) requests: u64,
    /// The credentials that have ended.
    pub(super) ended: Option<String>,
}

impl Play {
    pub(super) fn new(script: Script) -> Play {
        Play { script, ..Play::default() }
    }

    pub(super) fn decide(&mut self, operation: Operation, key: &str) -> Option<Fault> {
        self.requests += 1;
        let fits = |rule: &&mut Rule| {
            rule.operation.is_none_or(|meant| meant == operation) && key.contains(&rule.key_part) && rule.times > 0
        };
        let fault = match self.script.rules.iter_mut().find(fits) {
            Some(rule) if rule.skip > 0 => {
                rule.skip -= 1;
                None
            }
            Some(rule) => {
                rule.times = rule.times.saturating_sub(u64::from(rule.times != u64::MAX));
                Some(rule.fault.clone())
            }
            None => self.chance(operation),
        };
        self.faults += u64::from(fault.is_some());
        fault
    }

    fn chance(&mut self, operation: Operation) -> Option<Fault> {
        let odds = self.script.odds;
        let place = self.random() % (64 << 10);
        let reads = operation == Operation::Get;
        let puts = operation == Operation::Put;
        let throttle = Fault::Throttle {
            status: if place.is_multiple_of(2) { 503 } else { 429 },
            retry_after: place.is_multiple_of(3).then_some(Duration::ZERO),
        };
        let table = [
            (odds.reset, Fault::Reset, true),
            (odds.hang, Fault::Hang, true),
            (odds.lose_answer, Fault::LoseAnswer, puts || matches!(operation, Operation::Delete | Operation::Lock)),
            (odds.cut_body, Fault::CutBody(place), reads),
            (odds.break_body, Fault::BreakBody(place), reads || operation == Operation::List),
            (odds.flip_bit, Fault::FlipBit(place), reads || puts),
            (odds.old_list, Fault::OldList(1 + place % 3), operation == Operation::List),
            (odds.throttle, throttle, true),
            (odds.expire, Fault::Expire, true),
            (odds.conflict, Fault::Conflict, puts),
            (odds.delay, Fault::Delay(Duration::from_millis(1 + place % DELAY_MS_MAX)), true),
        ];
        let mut dice = self.random() % 1000;
        for (chance, fault, possible) in table {
            if dice < chance {
                return possible.then_some(fault);
            }
            dice -= chance;
        }
        None
    }

    /// Turns that are left to others now.
    pub(super) fn turns(&mut self) -> u64 {
        match self.script.turns_max {
            0 => 0,
            most => self.random() % (most + 1),
        }
    }

    /// The next number of SplitMix64 (Steele, Lea, Flood 2014).
    fn random(&mut self) -> u64 {
        self.script.seed = self.script.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.script.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
