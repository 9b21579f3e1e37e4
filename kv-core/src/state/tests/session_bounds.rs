//! What a session refuses, and what goes first when sessions grow past their bounds.

use super::*;
use crate::{
    command::Previous,
    state::sessions::{OUTCOME_BYTES_MAX, SESSION_OPEN_MAX, session_bytes_added_max},
};

fn in_session(session: u64, sequence: u64, bytes: &[u8]) -> Command {
    Command::Write(Write { session: stamp(session, sequence, 1), return_previous: true, ..put(0, bytes) })
}

fn previous_of(outcome: &CommandOutcome) -> &Previous {
    let CommandOutcome::Written { previous, .. } = outcome else { panic!("{outcome:?}") };
    previous
}

#[test]
fn a_retry_is_answered_as_the_first_time_even_if_it_failed() {
    let mut replica = Replica::new(Some(WHOLE));
    let conditional = Write { condition: Condition::Absent, session: stamp(1, 2, 1), ..put(0, b"c") };
    let entry = [Command::OpenSession, in_session(1, 1, b"b"), Command::Write(conditional.clone())];
    let first = replica.apply(Term(1), &entry);
    assert_eq!(first[2], CommandOutcome::Conflict { current: Revision(1) });
    replica.apply(Term(1), &[Command::Write(Write { action: Action::Delete, ..put(0, b"") })]);
    let again = replica.apply(Term(1), &[in_session(1, 1, b"b"), Command::Write(conditional)]);
    assert_eq!(again, first[1..]);
    assert_eq!(replica.get(&key(0)), None, "neither ran a second time");
}

#[test]
fn a_write_below_the_floor_is_finished_and_one_past_1024_open_is_refused() {
    let mut replica = Replica::new(Some(WHOLE));
    replica.apply(Term(1), &[Command::OpenSession]);
    let open = SESSION_OPEN_MAX as u64;
    for sequence in 1..=open {
        replica.apply(Term(1), &[in_session(1, sequence, b"x")]);
    }
    let full = replica.apply(Term(1), &[in_session(1, open + 1, b"y")]);
    assert_eq!(full, [CommandOutcome::SessionFull]);
    assert_eq!(replica.get(&key(0)).unwrap().revision, Revision(open));
    let raised = Write { session: stamp(1, open + 1, 3), ..put(0, b"y") };
    assert!(matches!(replica.apply(Term(1), &[Command::Write(raised)])[0], CommandOutcome::Written { .. }));
    let session = replica.state.session(SessionId(1)).unwrap();
    assert_eq!((session.open(), session.floor()), (SESSION_OPEN_MAX - 1, Sequence(3)));
    assert!(!session.has_applied(Sequence(2)) && session.has_applied(Sequence(3)));
    assert_eq!(replica.apply(Term(1), &[in_session(1, 2, b"z")]), [CommandOutcome::Finished]);
    assert_eq!(replica.apply(Term(1), &[in_session(2, 1, b"z")]), [CommandOutcome::SessionExpired]);
}

#[test]
fn a_key_that_is_not_in_the_arc_is_not_remembered_but_a_remembered_write_is_answered() {
    let outside = (0..26).find(|number| !HALF.contains(ring::position(key(*number).as_bytes()))).unwrap();
    let mut replica = Replica::new(Some(HALF));
    let write = Command::Write(Write { session: stamp(1, 1, 1), ..put(outside, b"x") });
    replica.apply(Term(1), &[Command::OpenSession]);
    assert_eq!(replica.apply(Term(1), std::slice::from_ref(&write)), [CommandOutcome::NotInArc]);
    assert_eq!(replica.state.session(SessionId(1)).unwrap().open(), 0);

    let mut whole = Replica::new(Some(WHOLE));
    let done = whole.apply(Term(1), &[Command::OpenSession, write.clone()])[1].clone();
    whole.state.header.arc = Some(HALF);
    assert_eq!(whole.apply(Term(1), &[write]), [done], "the session's table is asked before the arc");
}

