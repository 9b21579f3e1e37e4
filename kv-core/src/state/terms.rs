//! What a token's fate is, told from the first index of each term.
//!
//! Terms never fall along a log, so the table of first indexes tells the term of every applied index from its first row on.

use crate::{
    state::record::{StateHeader, TERMS_MAX},
    types::{LogIndex, Term, Token},
};

/// What has become of the write that a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It is applied: a majority has it on disk.
    Durable,
    /// It was overwritten or will never be applied.
    Lost,
    /// Not decided here yet.
    Undecided,
    /// Too old to tell: its index is below the table's first term.
    Forgotten,
}

/// Notes the term of a newly applied index.
pub(super) fn note(header: &mut StateHeader, index: LogIndex, term: Term) {
    header.index = index;
    header.term = term;
    if header.terms.last().is_none_or(|(last, _)| *last < term) {
        header.terms.push((term, index));
        if header.terms.len() > TERMS_MAX {
            header.terms.remove(0);
        }
    }
}

pub(super) fn durability(header: &StateHeader, token: Token) -> TokenState {
    if token.index > header.index {
        return if header.term > token.term { TokenState::Lost } else { TokenState::Undecided };
    }
    let after = header.terms.partition_point(|(_, first)| *first <= token.index);
    match after.checked_sub(1).and_then(|row| header.terms.get(row)) {
        Some((term, _)) if *term == token.term || mutant!("A2") => TokenState::Durable,
        Some(_) => TokenState::Lost,
        // Below the table its term is lower than all in it.
        None if header.terms.first().is_some_and(|(first, _)| token.term >= *first) => TokenState::Lost,
        None => TokenState::Forgotten,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ShardId;

    fn ask(header: &StateHeader, term: u64, index: u64) -> TokenState {
        durability(header, Token { shard: ShardId(1), term: Term(term), index: LogIndex(index) })
    }

    #[test]
    fn a_token_is_durable_iff_its_index_is_applied_with_its_term() {
        let mut header = StateHeader::default();
        for (index, term) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 7)] {
            note(&mut header, LogIndex(index), Term(term));
        }
        assert_eq!(header.terms, [(Term(1), LogIndex(1)), (Term(3), LogIndex(3)), (Term(7), LogIndex(5))]);
        assert_eq!(ask(&header, 1, 2), TokenState::Durable);
        assert_eq!(ask(&header, 3, 3), TokenState::Durable);
        assert_eq!(ask(&header, 3, 4), TokenState::Durable);
        assert_eq!(ask(&header, 7, 5), TokenState::Durable);
        assert_eq!(ask(&header, 2, 3), TokenState::Lost, "overwritten by a later term");
        assert_eq!(ask(&header, 7, 4), TokenState::Lost);
        assert_eq!(ask(&header, 3, 6), TokenState::Lost, "a later term is applied below it");
        assert_eq!(ask(&header, 7, 6), TokenState::Undecided);
        assert_eq!(ask(&header, 8, 6), TokenState::Undecided);
    }

    #[test]
    fn only_the_newest_terms_are_remembered() {
        let mut header = StateHeader::default();
        for number in 1..=TERMS_MAX as u64 + 2 {
            note(&mut header, LogIndex(number), Term(number));
        }
        assert_eq!(header.terms.len(), TERMS_MAX);
        assert_eq!(ask(&header, 2, 2), TokenState::Forgotten);
        assert_eq!(ask(&header, 3, 3), TokenState::Durable);
        assert_eq!(ask(&header, 3, 2), TokenState::Lost, "its term begins only above it");
    }
}
