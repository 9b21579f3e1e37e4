//! The sessions of one shard of the model: what is remembered of writes, and what is forgotten when there is too much of it.
//!
//! Who goes is looked for among all, each time: slower than the core's orders of sessions, and harder to get wrong.

use std::collections::{BTreeMap, BTreeSet};

use kv_core::{
    codec::{put_u8, put_u32, put_u64},
    command::{CommandOutcome, Previous, SessionStamp},
    state::{codec::session_key, digest::RecordSum, sessions::SessionBounds},
    types::{LogIndex, Revision, Sequence, SessionId},
};

/// A session's record: its key, then index, position, floor and the count of outcomes.
const SESSION_BYTES: usize = (1 + 8) + 8 + 4 + 8 + 4;
/// An outcome in it: sequence, tag, revision.
const OUTCOME_BYTES: usize = 8 + 1 + 8;
/// A previous entry in it, beside the value: revision and length.
const ENTRY_BYTES: usize = 8 + 4;

/// Where a command stands: the index of its entry, and its position there.
type At = (LogIndex, u32);

/// What a session says to a write.
pub(super) enum Answered {
    /// It is not run: this came of it, or comes.
    Already(CommandOutcome),
    /// It is to be run.
    NotYet,
}

#[derive(Debug)]
struct Session {
    used: At,
    floor: Sequence,
    outcomes: BTreeMap<Sequence, CommandOutcome>,
    /// Its record as the sum has it, empty if it has none.
    counted: Vec<u8>,
}

/// All sessions of a shard.
#[derive(Debug)]
pub(super) struct Sessions {
    bounds: SessionBounds,
    sessions: BTreeMap<SessionId, Session>,
    bytes: usize,
    changed: BTreeSet<SessionId>,
    /// Records of sessions that are gone, as the sum has them.
    gone: Vec<(SessionId, Vec<u8>)>,
}

impl Sessions {
    pub(super) fn new(bounds: SessionBounds) -> Self {
        Self { bounds, sessions: BTreeMap::new(), bytes: 0, changed: BTreeSet::new(), gone: Vec::new() }
    }

    pub(super) fn count(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn open(&mut self, id: SessionId, used: At) {
        let session = Session { used, floor: Sequence(0), outcomes: BTreeMap::new(), counted: Vec::new() };
        self.sessions.insert(id, session);
        self.bytes += SESSION_BYTES;
        self.changed.insert(id);
        self.forget();
    }

    /// A write comes in a session.
    pub(super) fn ask(&mut self, stamp: SessionStamp, at: At) -> Answered {
        let Some(session) = self.sessions.get_mut(&stamp.session) else {
            return Answered::Already(CommandOutcome::SessionExpired);
        };
        session.used = at;
        self.changed.insert(stamp.session);
        let remembered = session.outcomes.get(&stamp.sequence).cloned();
        session.floor = session.floor.max(stamp.floor);
        let kept = session.outcomes.split_off(&session.floor);
        let finished = std::mem::replace(&mut session.outcomes, kept);
        self.bytes -= finished.values().map(bytes_of).sum::<usize>();
        if let Some(remembered) = remembered {
            return Answered::Already(remembered);
        }
        if stamp.sequence < session.floor {
            return Answered::Already(CommandOutcome::Finished);
        }
        if session.outcomes.len() >= self.bounds.open_max {
            return Answered::Already(CommandOutcome::SessionFull);
        }
        Answered::NotYet
    }

    /// A write of a session was run.
    pub(super) fn remember(&mut self, stamp: SessionStamp, outcome: &CommandOutcome) {
        let mut outcome = outcome.clone();
        if bytes_of(&outcome) > self.bounds.outcome_bytes_max {
            drop_entry(&mut outcome);
        }
        self.bytes += bytes_of(&outcome);
        let session = self.sessions.get_mut(&stamp.session).expect("a write runs in a session that is known");
        session.outcomes.insert(stamp.sequence, outcome);
        self.forget();
    }

    /// Keeps the bounds: past the count whole sessions go; past the bytes first the previous entries of a session, then it.
    fn forget(&mut self) {
        while self.sessions.len() > self.bounds.sessions_max {
            self.evict();
        }
        while self.bytes > self.bounds.bytes_max {
            let holds_entries = |session: &Session| session.outcomes.values().any(|outcome| entry_bytes(outcome) > 0);
            let with_entries = self.sessions.iter_mut().filter(|(_, session)| holds_entries(session));
            let Some((id, session)) = with_entries.min_by_key(|(_, session)| session.used) else {
                self.evict();
                continue;
            };
            self.bytes -= session.outcomes.values().map(entry_bytes).sum::<usize>();
            session.outcomes.values_mut().for_each(drop_entry);
            self.changed.insert(*id);
        }
    }

    /// The one that was not used for the longest time goes.
    fn evict(&mut self) {
        let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used);
        let id = *oldest.expect("what is over its bound is not empty").0;
        let session = self.sessions.remove(&id).expect("it was just found");
        self.bytes -= SESSION_BYTES + session.outcomes.values().map(bytes_of).sum::<usize>();
        self.changed.remove(&id);
        self.gone.push((id, session.counted));
    }

