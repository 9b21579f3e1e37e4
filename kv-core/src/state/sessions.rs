//! Sessions: what makes a write that is sent again run once.
//!
//! A session belongs to one shard and is opened by a command of its log. It remembers what came of each write that its
//! client may still send again, failed conditions included. All of it is replicated state: sizes are encoded bytes and ages
//! are positions in the log, so that every replica forgets the same at the same index, and no clock is involved.
//!
//! Bounds, per shard: [`SESSIONS_MAX`] sessions and [`SESSION_BYTES_MAX`] bytes. Past the bytes, the entries that outcomes
//! name as previous are dropped first, from the least recently used session on; then (and past the count at once) whole
//! sessions, the least recently used first. A client of a dropped session is told `SessionExpired`: never a silent second
//! run.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    codec::CodecError,
    command::{Command, CommandOutcome, Previous, SessionStamp, Write},
    sequences::SequenceMap,
    state::{
        codec::{OUTCOME_BYTES, OUTCOME_ENTRY_BYTES, SESSION_BYTES, decode_session, encode_session, session_key},
        record::RecordKey,
    },
    types::{LogIndex, Revision, Sequence, SessionId},
};

/// Most writes that a session may have open; one more is refused as `SessionFull`.
pub const SESSION_OPEN_MAX: usize = 1_024;
/// Most sessions of a shard; past it the least recently used go.
pub const SESSIONS_MAX: usize = 65_536;
/// Most encoded bytes of all sessions of a shard; past it previous entries go, then sessions.
pub const SESSION_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most encoded bytes of one outcome; of a larger one the previous entry is not remembered.
pub const OUTCOME_BYTES_MAX: usize = 4 * 1024;

/// How many sessions a shard remembers, and how much of them. They decide what is forgotten, so all replicas of a shard must
/// have the same: nothing that a person could set differently on one node may set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionBounds {
    /// Most sessions.
    pub sessions_max: usize,
    /// Most encoded bytes of all of them.
    pub bytes_max: usize,
    /// Most writes that one may have open.
    pub open_max: usize,
    /// Most encoded bytes of one outcome; at most [`OUTCOME_BYTES_MAX`].
    pub outcome_bytes_max: usize,
}

impl Default for SessionBounds {
    fn default() -> Self {
        Self {
            sessions_max: SESSIONS_MAX,
            bytes_max: SESSION_BYTES_MAX,
            open_max: SESSION_OPEN_MAX,
            outcome_bytes_max: OUTCOME_BYTES_MAX,
        }
    }
}

/// The most bytes that a command may add to a shard's sessions.
#[must_use]
pub fn session_bytes_added_max(command: &Command) -> usize {
    match command {
        Command::OpenSession => SESSION_BYTES,
        Command::Write(Write { session: Some(_), return_previous: false, .. }) => OUTCOME_BYTES,
        Command::Write(Write { session: Some(_), return_previous: true, .. }) => OUTCOME_BYTES_MAX,
        Command::Write(Write { session: None, .. }) | Command::DescribeNode(_) | Command::Mark => 0,
    }
}

/// When a session was last used: the index of the entry, and the command's position in it.
pub type LastApplied = (LogIndex, u32);

/// What a session remembers of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// It was done.
    Written {
        /// The revision it got; 0 if it changed nothing.
        revision: Revision,
        /// What the key held before.
        previous: Previous,
    },
    /// Its condition did not hold.
    Conflict {
        /// The key's revision then.
        current: Revision,
    },
}

impl Remembered {
    fn bytes(&self) -> usize {
        match self {
            Self::Written { previous: Previous::Entry(entry), .. } => {
                OUTCOME_BYTES + OUTCOME_ENTRY_BYTES + entry.value.as_bytes().len()
            }
            _ => OUTCOME_BYTES,
        }
    }

    fn holds_entry(&self) -> bool {
        matches!(self, Self::Written { previous: Previous::Entry(_), .. })
    }

