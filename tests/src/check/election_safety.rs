//! Election safety (Raft 5.2): at most one replica leads a shard in a term.

use std::collections::BTreeMap;

use kv_core::types::{ShardId, Term};

use super::{
    Fact, Violation,
    view::{Place, ReplicaView, Role},
};
use crate::history::Moment;

/// Who led which shard in which term.
#[derive(Debug, Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<(ShardId, Term), Place>,
}

impl ElectionSafety {
    /// Judges a fact.
    ///
    /// # Errors
    /// If a second replica leads in a term.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let (place, term) = match fact {
            Fact::BecameLeader { place, term, .. } => (*place, *term),
            Fact::View(ReplicaView { place, term, role: Role::Leader, .. }) => (*place, *term),
            _ => return Ok(()),
        };
        let leader = *self.leaders.entry((place.shard, term)).or_insert(place);
        if leader == place {
            return Ok(());
        }
        let what = format!("{place} leads in term {term}, in which {leader} led");
        Err(Violation { property: "election safety", what, at })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{judge, leads, place};
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), Violation> {
        let mut property = ElectionSafety::default();
        judge(facts, |at, fact| property.check(at, fact))
    }

    #[test]
    fn one_leader_per_term_is_good() {
        assert_eq!(verdict(&[leads(1, 2, 1), leads(2, 3, 1), leads(1, 2, 1), leads(1, 4, 1)]), Ok(()));
    }

    #[test]
    fn two_leaders_of_a_term_are_bad() {
        assert_eq!(verdict(&[leads(1, 2, 1), leads(2, 2, 1)]).unwrap_err().at.event, 2);
        let view = ReplicaView { place: place(2), term: Term(2), role: Role::Leader, ..Default::default() };
        assert!(verdict(&[leads(1, 2, 1), Fact::View(view)]).is_err());
    }
}
