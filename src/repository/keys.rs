//! The one place that builds and parses the keys of a repository.

use crate::model::{BackupId, Gtid, PackId, PlanId, ProofId, SlotId, StreamId, Timestamp};

/// Number of a lease document among those of one run, ascending.
pub(super) const LEASE_NUMBER_DIGITS: usize = 6;
/// Number of a document with packs of a plan.
const PART_DIGITS: usize = 6;
/// Number of a segment in its stream.
const SEGMENT_DIGITS: usize = 8;
/// Number of an edition of a backup's manifest.
const EDITION_DIGITS: usize = 6;

/// An object of a repository, by what it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// `haulout.json`.
    Config,
    /// `packs/<first two digits>/<64 digits>`.
    Pack(PackId),
    /// `backups/<id>.json`.
    Manifest(BackupId),
    /// `backups/<id>-e<number>.json`: a later edition of a manifest, from 1.
    Edition(BackupId, u32),
    /// `leases/<purpose>-<holder>-<number>-<live|done>.json`.
    Lease(LeaseKey),
    /// `keys/<16 digits>.json`.
    Slot(SlotId),
    /// `prune/…`: what retention writes.
    Prune(PruneKey),
    /// `damage/<id>.json`: the id is built like that of a backup.
    Damage(BackupId),
    /// `proofs/<backup>-<proof>.json`: how a drill of the backup ended.
    Proof(BackupId, ProofId),
    /// `binlogs/<stream>/<number>-<first time>-<last time>-<first GTID>-<16 digits>.json`: a segment of binary log.
    Segment(SegmentKey),
    /// `binlogs/<stream>/<number>-<64 digits>.pack`: a pack with bytes of a segment.
    SegmentPack(StreamId, u32, PackId),
}

/// Key of a segment; it tells all from which windows are drawn.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentKey {
    /// The stream.
    pub stream: StreamId,
    /// Number in the stream.
    pub number: u32,
    /// Time of its earliest transaction.
    pub first: Timestamp,
    /// Time of its latest transaction.
    pub last: Timestamp,
    /// Its first transaction.
    pub gtid: Gtid,
    /// The first bytes of the segment's sum.
    pub sum: [u8; 8],
}

/// Key of a document of retention.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PruneKey {
    /// `prune/<plan>-plan.json`.
    Plan(PlanId),
    /// `prune/<plan>-packs-<part>.json`.
    Packs(PlanId, u32),
    /// `prune/<plan>-begun.json`.
    Begun(PlanId),
    /// `prune/<plan>-done.json`.
    Done(PlanId),
    /// `prune/keep-<backup>-<8 hexadecimal digits>.json`.
    Keep(BackupId, [u8; 4]),
}

/// Key of a lease document; it tells all that a contender needs besides the time at which it was stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// What the run does: lower-case letters.
    pub purpose: String,
    /// Random name of the run: 16 hexadecimal digits.
    pub holder: String,
    /// Counts the documents of the run.
    pub number: u32,
    /// True when this document ends the lease.
    pub released: bool,
}

impl ObjectKey {
    /// The folder of all packs.
    pub const PACKS: &'static str = "packs";
    /// The folder of all manifests.
    pub const BACKUPS: &'static str = "backups";
    /// The folder of all leases.
    pub const LEASES: &'static str = "leases";
    /// The folder of what retention writes.
    pub const PRUNE: &'static str = "prune";
    /// The folder of what checks found damaged.
    pub const DAMAGE: &'static str = "damage";
    /// The folder of what drills proved.
    pub const PROOFS: &'static str = "proofs";
    /// The folder of archived binary logs.
    pub const BINLOGS: &'static str = "binlogs";
    /// The folder of all key slots.
    pub const SLOTS: &'static str = "keys";

    /// Edition `edition` of a backup's manifest, 0 for the one that the backup wrote.
    pub fn edition(id: &BackupId, edition: u32) -> ObjectKey {
        match edition {
            0 => ObjectKey::Manifest(id.clone()),
            later => ObjectKey::Edition(id.clone(), later),
        }
    }

