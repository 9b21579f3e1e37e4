//! `wait_durable` never lies (ours): what it called durable is applied with the token's term, what it called lost never is.

use std::collections::{BTreeMap, BTreeSet};

use kv_core::types::{LogIndex, ShardId, Term, Token};

use super::{Fact, Violation};
use crate::history::Moment;

/// What was applied, and what was called lost.
#[derive(Debug, Default)]
pub struct DurableTruth {
    terms: BTreeMap<(ShardId, LogIndex), Term>,
    highest: BTreeMap<ShardId, Term>,
    lost: BTreeSet<Token>,
}

impl DurableTruth {
    /// Judges a fact.
    ///
    /// # Errors
    /// If an answer was, or turns out to be, untrue.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let what = match fact {
            Fact::Applied { place, entry, .. } => {
                self.terms.insert((place.shard, entry.index), entry.term);
                let highest = self.highest.entry(place.shard).or_default();
                *highest = (*highest).max(entry.term);
                let token = Token { shard: place.shard, term: entry.term, index: entry.index };
                self.lost.contains(&token).then(|| format!("{token:?} is applied, but was called lost"))
            }
            Fact::SaidDurable { place, token, durable: true } => {
                let applied = self.terms.get(&(token.shard, token.index)).copied();
                (applied != Some(token.term))
                    .then(|| format!("{place} calls {token:?} durable; applied there is {applied:?}"))
            }
            Fact::SaidDurable { place, token, durable: false } => {
                self.lost.insert(*token);
                let replaced = match self.terms.get(&(token.shard, token.index)) {
                    Some(term) => *term != token.term,
                    None => self.highest.get(&token.shard).is_some_and(|highest| *highest > token.term),
                };
                (!replaced).then(|| format!("{place} calls {token:?} lost, and nothing was applied instead"))
            }
            _ => None,
        };
        what.map_or(Ok(()), |what| Err(Violation { property: "wait_durable", what, at }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{applied, judge, place};
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), Violation> {
        let mut property = DurableTruth::default();
        judge(facts, |at, fact| property.check(at, fact))
    }

    fn said(term: u64, index: u64, durable: bool) -> Fact {
        let token = Token { shard: ShardId(1), term: Term(term), index: LogIndex(index) };
        Fact::SaidDurable { place: place(1), token, durable }
    }

    #[test]
    fn true_answers_are_good() {
        let facts = [
            applied(1, 2, 2, vec![]),
            said(2, 2, true),
            applied(1, 3, 3, vec![]),
            said(2, 3, false),
            // Not reached yet, but a later term rules.
            said(2, 9, false),
        ];
        assert_eq!(verdict(&facts), Ok(()));
    }

    #[test]
    fn lies_are_bad() {
        assert!(verdict(&[said(2, 2, true)]).is_err());
        assert!(verdict(&[applied(1, 2, 3, vec![]), said(2, 2, true)]).is_err());
        assert!(verdict(&[applied(1, 2, 2, vec![]), said(2, 2, false)]).is_err());
        assert!(verdict(&[applied(1, 2, 2, vec![]), said(2, 3, false)]).is_err());
        let later = [applied(1, 2, 3, vec![]), said(2, 9, false), applied(2, 9, 2, vec![])];
        assert!(verdict(&later).is_err());
    }
}
