//! What the world tells the checkers: facts about replicas, taken from what nodes put out, and the clients' history.
//!
//! A node is not believed about what it did: what its log holds is taken from the batches that it hands to its disk, what it
//! promised from the messages that leave it, what it applied from its own report, which the checkers compare with all others.

use std::collections::BTreeMap;

use kv_core::{
    checkpoint::job::CheckpointEvent,
    command::{Action, Command, decode_batch, encoded_bytes_about},
    io::{Answer, Consistency, Notice, Operation, Output},
    log::record::{EntryKind, HardState, LogBatch, LogEntry, Record, Recovered},
    message::{PeerMessage, RaftMessage, RaftMessageKind},
    node::{self, AppliedEntry, ShardStatus},
    types::{Digest, LogIndex, NodeId, ReplicaId, RequestId, ShardId, Term},
};

use super::{plan::Plan, world::World};
use crate::{
    check::{
        Checkers,
        view::{
            AppliedCommand, AppliedWrite, EntryMark, Fact, Place, ReplicaView, Role, SyncedRecord, Violation,
            hash_entry,
        },
    },
    history::{History, Moment, Name, Seen},
};

/// The checkers with what they have to be told.
pub struct Judge {
    checkers: Checkers,
    /// What clients saw.
    pub history: History,
    /// From this event on clients read every key a last time.
    pub final_reads_from: u64,
    now: Moment,
    /// What is known of each replica, by node and shard.
    replicas: Vec<Known>,
    shards: usize,
    /// The digest of each state of which one was told.
    digests: BTreeMap<(ShardId, LogIndex), (Digest, NodeId)>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    view: ReplicaView,
    appended: LogIndex,
    committed: LogIndex,
    promised: Term,
}

impl Judge {
    /// A judge before anything happened.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let shards = plan.shards as usize + 1;
        // By a clock that is as slow as any of the plan's.
        let undecided_micros_max =
            (plan.settings.async_micros_max * 1_000_000).div_ceil(1_000_000 - plan.slow_ppm_max()) + 1;
        Self {
            checkers: Checkers::new(undecided_micros_max),
            final_reads_from: u64::MAX,
            history: History::default(),
            now: Moment::default(),
            replicas: vec![Known::default(); plan.nodes as usize * shards],
            shards,
            digests: BTreeMap::new(),
        }
    }

    /// Goes on to the next event.
    pub fn advance(&mut self, micros: u64) {
        self.now.event += 1;
        self.now.micros = micros;
    }

    /// This moment.
    #[must_use]
    pub fn moment(&self) -> Moment {
        self.now
    }

    /// A moment of its own for a call or an answer, so that no two are at once.
    pub fn own_moment(&mut self) -> Moment {
        self.now.event += 1;
        self.now
    }

    /// The digest of each state of which one was told.
    #[must_use]
    pub fn digests(&self) -> BTreeMap<(ShardId, LogIndex), Digest> {
        self.digests.iter().map(|(place, (digest, _))| (*place, *digest)).collect()
    }

    fn known(&mut self, node: usize, shard: ShardId) -> &mut Known {
        &mut self.replicas[node * self.shards + shard.0 as usize]
    }

    fn place(&mut self, node: usize, shard: ShardId) -> Place {
        self.known(node, shard).view.place
    }

    /// Judges what can only be judged at the end.
    ///
    /// # Errors
    /// The first property that does not hold.
    pub fn finish(&self, shards: &BTreeMap<Name, ShardId>) -> Result<(), Violation> {
        let shard_of = |key: &Name| shards.get(key).copied().unwrap_or_default();
        self.checkers.finish(&self.history, self.final_reads_from, shard_of)
    }

    /// The right digest of a state, if one is known.
    #[must_use]
    pub fn digest_at(&self, shard: ShardId, index: LogIndex) -> Option<Digest> {
        self.digests.get(&(shard, index)).map(|(digest, _)| *digest)
    }

    /// A replica's state stands at this index from now on.
    pub(super) fn state_begins(&mut self, node: usize, shard: ShardId, index: LogIndex) -> Place {
        let known = self.known(node, shard);
        known.view.applied = index;
        known.view.place
    }

    fn tell(&mut self, fact: &Fact) -> Result<(), Violation> {
        self.checkers.check(self.now, fact)
    }
}

