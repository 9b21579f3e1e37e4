//! What is told of a turn: roles, promises, what was applied and answered, and how replicas look after it.

use kv_core::{
    command::{Action, Command, decode_batch, encoded_bytes_about},
    io::{Answer, Consistency, Notice, Operation, Output},
    message::{PeerMessage, RaftMessage, RaftMessageKind},
    node::{self, AppliedEntry, ShardStatus},
    types::{LogIndex, NodeId, RequestId, ShardId, Term},
};

use super::World;
use crate::{
    check::view::{AppliedCommand, AppliedWrite, EntryMark, Fact, Place, Role, hash_entry},
    history::{Name, Seen},
    sim::{aftermath::Unheard, machine},
};

impl World {
    /// Tells what a turn of a node did: roles before messages, what was applied before the answers, its new looks last.
    pub(in crate::sim) fn judge_turn(&mut self, node: usize, outputs: &[Output]) {
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
            let commands = match decode_batch(&entry.data).map_err(|error| error.to_string()) {
                Ok(commands) if commands.len() == entry.outcomes.len() => commands,
                Ok(commands) => {
                    let what = format!("{} commands have {} outcomes", commands.len(), entry.outcomes.len());
                    return self.fail("what is applied decodes", format!("{place}, index {}: {what}", entry.index));
                }
                Err(what) => {
                    return self.fail("what is applied decodes", format!("{place}, index {}: {what}", entry.index));
                }
            };
            let told = applied_commands(&commands, &entry);
            let (shard, index, term) = (entry.shard, entry.index, entry.term);
            let decided = &mut self.judge.decided[shard.0 as usize];
            if index == decided.next() {
                *decided = index;
                facts.push(Fact::Decided { shard, index, term, commands });
            }
            let entry = EntryMark { index, term, hash: hash_entry(entry.kind as u8, &entry.data) };
            if self.divergence.is_altered(node, shard) {
                self.divergence.aftermath.keep(node, Unheard { place, entry, commands: told });
            } else {
                facts.push(Fact::Applied { place, entry, commands: told });
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
            let mut view = machine::view(node, status);
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

fn applied_commands(commands: &[Command], entry: &AppliedEntry) -> Vec<AppliedCommand> {
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
    told.collect()
}
