//! Proves that backups and binary log fit: what `list --windows` promises by numbers is held against documents, and against transactions
//! where these are read.
//!
//! A replay passes over each domain up to the very transaction at which its backup stands, and goes from a stream to the one that another server
//! went on with at the very transactions at which that begins (`restore::replay`). Each of them is a [`Claim`]: it must come in the
//! stream that the history says, or be where that begins. What numbers alone would take for a place may be none: of another server, or left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Damage;
use crate::format::{Manifest, Segment};
use crate::model::{BackupId, Gtid, GtidSet, StreamId};
use crate::repository::{BinlogHistory, Join, Leg, ObjectKey, leg_of, position_of};

/// Claims that are followed; there are some for each backup and each failover.
const CLAIMS_MAX: usize = 100_000;

/// How far it is known that a transaction comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// Nothing speaks for it.
    Nowhere,
    /// Numbers speak for it, in a segment whose transactions were not read.
    Likely,
    /// It was met, or a document names it.
    Met,
}

/// A transaction that must come in a stretch of a stream.
#[derive(Debug)]
struct Claim {
    gtid: Gtid,
    /// First and last number of the segments.
    segments: (u32, u32),
    seen: Seen,
    /// Backups from which no window leads on without it, and why it is needed.
    needed: BTreeMap<BackupId, &'static str>,
}

/// A stream that says that it goes on at the end of a segment.
#[derive(Debug)]
struct Junction {
    number: u32,
    /// Where it begins.
    before: GtidSet,
    stream: StreamId,
    backups: BTreeSet<BackupId>,
}

/// What has to be so for the windows to be there.
#[derive(Debug, Default)]
pub(super) struct Windows {
    claims: BTreeMap<StreamId, Vec<Claim>>,
    junctions: BTreeMap<StreamId, Vec<Junction>>,
    count: usize,
    wrong: Vec<Damage>,
}

impl Windows {
    /// The claims of all `backups` from which a window begins.
    pub fn new(history: &BinlogHistory, backups: &[Manifest]) -> Windows {
        let mut windows = Windows::default();
        for end in history.ends() {
            let legs = history.leading_to(end);
            for manifest in backups {
                let Some(position) = position_of(manifest) else { continue };
                let Some(leg) = leg_of(&legs, &position) else { continue };
                windows.backup(&manifest.id, &position, &legs[leg..]);
            }
        }
        windows
    }