impl World {
    /// Tells what a turn of a node did: roles before messages, what was applied before the answers, its new looks last.
    pub(super) fn judge_turn(&mut self, node: usize, outputs: &[Output]) {
        let mut facts = std::mem::take(&mut self.facts);
        let mut statuses = std::mem::take(&mut self.statuses);
        let process = self.machines[node].process.as_ref().expect("it just took a turn");
        statuses.extend(process.node.changed_shards().iter().filter_map(|shard| process.node.shard_status(*shard)));
        self.roles(node, &statuses, &mut facts);
        for output in outputs {
            match output {
                // Alone, a node may lead before its vote is synced, lose both, and lead in the same term again: its log counts
                // from the sync on, since nobody else has seen it before.
                Output::LogBatch(batch) if self.plan.nodes > 1 => {
                    for record in &batch.records {
                        self.recorded(node, record, &mut facts);
                    }
                }
                // A snapshot's message waits for its files, and may leave when its term is over; it promises nothing.
                Output::Send { message: PeerMessage::Raft { shard, message }, .. } => {
                    self.promised(node, *shard, message, &mut facts);
                }
                Output::Send { message: PeerMessage::SnapshotOffer { shard, manifest, .. }, .. } => {
                    let (place, voters) = (self.judge.place(node, *shard), self.plan.voters(*shard));
                    let (index, digest) = (manifest.index, manifest.digest);
                    facts.push(Fact::Offered { place, index, digest, voters });
                }
                Output::Notice(Notice::Diverged { shard, index, .. }) => {
                    self.counts.discarded += 1;
                    let (place, voters) = (self.judge.place(node, *shard), self.plan.voters(*shard));
                    facts.push(Fact::Discarded { place, index: *index, voters });
                }
                Output::Notice(Notice::Disputed { .. }) => self.counts.disputes += 1,
                Output::Notice(Notice::Verified { shard, index }) => {
                    let place = self.judge.state_begins(node, *shard, *index);
                    facts.push(Fact::StateBegins { place, index: *index });
                }
                _ => {}
            }
        }
        self.applied(node, &statuses, &mut facts);
        for output in outputs {
            if let Output::Notice(Notice::StateLost { shard, .. }) = output {
                self.judge.known(node, *shard).view.applied = LogIndex(0);
                facts.push(Fact::StateLost { place: self.judge.place(node, *shard) });
            }
            if let Output::Reply { request, result: Ok(answer) } = output {
                self.answered(node, *request, answer, &mut facts);
            }
        }
        self.looks(node, &statuses, &mut facts);
        self.tell(&mut facts);
        self.facts = facts;
        statuses.clear();
        self.statuses = statuses;
    }

    /// Tells one fact.
    pub(super) fn tell_one(&mut self, fact: &Fact) {
        if let Err(violation) = self.judge.tell(fact) {
            self.failure.get_or_insert(violation);
        }
    }

    fn tell(&mut self, facts: &mut Vec<Fact>) {
        for fact in facts.drain(..) {
            if let Err(violation) = self.judge.tell(&fact) {
                self.failure.get_or_insert(violation);
            }
        }
    }

