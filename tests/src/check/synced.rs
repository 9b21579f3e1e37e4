//! Synced before it counts: what is committed is on the disks of a majority, and no vote and no acknowledgement leaves a replica
//! before its disk has what it says (Raft figure 2, persistent state; thesis 10.2.1 for leaders that write beside sending).
//!
//! The other properties see a promise that came too early only if a crash falls into the moment between; this one sees it
//! whenever it is made. A majority is one of all voters, each counted if its disk *ever* had the entry: what a disk loses later
//! is for others to judge.
//!
//! *Leaves out*: whether a disk that says synced has synced, and configurations that change.

use std::collections::BTreeMap;

use kv_core::types::{LogIndex, ReplicaId, ShardId, Term};

use super::{
    Fact, Violation,
    view::{Place, SyncedRecord},
};
use crate::history::Moment;

/// What the disks have.
#[derive(Debug, Default)]
pub struct Synced {
    replicas: BTreeMap<Place, Disk>,
    shards: BTreeMap<ShardId, Shard>,
}

/// What a replica's disk has.
#[derive(Debug, Default)]
struct Disk {
    term: Term,
    vote: Option<ReplicaId>,
    /// The last index of its log.
    last: LogIndex,
    /// Up to here it has a state instead of entries.
    stands: LogIndex,
}

#[derive(Debug, Default)]
struct Shard {
    voters: usize,
    /// Up to here it is committed, and was judged.
    committed: LogIndex,
    /// Above that: by index and term, the nodes whose disks have had that entry, a bit for each.
    holders: BTreeMap<(LogIndex, Term), u64>,
}

impl Synced {
    /// Judges a fact.
    ///
    /// # Errors
    /// If something counts that is not synced.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let what = match fact {
            Fact::Started { place, term, vote, boundary, entries, voters, .. } => {
                // A shard is founded with what it stands on.
                let founded = || Shard { voters: *voters, committed: boundary.0, ..Shard::default() };
                self.shards.entry(place.shard).or_insert_with(founded);
                let last = entries.last().map_or(boundary.0, |entry| entry.index);
                let disk = Disk { term: *term, vote: *vote, last, stands: boundary.0 };
                self.replicas.insert(*place, disk);
                entries.iter().for_each(|entry| self.hold(*place, entry.index, entry.term));
                None
            }
            Fact::Synced { place, records } => {
                records.iter().for_each(|record| self.record(*place, record));
                None
            }
            Fact::Promised { place, term, vote, accepted } => self.promise(*place, *term, *vote, *accepted),
            Fact::Committed { place, index, .. } => self.commit(*place, *index),
            _ => None,
        };
        what.map_or(Ok(()), |what| Err(Violation { property: "synced before it counts", what, at }))
    }

    fn record(&mut self, place: Place, record: &SyncedRecord) {
        let disk = self.replicas.entry(place).or_default();
        match record {
            SyncedRecord::Entry { index, term } => {
                disk.last = *index;
                self.hold(place, *index, *term);
            }
            SyncedRecord::Stands { index } => {
                disk.stands = disk.stands.max(*index);
                disk.last = *index;
            }
            SyncedRecord::HardState { term, vote } => (disk.term, disk.vote) = (*term, *vote),
        }
    }

    fn hold(&mut self, place: Place, index: LogIndex, term: Term) {
        let Some(shard) = self.shards.get_mut(&place.shard) else { return };
        if index > shard.committed {
            *shard.holders.entry((index, term)).or_default() |= bit(place);
        }
    }

    fn promise(&self, place: Place, term: Term, vote: Option<ReplicaId>, accepted: Option<LogIndex>) -> Option<String> {
        let none = Disk::default();
        let disk = self.replicas.get(&place).unwrap_or(&none);
        if let Some(vote) = vote
            && !(disk.term > term || (disk.term == term && disk.vote == Some(vote)))
        {
            return Some(format!(
                "{place} votes for {vote} in term {term}, and its disk has term {} and the vote {:?}",
                disk.term, disk.vote
            ));
        }
        // An answer to an earlier leader may leave after a later one's overwriting, before or after its entries were written. It
        // can't count: whoever leads later without these entries was elected by a majority that will never hold them.
        let accepted = accepted.filter(|_| term >= disk.term)?;
        (accepted > disk.last.max(disk.stands))
            .then(|| format!("{place} says to hold its log up to {accepted}, and its disk has it up to {}", disk.last))
    }

    fn commit(&mut self, place: Place, index: LogIndex) -> Option<String> {
        let shard = self.shards.get_mut(&place.shard)?;
        if index <= shard.committed {
            return None;
        }
        let stand = self.replicas.iter().filter(|(other, disk)| other.shard == place.shard && disk.stands >= index);
        let stand = stand.fold(0, |nodes, (other, _)| nodes | bit(*other));
        let held = shard.holders.range((index, Term(0))..=(index, Term(u64::MAX)));
        let nodes = held.map(|(_, nodes)| (nodes | stand).count_ones()).max().unwrap_or(stand.count_ones()) as usize;
        shard.committed = index;
        shard.holders = shard.holders.split_off(&(LogIndex(index.0 + 1), Term(0)));
        let voters = shard.voters;
        (nodes <= voters / 2)
            .then(|| format!("{place} takes {index} for committed, which {nodes} of {voters} disks have or had"))
    }
}