    /// The key, relative to the repository.
    pub fn text(&self) -> String {
        match self {
            ObjectKey::Config => "haulout.json".to_owned(),
            ObjectKey::Pack(id) => {
                let name = id.to_string();
                format!("packs/{}/{name}", &name[..2])
            }
            ObjectKey::Manifest(id) => format!("backups/{id}.json"),
            ObjectKey::Damage(id) => format!("damage/{id}.json"),
            ObjectKey::Proof(backup, id) => format!("proofs/{backup}-{id}.json"),
            ObjectKey::Slot(id) => format!("keys/{id}.json"),
            ObjectKey::Segment(SegmentKey { stream, number, first, last, gtid, sum }) => {
                let (first, last, sum) = (first.compact(), last.compact(), hex::encode(sum));
                format!("binlogs/{stream}/{number:0SEGMENT_DIGITS$}-{first}-{last}-{gtid}-{sum}.json")
            }
            ObjectKey::SegmentPack(stream, number, pack) => {
                format!("binlogs/{stream}/{number:0SEGMENT_DIGITS$}-{pack}.pack")
            }
            ObjectKey::Edition(id, edition) => format!("backups/{id}-e{edition:0EDITION_DIGITS$}.json"),
            ObjectKey::Lease(lease) => {
                let state = if lease.released { "done" } else { "live" };
                let LeaseKey { purpose, holder, number, .. } = lease;
                format!("leases/{purpose}-{holder}-{number:0digits$}-{state}.json", digits = LEASE_NUMBER_DIGITS)
            }
            ObjectKey::Prune(key) => match key {
                PruneKey::Plan(plan) => format!("prune/{plan}-plan.json"),
                PruneKey::Packs(plan, part) => format!("prune/{plan}-packs-{part:0PART_DIGITS$}.json"),
                PruneKey::Begun(plan) => format!("prune/{plan}-begun.json"),
                PruneKey::Done(plan) => format!("prune/{plan}-done.json"),
                PruneKey::Keep(backup, random) => format!("prune/keep-{backup}-{}.json", hex::encode(random)),
            },
        }
    }

    /// The object that `key` names, or nothing for a key that is not this program's.
    pub fn parse(key: &str) -> Option<ObjectKey> {
        if key == "haulout.json" {
            return Some(ObjectKey::Config);
        }
        let (folder, rest) = key.split_once('/')?;
        match folder {
            ObjectKey::PACKS => {
                let (shard, name) = rest.split_once('/')?;
                let id = name.parse().ok()?;
                (name.get(..2) == Some(shard)).then_some(ObjectKey::Pack(id))
            }
            ObjectKey::BACKUPS => parse_manifest(rest.strip_suffix(".json")?),
            ObjectKey::DAMAGE => rest.strip_suffix(".json")?.parse().ok().map(ObjectKey::Damage),
            ObjectKey::PROOFS => parse_proof(rest.strip_suffix(".json")?),
            ObjectKey::SLOTS => rest.strip_suffix(".json")?.parse().ok().map(ObjectKey::Slot),
            ObjectKey::BINLOGS => parse_binlog(rest),
            ObjectKey::LEASES => parse_lease(rest.strip_suffix(".json")?).map(ObjectKey::Lease),
            ObjectKey::PRUNE => parse_prune(rest.strip_suffix(".json")?).map(ObjectKey::Prune),
            _ => None,
        }
    }
}

fn parse_manifest(name: &str) -> Option<ObjectKey> {
    if let Ok(id) = name.parse() {
        return Some(ObjectKey::Manifest(id));
    }
    let (id, number) = name.rsplit_once("-e")?;
    let fits = number.len() == EDITION_DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
    let edition = number.parse().ok().filter(|edition| fits && *edition > 0)?;
    Some(ObjectKey::Edition(id.parse().ok()?, edition))
}

fn parse_proof(name: &str) -> Option<ObjectKey> {
    // Both names have one hyphen.
    let hyphen = name.match_indices('-').nth(1)?.0;
    Some(ObjectKey::Proof(name[..hyphen].parse().ok()?, name[hyphen + 1..].parse().ok()?))
}

fn parse_binlog(rest: &str) -> Option<ObjectKey> {
    let (stream, name) = rest.split_once('/')?;
    let stream: StreamId = stream.parse().ok()?;
    let (number, name) = name.split_once('-')?;
    if number.len() != SEGMENT_DIGITS || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = number.parse().ok()?;
    if let Some(pack) = name.strip_suffix(".pack") {
        return Some(ObjectKey::SegmentPack(stream, number, pack.parse().ok()?));
    }
    let (rest, digits) = name.strip_suffix(".json")?.rsplit_once('-')?;
    let (first, rest) = rest.split_once('-')?;
    let (last, gtid) = rest.split_once('-')?;
    let mut sum = [0; 8];
    hex::decode_to_slice(digits, &mut sum).ok()?;
    let (first, last) = (Timestamp::parse_compact(first)?, Timestamp::parse_compact(last)?);
    let key = SegmentKey { stream, number, first, last, gtid: gtid.parse().ok()?, sum };
    // A GTID could be written with leading zeros, and digits in upper case.
    let written = format!("{gtid}-{digits}") == format!("{}-{}", key.gtid, hex::encode(sum));
    written.then_some(ObjectKey::Segment(key))
}