    /// Tells that the node has synced a batch, and what is in it, if that was not told when it was handed over.
    pub(super) fn judge_synced(&mut self, node: usize, batch: &LogBatch) {
        let mut facts = std::mem::take(&mut self.facts);
        if self.plan.nodes == 1 {
            for record in &batch.records {
                self.recorded(node, record, &mut facts);
            }
        }
        let mut synced: BTreeMap<ShardId, Vec<SyncedRecord>> = BTreeMap::new();
        for record in &batch.records {
            synced.entry(record.shard()).or_default().extend(synced_records(record).into_iter().flatten());
        }
        for (shard, records) in synced {
            facts.push(Fact::Synced { place: self.judge.place(node, shard), records });
        }
        self.tell(&mut facts);
        self.facts = facts;
    }

    /// Tells what a start of a node found on its disk.
    pub(super) fn judge_start(&mut self, node: usize, recovered: &Recovered) {
        let mut facts = std::mem::take(&mut self.facts);
        let start = self.machines[node].start;
        for shard in (0..self.judge.shards as u64).map(ShardId) {
            let place = self.judge.place(node, shard);
            if place != Place::default() && !recovered.shards.contains_key(&shard) {
                *self.judge.known(node, shard) = Known::default();
                facts.push(Fact::NotFound { place });
            }
        }
        for (shard, found) in &recovered.shards {
            let last_index = found.entries.last().map_or(found.boundary.index, |entry| entry.index);
            let place = Place { node: NodeId(node as u64 + 1), shard: *shard, replica: found.replica };
            if self.plan.nodes == 1 {
                // A write that the crash cut short may be there as a whole; nobody was told of it.
                let told = self.judge.known(node, *shard).appended;
                let untold = found.entries.iter().filter(|entry| entry.index > told);
                facts.extend(untold.map(|entry| Fact::Appended { place, entry: mark(entry) }));
            }
            let known = self.judge.known(node, *shard);
            *known = Known { appended: last_index, committed: found.hard_state.commit, ..Known::default() };
            known.view.place = place;
            facts.push(Fact::Started {
                place,
                start,
                term: found.hard_state.term,
                vote: voted(found.hard_state.vote),
                commit: found.hard_state.commit,
                boundary: (found.boundary.index, found.boundary.term),
                entries: found.entries.iter().map(mark).collect(),
                voters: found.boundary.configuration.voters.len(),
            });
        }
        self.tell(&mut facts);
        self.facts = facts;
    }

    /// Tells what the checkpoint thread reports: a state has one digest, whoever computes it.
    pub(super) fn judge_checkpoint(&mut self, node: usize, event: &CheckpointEvent) {
        let (shard, footer) = match event {
            CheckpointEvent::Durable { shard, footer, .. } => {
                self.counts.checkpoints += 1;
                (*shard, footer)
            }
            CheckpointEvent::Loaded { shard, footer, .. } => {
                self.counts.loads += 1;
                (*shard, footer)
            }
            CheckpointEvent::LoadFailed { shard, reason, .. } => {
                // Crashes, full disks and installs cost no replica its state: only damage does.
                if !self.injector.atlas.has_damaged_files(node, *shard) {
                    let what = format!("node {} finds none of shard {shard}: {reason}", node + 1);
                    self.fail("a checkpoint that nothing damaged can be loaded", what);
                }
                return;
            }
            _ => return,
        };
        self.trace.note([self.now, footer.header.index.0, footer.digest.0 as u64]);
        self.trace.tell(self.now, || {
            let what = if matches!(event, CheckpointEvent::Durable { .. }) { "checkpointed" } else { "loaded" };
            format!("n{} {what} shard {shard} at {} with digest {}", node + 1, footer.header.index, footer.digest)
        });
        let loaded = matches!(event, CheckpointEvent::Loaded { .. });
        let place = self.judge.place(node, shard);
        if let CheckpointEvent::Loaded { checkpoints, .. } = event {
            for (index, digest) in checkpoints {
                self.tell_one(&Fact::Checkpointed { place, index: *index, digest: *digest });
            }
        } else {
            self.tell_one(&Fact::Checkpointed { place, index: footer.header.index, digest: footer.digest });
        }
        self.is_right_again(node, shard, footer.header.index, footer.digest, loaded);
        self.judge_digest(node, shard, footer.header.index, footer.digest);
    }

