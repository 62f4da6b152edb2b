//! Global transaction ids, as MariaDB writes them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::IdError;

/// A global transaction id: `<domain>-<server>-<sequence>`, such as `0-1-100`.
///
/// Source: MariaDB `sql/rpl_gtid.h` (`rpl_gtid`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    /// The replication domain, whose transactions have an order of their own.
    pub domain: u32,
    /// `server_id` of the server that committed the transaction first.
    pub server: u32,
    /// Number within the domain.
    pub sequence: u64,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl FromStr for Gtid {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Gtid, IdError> {
        let mut parts = text.split('-');
        let mut part = || parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let gtid = (|| {
            let (domain, server, sequence) = (part()?, part()?, part()?);
            Some(Gtid { domain: domain.parse().ok()?, server: server.parse().ok()?, sequence: sequence.parse().ok()? })
        })();
        match (gtid, parts.next()) {
            (Some(gtid), None) => Ok(gtid),
            _ => Err(IdError { what: "GTID", found: text.to_owned() }),
        }
    }
}

impl Serialize for Gtid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Gtid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Gtid, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A GTID position: the last transaction of each domain, written `0-1-100,3-1-7`.
///
/// It is what `@@gtid_binlog_pos` says of a binary log, and stands for everything that comes in it up to a place.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GtidSet(BTreeMap<u32, Gtid>);

impl GtidSet {
    /// That of nothing.
    pub fn new() -> GtidSet {
        GtidSet::default()
    }

    /// True when no transaction is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Moves on by a transaction, which is now the last of its domain.
    pub fn note(&mut self, gtid: Gtid) {
        self.0.insert(gtid.domain, gtid);
    }

    /// The last transaction of `domain`.
    pub fn get(&self, domain: u32) -> Option<Gtid> {
        self.0.get(&domain).copied()
    }

    /// The last transaction of each domain, by domain.
    pub fn iter(&self) -> impl Iterator<Item = Gtid> + '_ {
        self.0.values().copied()
    }

    /// True when each transaction of `other` is here too, or one with a higher number of its domain: where each domain ascends, this
    /// position is not before the other.
    pub fn covers(&self, other: &GtidSet) -> bool {
        other.iter().all(|gtid| self.get(gtid.domain).is_some_and(|own| own.sequence >= gtid.sequence))
    }

    /// What of `other` is beyond this position, by the numbers of each domain.
    pub fn lacks(&self, other: &GtidSet) -> GtidSet {
        let beyond = |gtid: &Gtid| self.get(gtid.domain).is_none_or(|own| own.sequence < gtid.sequence);
        GtidSet(other.iter().filter(beyond).map(|gtid| (gtid.domain, gtid)).collect())
    }
}

impl FromIterator<Gtid> for GtidSet {
    fn from_iter<I: IntoIterator<Item = Gtid>>(gtids: I) -> GtidSet {
        GtidSet(gtids.into_iter().map(|gtid| (gtid.domain, gtid)).collect())
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, gtid) in self.iter().enumerate() {
            write!(f, "{}{gtid}", if number > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = IdError;

    /// Reads a position as the server writes it; each domain may come once.
    fn from_str(text: &str) -> Result<GtidSet, IdError> {
        let mut set = GtidSet::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let gtid: Gtid = part.parse()?;
            if set.0.insert(gtid.domain, gtid).is_some() {
                return Err(IdError { what: "GTID position", found: text.to_owned() });
            }
        }
        Ok(set)
    }
}

impl Serialize for GtidSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GtidSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<GtidSet, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> GtidSet {
        text.parse().unwrap()
    }

    #[test]
    fn a_position_covers_what_is_not_beyond_it_in_any_domain() {
        let position = set("0-1-10,3-2-5");
        assert!(position.covers(&set("")) && position.covers(&position) && position.covers(&set("0-7-9")));
        assert!(!position.covers(&set("0-1-11")) && !position.covers(&set("4-1-1")));
        assert_eq!(position.lacks(&set("0-1-11,3-2-4,4-1-1")), set("0-1-11,4-1-1"));
        let mut next = position.clone();
        next.note("3-9-6".parse().unwrap());
        assert_eq!(next, set("0-1-10, 3-9-6"));
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in ["0", "0-1", "0-1-2-3", "-1-1-1", "+0-1-1", "0-1-x", "0-1-1,0-1-2", "4294967296-1-1"] {
            assert!(text.parse::<GtidSet>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn positions_round_trip(gtids in prop::collection::vec(any::<(u32, u32, u64)>(), 0..5)) {
            let position: GtidSet =
                gtids.into_iter().map(|(domain, server, sequence)| Gtid { domain, server, sequence }).collect();
            prop_assert_eq!(set(&position.to_string()), position);
        }
    }
}
