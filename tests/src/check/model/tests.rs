//! The model takes a good history, and refuses each that a replica could only tell by being wrong.

use kv_core::{
    command::{Action, Command, CommandOutcome, Condition, Previous, SessionStamp, Write},
    founding::configuration,
    shard_map::{Arc, ReplicaPlace, ShardRow},
    state::{ShardState, Tree, record::StateHeader},
    types::{Entry, Epoch, Key, NodeId, Position, ReplicaId, Revision, Sequence, SessionId, Term, Value},
};

use super::super::testing::{SESSIONS as BOUNDS, applied, judge, place};
use super::*;
use crate::disk::MemoryStore;

const SHARD: ShardId = ShardId(1);

fn row() -> ShardRow {
    let replicas = vec![ReplicaPlace { replica: ReplicaId(1), node: NodeId(1) }];
    let arc = Some(Arc { first: Position(0), last: Position(u64::MAX) });
    ShardRow { shard: SHARD, arc, epoch: Epoch(1), replicas }
}

/// One shard that owns the whole ring.
pub(in crate::check) fn layout() -> ShardMap {
    ShardMap { shards: vec![row()], ..ShardMap::default() }
}

pub(in crate::check) fn decided(index: u64, commands: &[Command]) -> Fact {
    Fact::Decided { shard: SHARD, index: LogIndex(index), term: Term(2), commands: commands.to_vec() }
}

fn outcome(index: u64, outcomes: &[CommandOutcome]) -> Fact {
    let command = |outcome: &CommandOutcome| AppliedCommand { stamp: None, write: None, outcome: outcome.clone() };
    applied(1, index, 2, outcomes.iter().map(command).collect())
}

fn held(index: u64, digest: Digest) -> Fact {
    Fact::Held { place: place(1), index: LogIndex(index), digest }
}

fn verdict(facts: &[Fact]) -> Result<(), Violation> {
    verdict_within(BOUNDS, facts)
}

fn verdict_within(bounds: SessionBounds, facts: &[Fact]) -> Result<(), Violation> {
    let mut model = Model::new(&layout(), bounds);
    judge(facts, |at, fact| model.check(at, fact))
}

fn put(key: &str, value: &str) -> Write {
    Write {
        key: Key::new(key.to_owned()).unwrap(),
        action: Action::Put(Value::new(value.to_owned()).unwrap()),
        condition: Condition::Always,
        return_previous: false,
        session: None,
    }
}

fn in_session(session: u64, sequence: u64, floor: u64, write: Write) -> Command {
    let (session, sequence, floor) = (SessionId(session), Sequence(sequence), Sequence(floor));
    Command::Write(Write { session: Some(SessionStamp { session, sequence, floor }), ..write })
}

fn written(revision: u64) -> CommandOutcome {
    CommandOutcome::Written { revision: Revision(revision), previous: Previous::NotAsked }
}

/// A log with something of each kind in it.
fn history() -> Vec<Vec<Command>> {
    let delete = |key: &str| Command::Write(Write { action: Action::Delete, ..put(key, "") });
    let only_if = |condition, write: Write| Write { condition, ..write };
    let asking = |write: Write| Write { return_previous: true, ..write };
    vec![
        vec![],
        vec![Command::OpenSession, Command::Write(put("a", "1")), Command::OpenSession],
        vec![in_session(1, 1, 1, put("a", "2")), in_session(1, 2, 1, only_if(Condition::Absent, put("a", "3")))],
        vec![in_session(2, 1, 1, asking(put("a", "4"))), in_session(2, 2, 1, asking(put("b", "5")))],
        vec![in_session(1, 1, 1, put("a", "2")), delete("b"), delete("b"), Command::Mark],
        vec![in_session(1, 3, 3, only_if(Condition::RevisionIs(Revision(3)), put("a", "6")))],
        vec![in_session(1, 2, 3, put("a", "7")), in_session(9, 1, 1, put("a", "8"))],
        (0..40).map(|number| in_session(2, 3 + number, 2, asking(put("c", &"x".repeat(200))))).collect(),
        (0..5).map(|_| Command::OpenSession).collect(),
    ]
}

/// What the core's state makes of it: outcomes and digests.
fn told_by_the_core(bounds: SessionBounds) -> Vec<(Vec<CommandOutcome>, Digest)> {
    let row = row();
    let header = StateHeader {
        index: LogIndex(1),
        term: Term(1),
        arc: row.arc,
        epoch: row.epoch,
        terms: vec![(Term(1), LogIndex(1))],
        configurations: vec![(LogIndex(1), configuration(&row))],
        ..StateHeader::default()
    };
    let state = ShardState::from_header(header, Vec::new(), Vec::new()).unwrap();
    let mut state = state.with_session_bounds(bounds);
    let store = MemoryStore::default();
    kv_core::disk::StateStore::reset(&store, ReplicaId(1)).unwrap();
    let tree = Tree::new(&store, ReplicaId(1));
    let mut told = Vec::new();
    for (commands, index) in history().iter().zip(2..) {
        let mut outcomes = Vec::new();
        state.apply(&tree, LogIndex(index), Term(2), commands, &mut outcomes).unwrap();
        told.push((outcomes, state.digest_of_all(&tree).unwrap()));
    }
    told
}

