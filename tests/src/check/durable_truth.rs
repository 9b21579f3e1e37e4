//! `wait_durable` never lies (ours): what it called durable is applied with the token's term, what it called lost never is.
//!
//! And it never could: when a run is over, each write that was acknowledged with a token has taken effect if and only if its
//! token is durable, whether or not anybody asked.

use std::collections::{BTreeMap, BTreeSet};

use kv_core::{
    command::CommandOutcome,
    types::{LogIndex, Sequence, SessionId, ShardId, Term, Token},
};

use super::{Fact, Violation, view::AppliedCommand};
use crate::history::{Answer, Call, History, Moment, Name, Operation, Stamp};

/// What was applied, and what was called lost.
#[derive(Debug, Default)]
pub struct DurableTruth {
    terms: BTreeMap<(ShardId, LogIndex), Term>,
    highest: BTreeMap<ShardId, Term>,
    lost: BTreeSet<Token>,
    /// Writes that were run: by their place in a session, and puts by their value, which no other has.
    stamps: BTreeSet<(ShardId, SessionId, Sequence)>,
    values: BTreeSet<Name>,
}

const PROPERTY: &str = "wait_durable";

impl DurableTruth {
    /// Judges a fact.
    ///
    /// # Errors
    /// If an answer was, or turns out to be, untrue.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let what = match fact {
            Fact::Applied { place, entry, commands, .. } => {
                if self.terms.insert((place.shard, entry.index), entry.term).is_none() {
                    commands.iter().for_each(|command| self.ran(place.shard, command));
                }
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
        what.map_or(Ok(()), |what| Err(Violation { property: PROPERTY, what, at }))
    }

    fn ran(&mut self, shard: ShardId, command: &AppliedCommand) {
        let (CommandOutcome::Written { .. }, Some(write)) = (&command.outcome, &command.write) else { return };
        self.stamps.extend(command.stamp.map(|(session, sequence)| (shard, session, sequence)));
        self.values.extend(write.value.clone());
    }

    /// Judges the tokens when the run is over.
    ///
    /// # Errors
    /// If a write took effect whose token is lost, or one took none whose token is durable.
    pub fn finish(&self, history: &History) -> Result<(), Violation> {
        for operation in history.operations() {
            let Some((at, Answer::Accepted { token })) = &operation.completed else { continue };
            // A delete without a session leaves no name by which it could be found.
            let Some(ran) = self.has_run(operation) else { continue };
            let durable = self.terms.get(&(token.shard, token.index)) == Some(&token.term);
            if ran != durable {
                let (token_is, effect) =
                    (if durable { "durable" } else { "lost" }, if ran { "took" } else { "had no" });
                let what = format!("its token is {token_is}, and it {effect} effect: {operation}");
                return Err(Violation { property: PROPERTY, what, at: *at });
            }
        }
        Ok(())
    }

    fn has_run(&self, operation: &Operation) -> Option<bool> {
        let Call::Write { value, .. } = &operation.call else { return None };
        let by_value = value.as_ref().map(|value| self.values.contains(value));
        by_value.or_else(|| {
            let Stamp { shard, session, sequence } = *operation.stamps.last()?;
            Some(self.stamps.contains(&(shard, session, sequence)))
        })
    }
}

#[cfg(test)]
mod tests {
    use kv_core::{command::Previous, types::Revision};

    use super::super::{
        testing::{applied, judge, place},
        view::AppliedWrite,
    };
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), Violation> {
        let mut property = DurableTruth::default();
        judge(facts, |at, fact| property.check(at, fact))
    }

    fn said(term: u64, index: u64, durable: bool) -> Fact {
        let token = Token { shard: ShardId(1), term: Term(term), index: LogIndex(index) };
        Fact::SaidDurable { place: place(1), token, durable }
    }

    fn put(index: u64, term: u64, value: &str) -> Fact {
        let write = AppliedWrite { key: "k".into(), value: Some(value.into()) };
        let outcome = CommandOutcome::Written { revision: Revision(index), previous: Previous::NotAsked };
        applied(1, index, term, vec![AppliedCommand { stamp: None, write: Some(write), outcome }])
    }

    fn verdict_at_the_end(facts: &[Fact], history: &str) -> Result<(), Violation> {
        let mut property = DurableTruth::default();
        judge(facts, |at, fact| property.check(at, fact))?;
        property.finish(&history.parse().unwrap())
    }

    const ACCEPTED: &str = "0 c1 1@1 put k a async 1/1/1 => 2@2 accepted 1/2/5\n";

    #[test]
    fn a_write_takes_effect_if_and_only_if_its_token_is_durable() {
        assert_eq!(verdict_at_the_end(&[put(5, 2, "a")], ACCEPTED), Ok(()));
        assert_eq!(verdict_at_the_end(&[put(5, 3, "b")], ACCEPTED), Ok(()), "lost");
        assert_eq!(verdict_at_the_end(&[], ACCEPTED), Ok(()), "nothing came after it");
        verdict_at_the_end(&[put(5, 3, "b"), put(6, 3, "a")], ACCEPTED).unwrap_err();
        verdict_at_the_end(&[put(5, 2, "b")], ACCEPTED).unwrap_err();
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