#[test]
fn a_large_previous_entry_is_returned_but_not_remembered() {
    let mut replica = Replica::new(Some(WHOLE));
    let large = vec![b'x'; OUTCOME_BYTES_MAX];
    replica.apply(Term(1), &[Command::OpenSession, in_session(1, 1, &large), in_session(1, 2, b"small")]);
    let first = replica.outcomes[0][2].clone();
    assert_eq!(previous_of(&first), &Previous::Entry(Entry { revision: Revision(1), value: value(&large) }));
    let again = replica.apply(Term(1), &[in_session(1, 2, b"small")]);
    assert_eq!(again, [CommandOutcome::Written { revision: Revision(2), previous: Previous::Unavailable }]);
}

#[test]
fn previous_entries_of_the_least_recent_go_first_then_whole_sessions() {
    // Three sessions of 33 bytes; an outcome has 17, with a previous entry of 8 bytes 37.
    let mut replica = Replica::with_bounds(Some(WHOLE), Sessions::with_bounds(bounds(10, 3 * 33 + 3 * 37)));
    let open = [Command::OpenSession, Command::OpenSession, Command::OpenSession];
    replica.apply(Term(1), &[Command::Write(put(0, b"12345678"))]);
    replica.apply(Term(1), &open);
    for session in [3, 1, 2] {
        replica.apply(Term(1), &[in_session(session, 1, b"12345678")]);
    }
    assert_eq!(replica.state.sessions_bytes(), 3 * 33 + 3 * 37);
    replica.apply(Term(1), &[in_session(1, 2, b"12345678")]);
    let again = replica.apply(Term(1), &[in_session(2, 1, b""), in_session(1, 1, b""), in_session(3, 1, b"")]);
    let remembers = |outcome| matches!(previous_of(outcome), Previous::Entry(_));
    assert_eq!(again.iter().map(remembers).collect::<Vec<_>>(), [false, true, false], "3 went first, then 2");
    assert_eq!(replica.state.sessions_count(), 3);

    // Nothing is left to shrink but the newest: then the least recently used session goes.
    for sequence in 3..9 {
        replica.apply(Term(1), &[Command::Write(Write { session: stamp(1, sequence, 1), ..put(0, b"") })]);
    }
    assert!(replica.state.session(SessionId(2)).is_none());
    assert!(replica.state.session(SessionId(1)).is_some());
    let expired = replica.apply(Term(1), &[in_session(2, 1, b"")]);
    assert_eq!(expired, [CommandOutcome::SessionExpired]);
    replica.freeze();
    replica.insert();
    replica.reload();
    assert!(replica.state.session(SessionId(2)).is_none(), "its record is gone too");
}

#[test]
fn past_the_count_the_least_recently_used_goes() {
    let mut replica = Replica::with_bounds(Some(WHOLE), Sessions::with_bounds(bounds(2, 1 << 20)));
    replica.apply(Term(1), &[Command::OpenSession, Command::OpenSession, in_session(1, 1, b"x"), Command::OpenSession]);
    assert!(replica.state.session(SessionId(1)).is_some());
    assert!(replica.state.session(SessionId(2)).is_none());
    assert!(replica.state.session(SessionId(3)).is_some());
}

proptest! {
    #[test]
    fn a_command_adds_no_more_than_is_said_beforehand(commands in prop::collection::vec(write(), 1..30)) {
        let mut replica = Replica::new(Some(WHOLE));
        replica.apply(Term(1), &vec![Command::OpenSession; 4]);
        prop_assert_eq!(replica.state.sessions_bytes(), 4 * session_bytes_added_max(&Command::OpenSession));
        for command in commands {
            let before = replica.state.sessions_bytes();
            replica.apply(Term(1), std::slice::from_ref(&command));
            prop_assert!(replica.state.sessions_bytes() <= before + session_bytes_added_max(&command));
        }
    }
}