    /// Compares the digest of a state with what others told of the same state.
    pub(super) fn judge_digest(&mut self, node: usize, shard: ShardId, index: LogIndex, digest: Digest) {
        if self.divergence.is_altered(node, shard) {
            return;
        }
        let here = NodeId(node as u64 + 1);
        let (known, by) = *self.judge.digests.entry((shard, index)).or_insert((digest, here));
        if known != digest {
            let what = format!(
                "shard {shard} at index {index} has the digest {digest} on node {here}, but {known} on node {by}"
            );
            self.fail("replicas that applied the same entries hold the same state", what);
        }
    }

    /// Compares the digests of all states that a turn has touched.
    pub(super) fn judge_digests(&mut self, node: usize) {
        let process = self.machines[node].process.as_ref().expect("it just took a turn");
        let shards: Vec<_> = process.node.changed_shards().iter().copied().collect();
        for shard in shards {
            if let Some((index, digest)) = self.machines[node].state_digest(shard) {
                self.judge_digest(node, shard, index, digest);
            }
        }
    }

    fn roles(&mut self, node: usize, statuses: &[ShardStatus], facts: &mut Vec<Fact>) {
        let process = self.machines[node].process.as_ref().expect("it just took a turn");
        for status in statuses {
            let shard = status.shard;
            let known = self.judge.known(node, shard);
            let led = known.view.role == Role::Leader && known.view.term == status.term;
            known.view.place = Place { node: NodeId(node as u64 + 1), shard, replica: status.replica };
            if status.role == node::Role::Leader && !led {
                self.counts.elections += 1;
                let mut last_index = status.last_index;
                while process.node.entry(shard, last_index).is_some_and(|entry| entry.term == status.term) {
                    last_index.0 -= 1;
                }
                facts.push(Fact::BecameLeader { place: known.view.place, term: status.term, last_index });
            }
        }
    }

    fn recorded(&mut self, node: usize, record: &Record, facts: &mut Vec<Fact>) {
        let known = self.judge.known(node, record.shard());
        match record {
            Record::Create { shard, replica, boundary, hard_state } => {
                let place = Place { node: NodeId(node as u64 + 1), shard: *shard, replica: *replica };
                known.view.place = place;
                known.appended = boundary.index;
                facts.push(Fact::Started {
                    place,
                    start: self.machines[node].start,
                    term: hard_state.term,
                    vote: voted(hard_state.vote),
                    commit: hard_state.commit,
                    boundary: (boundary.index, boundary.term),
                    entries: Vec::new(),
                    voters: boundary.configuration.voters.len(),
                });
            }
            Record::Entry { entry, .. } => {
                known.appended = entry.index;
                facts.push(Fact::Appended { place: known.view.place, entry: mark(entry) });
            }
            Record::Install { install, .. } => {
                known.appended = install.index;
                known.committed = known.committed.max(install.index);
                let place = known.view.place;
                let (index, term, digest) = (install.index, install.term, install.digest);
                facts.push(Fact::Installed { place, index, term, digest });
                self.counts.installs += 1;
                let shard = place.shard;
                self.trace.mark(self.now, Some(node), || format!("s{shard} installed at {index}"));
                self.judge_digest(node, place.shard, index, digest);
            }
            Record::HardState { .. } | Record::Boundary { .. } | Record::Tombstone { .. } => {}
        }
    }