fn bit(place: Place) -> u64 {
    1 << (place.node.0 % 64)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{committed, judge, mark, place, started};
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), Violation> {
        let mut property = Synced::default();
        judge(facts, |at, fact| property.check(at, fact))
    }

    fn begin() -> Vec<Fact> {
        (1..=3).map(|node| started(node, 1, None, 1, &[])).collect()
    }

    fn synced(node: u64, records: &[SyncedRecord]) -> Fact {
        Fact::Synced { place: place(node), records: records.to_vec() }
    }

    fn entry(index: u64, term: u64) -> SyncedRecord {
        SyncedRecord::Entry { index: LogIndex(index), term: Term(term) }
    }

    fn hard_state(term: u64, vote: u64) -> SyncedRecord {
        SyncedRecord::HardState { term: Term(term), vote: Some(ReplicaId(vote)) }
    }

    fn accepts(node: u64, term: u64, index: u64) -> Fact {
        Fact::Promised { place: place(node), term: Term(term), vote: None, accepted: Some(LogIndex(index)) }
    }

    fn votes(node: u64, term: u64, vote: u64) -> Fact {
        Fact::Promised { place: place(node), term: Term(term), vote: Some(ReplicaId(vote)), accepted: None }
    }

    fn all(parts: &[Vec<Fact>]) -> Vec<Fact> {
        [&[begin()], parts].concat().concat()
    }

    #[test]
    fn what_a_majority_has_synced_is_good() {
        let facts = vec![synced(1, &[entry(2, 2)]), synced(3, &[entry(2, 2), entry(3, 2)]), committed(2, 2)];
        assert_eq!(verdict(&all(std::slice::from_ref(&facts))), Ok(()));
        // What one of them loses later, or was committed already, does not matter.
        let again = vec![started(3, 2, None, 1, &[]), committed(3, 2)];
        assert_eq!(verdict(&all(&[facts, again])), Ok(()));
        let installed =
            vec![synced(1, &[SyncedRecord::Stands { index: LogIndex(9) }]), synced(2, &[entry(9, 4)]), committed(2, 9)];
        assert_eq!(verdict(&all(&[installed])), Ok(()));
    }

    #[test]
    fn what_a_start_finds_is_synced() {
        let mut facts = begin();
        facts[0] = started(1, 2, Some(1), 1, &[mark(2, 2, 20)]);
        facts.extend([synced(2, &[entry(2, 2)]), committed(1, 2), votes(1, 2, 1), accepts(1, 2, 2)]);
        assert_eq!(verdict(&facts), Ok(()));
    }

    #[test]
    fn what_a_minority_has_synced_is_not_committed() {
        let one = vec![synced(1, &[entry(2, 2)]), committed(1, 2)];
        assert!(verdict(&all(&[one])).unwrap_err().what.contains("1 of 3"));
        let two_terms = vec![synced(1, &[entry(2, 2)]), synced(2, &[entry(2, 3)]), committed(1, 2)];
        assert!(verdict(&all(&[two_terms])).is_err());
        assert!(verdict(&all(&[vec![committed(1, 2)]])).is_err());
    }

    #[test]
    fn an_acknowledgement_before_the_sync_is_bad() {
        assert_eq!(verdict(&all(&[vec![synced(2, &[entry(2, 2)]), accepts(2, 2, 2)]])), Ok(()));
        assert!(verdict(&all(&[vec![synced(2, &[entry(2, 2)]), accepts(2, 2, 3)]])).is_err());
        // An answer to an earlier leader that leaves with a later one's overwriting says nothing; to that later one it does.
        let overwritten = synced(2, &[hard_state(3, 1), entry(2, 3)]);
        assert_eq!(verdict(&all(&[vec![overwritten.clone(), accepts(2, 2, 5), accepts(2, 3, 2)]])), Ok(()));
        assert!(verdict(&all(&[vec![overwritten, accepts(2, 3, 3)]])).is_err());
    }

    #[test]
    fn a_vote_before_the_sync_is_bad() {
        assert_eq!(verdict(&all(&[vec![synced(2, &[hard_state(4, 1)]), votes(2, 4, 1), votes(2, 3, 3)]])), Ok(()));
        assert!(verdict(&all(&[vec![votes(2, 4, 1)]])).is_err());
        assert!(verdict(&all(&[vec![synced(2, &[hard_state(4, 1)]), votes(2, 4, 3)]])).is_err());
    }
}