fn parse_lease(name: &str) -> Option<LeaseKey> {
    let mut parts = name.split('-');
    let (purpose, holder, number, state) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let purpose_fits = !purpose.is_empty() && purpose.bytes().all(|byte| byte.is_ascii_lowercase());
    let holder_fits = holder.len() == 16 && holder.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number_fits = number.len() == LEASE_NUMBER_DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || !purpose_fits || !holder_fits || !number_fits {
        return None;
    }
    let released = match state {
        "live" => false,
        "done" => true,
        _ => return None,
    };
    Some(LeaseKey { purpose: purpose.to_owned(), holder: holder.to_owned(), number: number.parse().ok()?, released })
}

fn parse_prune(name: &str) -> Option<PruneKey> {
    if let Some(keep) = name.strip_prefix("keep-") {
        let (backup, digits) = keep.rsplit_once('-')?;
        let mut random = [0; 4];
        hex::decode_to_slice(digits, &mut random).ok()?;
        let lower = !digits.bytes().any(|byte| byte.is_ascii_uppercase());
        return lower.then_some(PruneKey::Keep(backup.parse().ok()?, random));
    }
    // A plan's name has a hyphen, too.
    let (second, rest) = name.split_once('-')?;
    let (random, what) = rest.split_once('-')?;
    let plan: PlanId = format!("{second}-{random}").parse().ok()?;
    match what {
        "plan" => Some(PruneKey::Plan(plan)),
        "begun" => Some(PruneKey::Begun(plan)),
        "done" => Some(PruneKey::Done(plan)),
        part => {
            let number = part.strip_prefix("packs-")?;
            let fits = number.len() == PART_DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
            fits.then_some(PruneKey::Packs(plan, number.parse().ok()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_key_round_trips(
            pack: [u8; 32],
            slot: [u8; 8],
            lease in ("[a-z]{1,9}", "[0-9a-f]{16}", 0u32..1_000_000, any::<bool>()),
            id in "[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}",
        ) {
            let (purpose, holder, number, released) = lease;
            let keys = [
                ObjectKey::Config,
                ObjectKey::Pack(PackId(pack)),
                ObjectKey::Slot(SlotId(slot)),
                ObjectKey::Manifest(id.parse().unwrap()),
                ObjectKey::Damage(id.parse().unwrap()),
                ObjectKey::Proof(id.parse().unwrap(), id.parse().unwrap()),
                ObjectKey::Edition(id.parse().unwrap(), number.max(1)),
                ObjectKey::Lease(LeaseKey { purpose, holder, number, released }),
                ObjectKey::Prune(PruneKey::Plan(id.parse().unwrap())),
                ObjectKey::Prune(PruneKey::Packs(id.parse().unwrap(), number)),
                ObjectKey::Prune(PruneKey::Begun(id.parse().unwrap())),
                ObjectKey::Prune(PruneKey::Done(id.parse().unwrap())),
                ObjectKey::SegmentPack(id.parse().unwrap(), number, PackId(pack)),
                ObjectKey::Segment(SegmentKey {
                    stream: id.parse().unwrap(),
                    number,
                    first: Timestamp::from_seconds(number),
                    last: Timestamp::from_seconds(u32::MAX - number),
                    gtid: Gtid { domain: number, server: number, sequence: u64::MAX },
                    sum: slot,
                }),
                ObjectKey::Prune(PruneKey::Keep(id.parse().unwrap(), [pack[0], pack[1], pack[2], pack[3]])),
            ];
            for key in keys {
                prop_assert_eq!(ObjectKey::parse(&key.text()), Some(key));
            }
        }

        #[test]
        fn what_parses_is_written_the_same_way(key in "\\PC{0,40}|(packs|backups|leases|keys|prune|damage|proofs|binlogs)/[ -~]{0,90}|binlogs/20261122T020500Z-51c0de/[0-9]{8}-[ -~]{0,60}|(proofs|prune|backups)/[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}-[ -~]{0,30}|backups/[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}-e[0-9]{1,7}.json") {
            if let Some(parsed) = ObjectKey::parse(&key) {
                prop_assert_eq!(parsed.text(), key);
            }
        }
    }
}