    fn drop_entry(&mut self) {
        if let Self::Written { previous: previous @ Previous::Entry(_), .. } = self {
            *previous = Previous::Unavailable;
        }
    }
}

impl From<Remembered> for CommandOutcome {
    fn from(remembered: Remembered) -> Self {
        match remembered {
            Remembered::Written { revision, previous } => Self::Written { revision, previous },
            Remembered::Conflict { current } => Self::Conflict { current },
        }
    }
}

/// One session: the outcomes of its writes from the floor on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    last_applied: LastApplied,
    floor: Sequence,
    outcomes: SequenceMap<Remembered>,
    bytes: usize,
    entries: usize,
}

impl Session {
    pub(super) fn restore(last_applied: LastApplied, floor: Sequence, outcomes: SequenceMap<Remembered>) -> Self {
        let bytes = SESSION_BYTES + outcomes.iter().map(|(_, outcome)| outcome.bytes()).sum::<usize>();
        let entries = outcomes.iter().filter(|(_, outcome)| outcome.holds_entry()).count();
        Self { last_applied, floor, outcomes, bytes, entries }
    }

    /// When it was last used.
    #[must_use]
    pub fn last_applied(&self) -> LastApplied {
        self.last_applied
    }

    /// Outcomes below it are forgotten, and writes below it refused as finished.
    #[must_use]
    pub fn floor(&self) -> Sequence {
        self.floor
    }

    /// How many writes are open: applied and not yet below the floor.
    #[must_use]
    pub fn open(&self) -> usize {
        self.outcomes.len()
    }

    /// Whether a write's outcome is remembered.
    #[must_use]
    pub fn has_applied(&self, sequence: Sequence) -> bool {
        self.outcomes.contains(sequence)
    }

    /// The sequences that are applied and at or above the floor, ascending, with what came of them.
    pub fn outcomes(&self) -> impl Iterator<Item = (Sequence, &Remembered)> {
        self.outcomes.iter()
    }

    /// Encoded size of its record, key included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn raise_floor(&mut self, floor: Sequence) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        while let Some(outcome) = self.outcomes.pop_below(floor) {
            self.bytes -= outcome.bytes();
            self.entries -= usize::from(outcome.holds_entry());
        }
    }

    fn remember(&mut self, sequence: Sequence, mut outcome: Remembered, outcome_bytes_max: usize) {
        if outcome.bytes() > outcome_bytes_max {
            point!(OutcomeCut);
            outcome.drop_entry();
        }
        self.bytes += outcome.bytes();
        self.entries += usize::from(outcome.holds_entry());
        if let Some(old) = self.outcomes.insert(sequence, outcome) {
            self.bytes -= old.bytes();
            self.entries -= usize::from(old.holds_entry());
        }
    }

    fn drop_entries(&mut self) {
        self.outcomes.values_mut().for_each(Remembered::drop_entry);
        self.bytes = SESSION_BYTES + self.outcomes.len() * OUTCOME_BYTES;
        self.entries = 0;
    }
}

/// All sessions of a shard.
///
/// The two orders hold each of their sessions once, under the time of a use that may have been followed by others: only who asks
/// for the first one brings the rows in front up to date. A use is far more frequent than that question, and does not touch them.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    sessions: BTreeMap<SessionId, Kept>,
    /// All sessions.
    by_use: BTreeMap<LastApplied, SessionId>,
    /// Those that remember previous entries, and some that did.
    with_entries: BTreeMap<LastApplied, SessionId>,
    bytes: usize,
    bounds: SessionBounds,
    changed: BTreeSet<SessionId>,
    gone: BTreeSet<SessionId>,
    #[cfg(kv_mutants)]
    used: BTreeMap<SessionId, u64>,
}

/// A session, and where it stands.
#[derive(Clone, Debug)]
struct Kept {
    session: Session,
    /// Its row in the order of use.
    by_use: LastApplied,
    /// Its row among those with entries.
    with_entries: Option<LastApplied>,
    /// Whether it is among the changed.
    is_changed: bool,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::with_bounds(SessionBounds::default())
    }
}