    /// `legs` lead on from the one in which the backup lies.
    fn backup(&mut self, backup: &BackupId, position: &GtidSet, legs: &[Leg<'_>]) {
        let Some(first) = legs.first() else { return };
        for gtid in position.iter().filter(|gtid| first.part.first.before.get(gtid.domain) != Some(*gtid)) {
            self.claim(first, gtid, backup, "the backup stands");
        }
        for pair in legs.windows(2) {
            let (leg, later) = (&pair[0], &pair[1]);
            match leg.next {
                Some((Join::Behind(number), before)) => self.junction(leg, number, before, &later.part.stream, backup),
                Some((Join::ByGtid, before)) => {
                    let own = &leg.part.first.before;
                    for gtid in before.iter().filter(|gtid| own.get(gtid.domain) != Some(*gtid)) {
                        // Where the backup has it already, the replay passes over it.
                        if position.get(gtid.domain) != Some(gtid) {
                            self.claim(leg, gtid, backup, "the log of the next server begins");
                        }
                    }
                }
                None => {}
            }
        }
    }

    fn claim(&mut self, leg: &Leg<'_>, gtid: Gtid, backup: &BackupId, why: &'static str) {
        let segments = (leg.part.first.number, leg.last_number());
        let claims = self.claims.entry(leg.part.stream.clone()).or_default();
        let known = claims.iter_mut().find(|claim| claim.gtid == gtid && claim.segments == segments);
        match known {
            Some(known) => {
                known.needed.entry(backup.clone()).or_insert(why);
            }
            None if self.count < CLAIMS_MAX => {
                self.count += 1;
                let needed = [(backup.clone(), why)].into();
                claims.push(Claim { gtid, segments, seen: Seen::Nowhere, needed });
            }
            None => {}
        }
    }

    fn junction(&mut self, leg: &Leg<'_>, number: u32, before: &GtidSet, stream: &StreamId, backup: &BackupId) {
        let junctions = self.junctions.entry(leg.part.stream.clone()).or_default();
        match junctions.iter_mut().find(|known| known.number == number && known.stream == *stream) {
            Some(known) => {
                known.backups.insert(backup.clone());
            }
            None if self.count < CLAIMS_MAX => {
                self.count += 1;
                let (before, stream, backups) = (before.clone(), stream.clone(), [backup.clone()].into());
                junctions.push(Junction { number, before, stream, backups });
            }
            None => {}
        }
    }

    /// The transactions that are looked for in a stream, when its transactions are read.
    pub fn wanted(&self, stream: &StreamId) -> Arc<BTreeSet<Gtid>> {
        Arc::new(self.claims.get(stream).into_iter().flatten().map(|claim| claim.gtid).collect())
    }

    /// Takes what a segment's document says, and which of the wanted transactions came where they were read.
    pub fn take(&mut self, segment: &Segment, came: Option<&BTreeSet<Gtid>>) {
        for claim in self.claims.get_mut(&segment.stream).into_iter().flatten().filter(|one| one.holds(segment.number))
        {
            let seen = match came {
                Some(came) if came.contains(&claim.gtid) => Seen::Met,
                Some(_) => Seen::Nowhere,
                None => claim.by_document(segment),
            };
            claim.seen = claim.seen.max(seen);
        }
        let junctions = self.junctions.get(&segment.stream).into_iter().flatten();
        for junction in junctions.filter(|junction| junction.number == segment.number) {
            if junction.before != segment.after {
                let Junction { stream, before, .. } = junction;
                let problem = format!(
                    "stream {stream} goes on from it at {before}, and it ends at {}: no window leads on from {}",
                    segment.after,
                    names(&junction.backups)
                );
                let object = ObjectKey::Segment(segment.key()).text();
                self.wrong.push(Damage { object, problem, backups: Vec::new(), files: Vec::new() });
            }
        }
    }

    /// Of a segment that cannot be read, and of which that is told, nothing is held against others.
    pub fn pass_over(&mut self, stream: &StreamId, number: u32) {
        for claim in self.claims.get_mut(stream).into_iter().flatten().filter(|claim| claim.holds(number)) {
            claim.seen = claim.seen.max(Seen::Likely);
        }
    }

    /// What is not so.
    pub fn wrong(mut self) -> Vec<Damage> {
        for (stream, claims) in self.claims {
            for Claim { gtid, needed, .. } in claims.into_iter().filter(|claim| claim.seen == Seen::Nowhere) {
                for (backup, why) in needed {
                    self.wrong.push(Damage {
                        object: format!("{}/{stream}", ObjectKey::BINLOGS),
                        problem: format!(
                            "transaction {gtid}, at which {why}, does not come in it: no moment behind backup {backup} can be restored by it"
                        ),
                        backups: Vec::new(),
                        files: Vec::new(),
                    });
                }
            }
        }
        self.wrong
    }
}

impl Claim {
    fn holds(&self, number: u32) -> bool {
        (self.segments.0..=self.segments.1).contains(&number)
    }

    fn by_document(&self, segment: &Segment) -> Seen {
        let Segment { before, after, first_gtid, last_gtid, .. } = segment;
        let domain = self.gtid.domain;
        if [*first_gtid, *last_gtid].contains(&self.gtid) || after.get(domain) == Some(self.gtid) {
            return Seen::Met;
        }
        let number = |position: &GtidSet| position.get(domain).map_or(0, |gtid| gtid.sequence);
        // What ends with its number is another one's. Numbers that go back tell nothing.
        let (first, last) = (number(before), number(after));
        let within = first < self.gtid.sequence && self.gtid.sequence < last;
        if within || last < first { Seen::Likely } else { Seen::Nowhere }
    }
}

fn names(backups: &BTreeSet<BackupId>) -> String {
    let names: Vec<_> = backups.iter().map(|backup| format!("backup {backup}")).collect();
    names.join(", ")
}