    fn promised(&mut self, node: usize, shard: ShardId, message: &RaftMessage, facts: &mut Vec<Fact>) {
        use RaftMessageKind as K;
        self.trace.note([message.kind as u64, message.term.0, message.index.0, message.commit.0]);
        let known = self.judge.known(node, shard);
        let vote = match message.kind {
            // The answer to a heartbeat promises nothing that a leader counts; it may leave before its term is synced.
            K::RequestPreVote | K::RequestPreVoteResponse | K::HeartbeatResponse => return,
            K::RequestVote => Some(message.from),
            K::RequestVoteResponse if !message.reject => Some(message.to),
            _ => None,
        };
        let accepted = (message.kind == K::AppendResponse && !message.reject).then_some(message.index);
        if vote.is_none() && accepted.is_none() && known.promised == message.term {
            return;
        }
        known.promised = message.term;
        let place = Place { node: NodeId(node as u64 + 1), shard, replica: message.from };
        facts.push(Fact::Promised { place, term: message.term, vote, accepted });
    }

    fn answered(&mut self, node: usize, request: RequestId, answer: &Answer, facts: &mut Vec<Fact>) {
        let process = self.machines[node].process.as_ref().expect("it just took a turn");
        let Some((_, shard, operation)) = process.serving.get(&request) else { return };
        if self.divergence.is_altered(node, *shard) {
            return;
        }
        let place = self.judge.place(node, *shard);
        match (answer, operation) {
            (Answer::Got { entry, revision, age_micros }, Operation::Get { key, consistency }) => {
                let entry = entry
                    .as_ref()
                    .map(|entry| Seen { revision: entry.revision, value: Name::of(entry.value.as_bytes()) });
                facts.push(Fact::AnsweredRead { place, key: Name::of(key.as_bytes()), entry, at: *revision });
                if *consistency != Consistency::Linearizable {
                    let asked_micros_max = match consistency {
                        Consistency::Bounded { age_micros_max } => Some(*age_micros_max),
                        _ => None,
                    };
                    let (told_micros, at) = (*age_micros, *revision);
                    let current_at_micros = age_micros.map(|age| self.machines[node].micros_before_turn(age));
                    facts.push(Fact::AnsweredOldRead { place, at, asked_micros_max, told_micros, current_at_micros });
                }
            }
            (Answer::Written { revision, .. }, Operation::Write { .. }) => {
                facts.push(Fact::AcknowledgedWrite { place, revision: *revision });
            }
            (Answer::Accepted { token }, Operation::Write { write, .. }) => {
                let bytes = encoded_bytes_about(&Command::Write(write.clone())) as u64;
                let held_micros = self.now - self.machines[node].last_turn.0;
                facts.push(Fact::AcceptedAsync { place, token: *token, bytes, held_micros });
            }
            (Answer::Durable, Operation::WaitDurable { token }) => {
                facts.push(Fact::SaidDurable { place, token: *token, durable: true });
            }
            (Answer::Lost, Operation::WaitDurable { token }) => {
                facts.push(Fact::SaidDurable { place, token: *token, durable: false });
            }
            _ => {}
        }
    }

    fn applied(&mut self, node: usize, statuses: &[ShardStatus], facts: &mut Vec<Fact>) {
        let process = self.machines[node].process.as_mut().expect("it just took a turn");
        for entry in process.node.take_applied() {
            self.counts.applied += 1;
            self.trace.note([entry.shard.0, entry.index.0, entry.term.0]);
            let place = self.judge.place(node, entry.shard);
            let status = statuses.iter().find(|status| status.shard == entry.shard);
            let term = status.map_or(entry.term, |status| status.term);
            self.commit(node, entry.shard, entry.index, term, facts);
            if self.divergence.is_altered(node, entry.shard) {
                continue;
            }
            match applied_commands(&entry) {
                Ok(commands) => facts.push(Fact::Applied {
                    place,
                    entry: EntryMark {
                        index: entry.index,
                        term: entry.term,
                        hash: hash_entry(entry.kind as u8, &entry.data),
                    },
                    commands,
                    digest: None,
                }),
                Err(what) => self.fail("what is applied decodes", format!("{place}, index {}: {what}", entry.index)),
            }
        }
    }

