//! What the checkers' tests share: short ways to write facts, and a clock that counts them.

use kv_core::{
    state::sessions::{OUTCOME_BYTES_MAX, SESSION_BYTES_MAX, SESSION_OPEN_MAX, SESSIONS_MAX, SessionBounds},
    types::{LogIndex, NodeId, ReplicaId, ShardId, Term},
};

use super::{
    Bounds, Fact, Violation,
    view::{AppliedCommand, EntryMark, Place},
};
use crate::history::Moment;

pub(super) const SESSIONS: SessionBounds = SessionBounds {
    sessions_max: SESSIONS_MAX,
    bytes_max: SESSION_BYTES_MAX,
    open_max: SESSION_OPEN_MAX,
    outcome_bytes_max: OUTCOME_BYTES_MAX,
};

/// The bounds of production.
pub(super) const BOUNDS: Bounds = Bounds {
    undecided_micros_max: 100_000,
    undecided_commands_max: 1_000,
    undecided_bytes_max: 1024 * 1024,
    sessions: SESSIONS,
};

/// The replica of shard 1 on this node; its id is the node's.
pub(super) fn place(node: u64) -> Place {
    Place { node: NodeId(node), shard: ShardId(1), replica: ReplicaId(node) }
}

pub(super) fn mark(index: u64, term: u64, hash: u64) -> EntryMark {
    EntryMark { index: LogIndex(index), term: Term(term), hash }
}

pub(super) fn appended(node: u64, index: u64, term: u64, hash: u64) -> Fact {
    Fact::Appended { place: place(node), entry: mark(index, term, hash) }
}

pub(super) fn committed(node: u64, index: u64) -> Fact {
    committed_in(node, index, 0)
}

pub(super) fn committed_in(node: u64, index: u64, term: u64) -> Fact {
    Fact::Committed { place: place(node), index: LogIndex(index), term: Term(term) }
}

pub(super) fn leads(node: u64, term: u64, last_index: u64) -> Fact {
    Fact::BecameLeader { place: place(node), term: Term(term), last_index: LogIndex(last_index) }
}

pub(super) fn applied(node: u64, index: u64, term: u64, commands: Vec<AppliedCommand>) -> Fact {
    Fact::Applied { place: place(node), entry: mark(index, term, index), commands }
}

/// A start that finds these entries in a log that stands on index 1 of term 1.
pub(super) fn started(node: u64, term: u64, vote: Option<u64>, commit: u64, entries: &[EntryMark]) -> Fact {
    Fact::Started {
        place: place(node),
        start: 1,
        term: Term(term),
        vote: vote.map(ReplicaId),
        commit: LogIndex(commit),
        boundary: (LogIndex(1), Term(1)),
        entries: entries.to_vec(),
        voters: 3,
    }
}

/// Gives facts to a check, one per event, a millisecond apart.
pub(super) fn judge(
    facts: &[Fact],
    mut check: impl FnMut(Moment, &Fact) -> Result<(), Violation>,
) -> Result<(), Violation> {
    facts.iter().enumerate().try_for_each(|(i, fact)| {
        let event = i as u64 + 1;
        check(Moment { event, micros: event * 1_000 }, fact)
    })
}