impl Sessions {
    /// Smaller bounds are for tests.
    pub(super) fn with_bounds(bounds: SessionBounds) -> Self {
        Self {
            sessions: BTreeMap::new(),
            by_use: BTreeMap::new(),
            with_entries: BTreeMap::new(),
            bytes: 0,
            bounds,
            changed: BTreeSet::new(),
            gone: BTreeSet::new(),
            #[cfg(kv_mutants)]
            used: BTreeMap::new(),
        }
    }

    /// Takes a session from a checkpoint.
    pub(super) fn restore(&mut self, id: SessionId, encoded: Bytes) -> Result<(), CodecError> {
        let mut session = decode_session(encoded)?;
        if mutant!("B27") {
            session = Session::restore(session.last_applied, session.floor, SequenceMap::default());
        }
        if self.sessions.contains_key(&id) || self.by_use.contains_key(&session.last_applied) {
            return Err(CodecError("sessions that differ"));
        }
        self.put_in(id, session, false);
        Ok(())
    }

    pub(super) fn bounds(&self) -> SessionBounds {
        self.bounds
    }

    pub(super) fn set_bounds(&mut self, bounds: SessionBounds) {
        self.bounds = bounds;
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id).map(|kept| &kept.session)
    }

    pub(super) fn count(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn open(&mut self, id: SessionId, at: LastApplied) {
        self.put_in(id, Session::restore(at, Sequence(0), SequenceMap::default()), true);
        self.keep_bounds();
    }

    /// What a write that comes in a session is answered without being run; `None` if it is to run.
    pub(super) fn answer(&mut self, stamp: SessionStamp, at: LastApplied) -> Option<CommandOutcome> {
        #[cfg(kv_mutants)]
        if mutant!("B28") && self.has_expired(stamp.session) {
            self.forget(stamp.session);
        }
        let Some(kept) = self.sessions.get_mut(&stamp.session) else {
            point!(SessionUnknown);
            return Some(CommandOutcome::SessionExpired);
        };
        let session = &mut kept.session;
        self.bytes -= session.bytes;
        session.last_applied = at;
        #[cfg(kv_mutants)]
        if mutant!("B25") {
            // The order in which sessions are forgotten is drawn by each replica for itself.
            session.last_applied.1 = crate::mutants::draw();
        }
        let remembered = session.outcomes.get(stamp.sequence).cloned().filter(|_| !mutant!("B26"));
        session.raise_floor(stamp.floor);
        let answer = if let Some(remembered) = remembered {
            point!(SessionReplayed);
            point!(SessionReplayedConflict if matches!(remembered, Remembered::Conflict { .. }));
            Some(remembered.into())
        } else if stamp.sequence < session.floor {
            point!(SessionFinished);
            Some(CommandOutcome::Finished)
        } else if session.open() >= self.bounds.open_max {
            point!(SessionFull);
            Some(CommandOutcome::SessionFull)
        } else {
            None
        };
        self.bytes += session.bytes;
        if !std::mem::replace(&mut kept.is_changed, true) {
            self.changed.insert(stamp.session);
        }
        answer
    }

    /// What each replica's own clock says decides which sessions it still knows.
    #[cfg(kv_mutants)]
    fn has_expired(&mut self, id: SessionId) -> bool {
        let now = crate::mutants::clock_micros();
        let used = self.used.insert(id, now).unwrap_or(now);
        now.saturating_sub(used) > 2_000_000
    }

    /// Remembers what came of a write that was run.
    pub(super) fn remember(&mut self, stamp: SessionStamp, outcome: Remembered) {
        let kept = self.sessions.get_mut(&stamp.session).expect("a write runs only in a session that is known");
        self.bytes -= kept.session.bytes;
        kept.session.remember(stamp.sequence, outcome, self.bounds.outcome_bytes_max);
        self.bytes += kept.session.bytes;
        if kept.session.entries > 0 && kept.with_entries.is_none() {
            kept.with_entries = Some(kept.session.last_applied);
            self.with_entries.insert(kept.session.last_applied, stamp.session);
        }
        self.keep_bounds();
    }

    /// The records of all sessions that changed since the last call: encoded, or `None` for those that are gone.
    pub(super) fn take_changes(&mut self) -> Vec<(RecordKey, Option<Bytes>)> {
        let mut records: Vec<_> =
            std::mem::take(&mut self.gone).into_iter().map(|id| (session_key(id), None)).collect();
        for id in std::mem::take(&mut self.changed) {
            let kept = self.sessions.get_mut(&id).expect("a session that goes is no longer among the changed");
            kept.is_changed = false;
            records.push((session_key(id), Some(encode_session(&kept.session))));
        }
        records
    }

    fn keep_bounds(&mut self) {
        while self.sessions.len() > self.bounds.sessions_max {
            self.evict();
        }
        while self.bytes > self.bounds.bytes_max {
            let Some(id) = self.least_used_with_entries() else {
                self.evict();
                continue;
            };
            point!(SessionShrunk);
            let kept = self.sessions.get_mut(&id).expect("the orders name only sessions that are known");
            self.bytes -= kept.session.bytes;
            kept.session.drop_entries();
            self.bytes += kept.session.bytes;
            if !std::mem::replace(&mut kept.is_changed, true) {
                self.changed.insert(id);
            }
        }
    }

    fn evict(&mut self) {
        point!(SessionEvicted);
        let id = if mutant!("S2") { self.most_used() } else { self.least_used() };
        self.forget(id);
    }

    /// The other end of the order, for who mixes them up.
    fn most_used(&self) -> SessionId {
        let most = self.sessions.iter().max_by_key(|(_, kept)| kept.session.last_applied);
        *most.expect("what is over its bound is not empty").0
    }

    /// The least recently used session. A row's time is that of the last use or an earlier one, so that the first row that is
    /// up to date is before all others, whatever these should say.
    fn least_used(&mut self) -> SessionId {
        loop {
            let (at, id) = self.by_use.pop_first().expect("what is over its bound is not empty");
            let kept = self.sessions.get_mut(&id).expect("the orders name only sessions that are known");
            kept.by_use = kept.session.last_applied;
            self.by_use.insert(kept.by_use, id);
            if kept.by_use == at {
                return id;
            }
        }
    }

    /// The least recently used of those that remember previous entries.
    fn least_used_with_entries(&mut self) -> Option<SessionId> {
        loop {
            let (at, id) = self.with_entries.pop_first()?;
            let kept = self.sessions.get_mut(&id).expect("the orders name only sessions that are known");
            kept.with_entries = (kept.session.entries > 0).then_some(kept.session.last_applied);
            let Some(now_at) = kept.with_entries else { continue };
            self.with_entries.insert(now_at, id);
            if now_at == at {
                return Some(id);
            }
        }
    }

    fn forget(&mut self, id: SessionId) {
        let Some(kept) = self.sessions.remove(&id) else { return };
        self.by_use.remove(&kept.by_use);
        if let Some(at) = kept.with_entries {
            self.with_entries.remove(&at);
        }
        self.bytes -= kept.session.bytes;
        self.changed.remove(&id);
        self.gone.insert(id);
    }

    fn put_in(&mut self, id: SessionId, session: Session, is_changed: bool) {
        let at = session.last_applied;
        self.by_use.insert(at, id);
        let with_entries = (session.entries > 0).then_some(at);
        if with_entries.is_some() {
            self.with_entries.insert(at, id);
        }
        self.bytes += session.bytes;
        if is_changed {
            self.changed.insert(id);
        }
        self.sessions.insert(id, Kept { session, by_use: at, with_entries, is_changed });
    }
}