    /// Tells that entries are committed, those only that the node has handed to its disk: the checkers know no others.
    fn commit(&mut self, node: usize, shard: ShardId, index: LogIndex, term: Term, facts: &mut Vec<Fact>) {
        let known = self.judge.known(node, shard);
        let index = index.min(known.appended);
        if index > known.committed {
            known.committed = index;
            facts.push(Fact::Committed { place: known.view.place, index, term });
        }
    }

    fn looks(&mut self, node: usize, statuses: &[ShardStatus], facts: &mut Vec<Fact>) {
        for status in statuses {
            let shard = status.shard;
            // Clients and other replicas each have so many; what the node asks of itself comes on top.
            let waiting_max = 2 * self.plan.settings.waiting_requests_max + node::OWN_COMMANDS_MAX;
            if status.waiting > waiting_max {
                let what = format!("{} requests wait for shard {shard} on node {}", status.waiting, node + 1);
                self.fail("queues stay within their bounds", what);
            }
            let mut view = super::machine::view(node, status);
            if !status.live {
                // While a state is loaded nothing is known of it.
                view.applied = self.judge.known(node, shard).view.applied;
            }
            // Beyond what it has on disk its log may hold what is about to be overwritten.
            self.commit(node, shard, view.commit.min(status.persisted), status.term, facts);
            let known = self.judge.known(node, shard);
            if known.view != view {
                if known.view.role != view.role {
                    let term = status.term;
                    let role = match view.role {
                        Role::Leader => "leads",
                        Role::Follower => "follows",
                        Role::Candidate => "campaigns",
                        Role::PreCandidate => "asks to campaign",
                    };
                    self.trace.mark(self.now, Some(node), || format!("s{shard} {role}, term {term}"));
                }
                known.view = view;
                facts.push(Fact::View(view));
            }
        }
    }
}

fn voted(vote: ReplicaId) -> Option<ReplicaId> {
    (vote != ReplicaId(0)).then_some(vote)
}

/// What a record puts on the disk that others may count on: two facts at most.
fn synced_records(record: &Record) -> [Option<SyncedRecord>; 2] {
    let hard = |state: &HardState| SyncedRecord::HardState { term: state.term, vote: voted(state.vote) };
    match record {
        Record::Create { hard_state, boundary, .. } => {
            [Some(hard(hard_state)), Some(SyncedRecord::Stands { index: boundary.index })]
        }
        Record::Entry { entry, .. } => [Some(SyncedRecord::Entry { index: entry.index, term: entry.term }), None],
        Record::HardState { hard_state, .. } => [Some(hard(hard_state)), None],
        Record::Install { install, .. } => [Some(SyncedRecord::Stands { index: install.index }), None],
        // What is given up was there; the log's last index stays.
        Record::Boundary { .. } | Record::Tombstone { .. } => [None, None],
    }
}

fn mark(entry: &LogEntry) -> EntryMark {
    EntryMark { index: entry.index, term: entry.term, hash: hash_entry(entry.kind as u8, &entry.data) }
}

fn applied_commands(entry: &AppliedEntry) -> Result<Vec<AppliedCommand>, String> {
    if entry.kind != EntryKind::Commands {
        return Ok(Vec::new());
    }
    let commands = decode_batch(&entry.data).map_err(|error| error.to_string())?;
    if commands.len() != entry.outcomes.len() {
        return Err(format!("{} commands have {} outcomes", commands.len(), entry.outcomes.len()));
    }
    let told = commands.iter().zip(&entry.outcomes).map(|(command, outcome)| {
        let Command::Write(write) = command else {
            return AppliedCommand { stamp: None, write: None, outcome: outcome.clone() };
        };
        let value = match &write.action {
            Action::Put(value) => Some(Name::of(value.as_bytes())),
            Action::Delete => None,
        };
        AppliedCommand {
            stamp: write.session.map(|stamp| (stamp.session, stamp.sequence)),
            write: Some(AppliedWrite { key: Name::of(write.key.as_bytes()), value }),
            outcome: outcome.clone(),
        }
    });
    Ok(told.collect())
}