    /// Brings the sum up to what changed since the last call.
    pub(super) fn count_changes(&mut self, sum: &mut RecordSum) {
        for (id, counted) in self.gone.drain(..).filter(|(_, counted)| !counted.is_empty()) {
            sum.subtract(&session_key(id), &counted);
        }
        for id in std::mem::take(&mut self.changed) {
            let session = self.sessions.get_mut(&id).expect("a session that goes is no longer among the changed");
            let record = record_of(session);
            sum.add(&session_key(id), &record);
            let before = std::mem::replace(&mut session.counted, record);
            if !before.is_empty() {
                sum.subtract(&session_key(id), &before);
            }
        }
    }
}

/// The bytes that a remembered outcome takes in its session's record.
fn bytes_of(outcome: &CommandOutcome) -> usize {
    OUTCOME_BYTES + entry_bytes(outcome)
}

fn entry_bytes(outcome: &CommandOutcome) -> usize {
    match outcome {
        CommandOutcome::Written { previous: Previous::Entry(entry), .. } => ENTRY_BYTES + entry.value.as_bytes().len(),
        _ => 0,
    }
}

fn drop_entry(outcome: &mut CommandOutcome) {
    if let CommandOutcome::Written { previous: previous @ Previous::Entry(_), .. } = outcome {
        *previous = Previous::Unavailable;
    }
}

/// A session as a checkpoint holds it.
fn record_of(session: &Session) -> Vec<u8> {
    let mut out = Vec::new();
    put_u64(&mut out, session.used.0.0);
    put_u32(&mut out, session.used.1);
    put_u64(&mut out, session.floor.0);
    put_u32(&mut out, u32::try_from(session.outcomes.len()).expect("at most 1,024 are open"));
    for (sequence, outcome) in &session.outcomes {
        put_u64(&mut out, sequence.0);
        let (tag, revision) = match outcome {
            CommandOutcome::Written { revision, previous: Previous::NotAsked } => (1, *revision),
            CommandOutcome::Written { revision, previous: Previous::Absent } => (2, *revision),
            CommandOutcome::Written { revision, previous: Previous::Entry(_) } => (3, *revision),
            CommandOutcome::Written { revision, previous: Previous::Unavailable } => (4, *revision),
            CommandOutcome::Conflict { current } => (5, *current),
            // Nothing else is remembered.
            _ => (0, Revision(0)),
        };
        put_u8(&mut out, tag);
        put_u64(&mut out, revision.0);
        if let CommandOutcome::Written { previous: Previous::Entry(entry), .. } = outcome {
            let value = entry.value.as_bytes();
            put_u64(&mut out, entry.revision.0);
            put_u32(&mut out, u32::try_from(value.len()).expect("a remembered value has at most 4 KiB"));
            out.extend_from_slice(value);
        }
    }
    out
}
