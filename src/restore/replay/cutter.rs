//! Which transactions of a row of segments are replayed: exactly those behind the backup and up to the target, each once.

use crate::mariadb::binlog::Transaction;
use crate::model::GtidSet;

/// What becomes of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is replayed.
    Apply,
    /// It is in the backup already, or not part of the history.
    Skip,
}

/// Decides on one transaction after another.
///
/// Domains are taken each by itself. Of a domain in which the backup stands further than the first segment, all is passed over up to that
/// very transaction; of one whose history goes on in another stream, all behind the very transaction at which it does.
#[derive(Debug)]
pub(super) struct Cutter {
    /// Where the backup stands, of domains of which something is to be passed over.
    skip: GtidSet,
    /// Where the other stream goes on, and the domains in which it is come to.
    until: Option<GtidSet>,
    state: GtidSet,
}

impl Cutter {
    /// Begins with a backup that stands at `backup`, and a log that stands at `before`.
    pub fn new(backup: &GtidSet, before: &GtidSet) -> Cutter {
        let skip = backup.iter().filter(|gtid| before.get(gtid.domain) != Some(*gtid)).collect();
        Cutter { skip, until: None, state: backup.clone() }
    }

    /// Begins with a stream from which another goes on at `until`, or with the last one.
    pub fn begin_leg(&mut self, until: Option<GtidSet>) {
        self.until = until;
    }

    /// Decides on the next transaction.
    pub fn decide(&mut self, transaction: &Transaction) -> Verdict {
        let gtid = transaction.gtid;
        if let Some(last) = self.skip.get(gtid.domain) {
            if last == gtid {
                self.skip = self.skip.iter().filter(|other| *other != gtid).collect();
            }
            return Verdict::Skip;
        }
        if let Some(until) = &self.until {
            let last = until.get(gtid.domain);
            if last.is_none() || last == self.state.get(gtid.domain) {
                return Verdict::Skip;
            }
        }
        self.state.note(gtid);
        Verdict::Apply
    }

    /// The transactions that should have come in the stream and did not; those at which another goes on where that is `joined`.
    pub fn missed(&self, joined: bool) -> GtidSet {
        let until = self.until.iter().filter(|_| joined).flat_map(GtidSet::iter);
        let not_reached = until.filter(|gtid| self.state.get(gtid.domain) != Some(*gtid));
        self.skip.iter().chain(not_reached).collect()
    }

    /// Where the server stands.
    pub fn state(&self) -> &GtidSet {
        &self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> GtidSet {
        text.parse().unwrap()
    }

    fn applied(cutter: &mut Cutter, gtids: &str) -> String {
        let mut applied = Vec::new();
        for gtid in gtids.split(' ').filter(|gtid| !gtid.is_empty()) {
            let transaction = Transaction { gtid: gtid.parse().unwrap(), time: 0 };
            if cutter.decide(&transaction) == Verdict::Apply {
                applied.push(gtid.to_owned());
            }
        }
        applied.join(" ")
    }

    #[test]
    fn what_the_backup_has_is_passed_over_in_each_domain() {
        let mut cutter = Cutter::new(&set("0-1-5,3-1-2"), &set("0-1-4,3-1-2"));
        assert_eq!(applied(&mut cutter, "3-1-3 0-1-5 0-1-6 4-1-1"), "3-1-3 0-1-6 4-1-1");
        assert_eq!((cutter.missed(true), cutter.state().clone()), (set(""), set("0-1-6,3-1-3,4-1-1")));
    }

    #[test]
    fn numbers_may_go_back_in_a_domain() {
        let mut cutter = Cutter::new(&set("0-2-3"), &set("0-1-7"));
        assert_eq!(applied(&mut cutter, "0-1-8 0-2-2 0-2-3 0-1-4 0-1-9"), "0-1-4 0-1-9");
    }

    #[test]
    fn a_backup_whose_transaction_never_comes_is_noticed() {
        let mut cutter = Cutter::new(&set("0-1-5"), &set("0-1-3"));
        assert_eq!(applied(&mut cutter, "0-1-4 0-2-5 0-2-6"), "");
        assert_eq!(cutter.missed(true), set("0-1-5"));
    }

    #[test]
    fn after_a_failover_the_new_server_s_history_counts() {
        let mut cutter = Cutter::new(&set("0-1-5"), &set("0-1-5"));
        cutter.begin_leg(Some(set("0-1-7")));
        // The lost server had committed 0-1-8 and all of domain 3 and nobody else had got it.
        assert_eq!(applied(&mut cutter, "0-1-6 3-1-1 0-1-7 0-1-8"), "0-1-6 0-1-7");
        assert_eq!(cutter.missed(true), set(""));
        cutter.begin_leg(None);
        assert_eq!(applied(&mut cutter, "0-2-8 3-2-1"), "0-2-8 3-2-1");
        assert_eq!(cutter.state(), &set("0-2-8,3-2-1"));
        let mut short = Cutter::new(&set("0-1-5"), &set("0-1-5"));
        short.begin_leg(Some(set("0-1-7")));
        applied(&mut short, "0-1-6");
        assert_eq!(short.missed(true), set("0-1-7"));
    }
}