#[test]
fn every_judge_of_facts_is_asked() {
    use kv_core::{
        command::Command,
        shard_map::{Arc, ShardMap},
        types::{Epoch, Position, Revision, Token},
    };

    use super::{
        Checkers, model,
        view::{ReplicaView, Role},
    };
    use crate::history::Seen;

    let token = Token { shard: ShardId(1), term: Term(2), index: LogIndex(2) };
    let view = ReplicaView { place: place(1), term: Term(2), ..Default::default() };
    let arc =
        |last| ReplicaView { arc: Some(Arc { first: Position(0), last: Position(last) }), epoch: Epoch(1), ..view };
    let promised = |term| Fact::Promised { place: place(1), term: Term(term), vote: None, accepted: None };
    let promised_to_hold =
        |index| Fact::Promised { place: place(1), term: Term(1), vote: None, accepted: Some(LogIndex(index)) };
    let twice = |index| {
        let write = super::view::AppliedWrite { key: "k".into(), value: Some("a".into()) };
        let outcome = kv_core::command::CommandOutcome::Written {
            revision: Revision(index),
            previous: kv_core::command::Previous::NotAsked,
        };
        applied(1, index, 2, vec![AppliedCommand { stamp: None, write: Some(write), outcome }])
    };
    let read = Seen { revision: Revision(7), value: "v".into() };
    let streams = [
        ("election safety", vec![leads(1, 2, 1), leads(2, 2, 1)]),
        ("log matching", vec![appended(1, 3, 2, 3)]),
        ("leader completeness", vec![committed(1, 2)]),
        ("state-machine safety", vec![applied(1, 2, 2, vec![]), applied(2, 2, 3, vec![])]),
        ("monotonic state", vec![Fact::View(ReplicaView { role: Role::Leader, commit: LogIndex(1), ..view })]),
        ("kept promises", vec![promised(3), promised(2)]),
        ("synced before it counts", vec![started(1, 1, None, 1, &[]), promised_to_hold(2)]),
        ("one owner", vec![Fact::View(arc(9)), Fact::View(arc(8))]),
        ("exactly once", vec![twice(2), twice(3)]),
        ("async loss", vec![Fact::AcceptedAsync { place: place(1), token, bytes: 1 << 30, held_micros: 0 }]),
        (
            "bounded age",
            vec![Fact::AnsweredOldRead {
                place: place(1),
                at: Revision(7),
                asked_micros_max: Some(1),
                told_micros: Some(2),
                current_at_micros: Some(0),
            }],
        ),
        ("the model of the state", vec![model::tests::decided(2, &[Command::OpenSession]), applied(1, 2, 2, vec![])]),
        ("wait_durable", vec![Fact::SaidDurable { place: place(1), token, durable: true }]),
        (
            "nothing read vanishes",
            vec![Fact::AnsweredRead { place: place(1), key: "k".into(), entry: Some(read), at: Revision(7) }],
        ),
    ];
    for (property, facts) in streams {
        // Of shards that it does not know the model says nothing.
        let layout = if property == "the model of the state" { model::tests::layout() } else { ShardMap::default() };
        let mut checkers = Checkers::new(BOUNDS, &layout);
        let violation = judge(&facts, |at, fact| checkers.check(at, fact)).unwrap_err();
        assert_eq!(violation.property, property, "{violation}");
    }
}

#[test]
fn every_judge_of_the_history_is_asked() {
    let put = |revision: u64, value: &str| {
        let write = super::view::AppliedWrite { key: "k".into(), value: Some(value.into()) };
        let outcome = kv_core::command::CommandOutcome::Written {
            revision: kv_core::types::Revision(revision),
            previous: kv_core::command::Previous::NotAsked,
        };
        applied(1, revision + 1, 2, vec![AppliedCommand { stamp: None, write: Some(write), outcome }])
    };
    let facts = [put(1, "a"), put(2, "b")];
    let finish = |history: &str| {
        let mut checkers = super::Checkers::new(BOUNDS, &kv_core::shard_map::ShardMap::default());
        judge(&facts, |at, fact| checkers.check(at, fact)).unwrap();
        checkers.finish(&history.parse().unwrap(), 90, |_| ShardId(1))
    };
    let puts = "0 c1 1@1 put k a sync => 2@2 written 1\n1 c1 3@3 put k b sync => 4@4 written 2\n";
    let end = "9 c9 90@90 get k linearizable => 91@91 read 2:b at:2 age:0\n";
    assert_eq!(finish(&format!("{puts}{end}")), Ok(()));
    for (property, line) in [
        ("acknowledged writes present", "2 c1 5@5 delete k sync => 6@6 written 3\n"),
        (
            "exactly once",
            "2 c1 5@5 put j c sync => 6@6 written 1\n8 c9 90@90 get j linearizable => 92@92 read 1:c age:0\n",
        ),
        (
            "nothing read vanishes",
            "2 c1 5@5 get j stale => 6@6 read 1:b at:2 age:0\n8 c9 90@90 get j linearizable => 92@92 read 1:b age:0\n",
        ),
        ("revisions", "2 c1 5@5 get k linearizable => 6@6 read 2:b at:1 age:0\n"),
        (
            "linearizability",
            "2 c1 5@5 get k linearizable => 6@6 read absent at:2 age:0\n3 c1 7@7 delete k sync => never\n",
        ),
    ] {
        let verdict = finish(&format!("{puts}{line}{end}"));
        assert_eq!(verdict.as_ref().unwrap_err().property, property, "{verdict:?}");
    }
}