fn facts(told: &[(Vec<CommandOutcome>, Digest)]) -> Vec<Fact> {
    let each = history().into_iter().zip(told).zip(2..);
    each.flat_map(|((commands, (outcomes, digest)), index)| {
        [decided(index, &commands), outcome(index, outcomes), held(index, *digest)]
    })
    .collect()
}

#[test]
fn the_core_comes_to_what_the_model_comes_to() {
    for bounds in [
        BOUNDS,
        SessionBounds { sessions_max: 2, ..BOUNDS },
        SessionBounds { bytes_max: 1_000, ..BOUNDS },
        SessionBounds { bytes_max: 400, ..BOUNDS },
        SessionBounds { open_max: 3, ..BOUNDS },
        SessionBounds { outcome_bytes_max: 100, ..BOUNDS },
    ] {
        let told = told_by_the_core(bounds);
        assert_eq!(verdict_within(bounds, &facts(&told)), Ok(()), "{bounds:?}");
    }
}

#[test]
fn another_outcome_is_bad() {
    let commands = [Command::Write(put("a", "1")), Command::OpenSession];
    let good = [written(1), CommandOutcome::SessionOpened(SessionId(1))];
    assert_eq!(verdict(&[decided(2, &commands), outcome(2, &good)]), Ok(()));
    for bad in [
        vec![written(2), good[1].clone()],
        vec![good[0].clone(), CommandOutcome::SessionOpened(SessionId(2))],
        vec![good[0].clone()],
        vec![],
    ] {
        verdict(&[decided(2, &commands), outcome(2, &bad)]).unwrap_err();
    }
}

#[test]
fn a_condition_a_previous_entry_and_a_second_run_are_known() {
    let asking = Write { return_previous: true, ..put("a", "2") };
    let absent = Write { condition: Condition::Absent, ..put("a", "3") };
    let commands = [
        Command::OpenSession,
        in_session(1, 1, 1, put("a", "1")),
        in_session(1, 1, 1, put("a", "1")),
        Command::Write(asking),
        Command::Write(absent),
    ];
    let entry = |revision, value: &str| {
        let entry = Entry { revision: Revision(revision), value: Value::new(value.to_owned()).unwrap() };
        CommandOutcome::Written { revision: Revision(2), previous: Previous::Entry(entry) }
    };
    let conflict = |current| CommandOutcome::Conflict { current: Revision(current) };
    let opened = CommandOutcome::SessionOpened(SessionId(1));
    let good = [opened.clone(), written(1), written(1), entry(1, "1"), conflict(2)];
    assert_eq!(verdict(&[decided(2, &commands), outcome(2, &good)]), Ok(()));
    for (position, bad) in
        [(2, written(2)), (2, CommandOutcome::Finished), (3, entry(1, "0")), (3, written(2)), (4, conflict(1))]
    {
        let mut told = good.clone();
        told[position] = bad;
        verdict(&[decided(2, &commands), outcome(2, &told)]).unwrap_err();
    }
}

#[test]
fn who_is_forgotten_is_known() {
    let bounds = SessionBounds { sessions_max: 2, ..BOUNDS };
    let opened = |id| CommandOutcome::SessionOpened(SessionId(id));
    let commands = [
        Command::OpenSession,
        Command::OpenSession,
        in_session(1, 1, 1, put("a", "1")),
        Command::OpenSession,
        in_session(1, 2, 1, put("a", "2")),
        in_session(2, 1, 1, put("a", "3")),
    ];
    let good = [opened(1), opened(2), written(1), opened(3), written(2), CommandOutcome::SessionExpired];
    assert_eq!(verdict_within(bounds, &[decided(2, &commands), outcome(2, &good)]), Ok(()));
    // The one that was just used went instead.
    let bad = [opened(1), opened(2), written(1), opened(3), CommandOutcome::SessionExpired, written(2)];
    verdict_within(bounds, &[decided(2, &commands), outcome(2, &bad)]).unwrap_err();
}

#[test]
fn a_state_that_all_replicas_forget_alike_is_bad() {
    let told = told_by_the_core(BOUNDS);
    let mut forgotten = facts(&told);
    // All of them stand where they stood one entry before.
    forgotten.push(held(9, told[6].1));
    verdict(&forgotten).unwrap_err();
}

#[test]
fn a_digest_that_comes_before_its_entry_is_judged_with_it() {
    let digest = told_by_the_core(BOUNDS)[0].1;
    assert_eq!(verdict(&[held(2, digest), decided(2, &[])]), Ok(()));
    verdict(&[held(2, Digest(7)), decided(2, &[])]).unwrap_err();
}

#[test]
fn a_gap_or_a_term_that_falls_is_bad() {
    verdict(&[decided(3, &[])]).unwrap_err();
    verdict(&[outcome(2, &[])]).unwrap_err();
    let falls = Fact::Decided { shard: SHARD, index: LogIndex(2), term: Term(0), commands: vec![] };
    verdict(&[falls]).unwrap_err();
}
