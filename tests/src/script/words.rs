//! The trace: what nodes do, in words short enough to be read.
//!
//! `4@2` is the entry at index 4 of term 2, and the token of the writes in it; `n1@2` is node 1 speaking in term 2. Numbers
//! that are only names (rounds of reads, streams, probes) are told as `r1`, `s1`, `p1`, in the order in which they
//! first appear.

use std::collections::BTreeMap;

use kv_core::{
    checkpoint::job::{CheckpointEvent, CheckpointJob},
    command::{Action, Command, Condition, Previous, Write, decode_batch},
    error::{Error, Outcome},
    io::{Answer, Notice},
    log::record::{EntryKind, LogBatch, LogEntry, Record},
    message::{KEEP_STREAM, LeadershipRound, PeerMessage, RaftMessage, RaftMessageKind},
    node::{AppliedEntry, ShardStatus},
    types::{NodeId, ReplicaId, RequestId, Revision, ShardId, Term, Token, Value},
};

/// Values longer than this are told by their size.
const VALUE_BYTES_SHOWN: usize = 12;

/// What is needed to tell what happens.
#[derive(Debug, Default)]
pub struct Words {
    /// The shard that is told of.
    pub shard: ShardId,
    /// On which node its replicas stand.
    pub replicas: BTreeMap<ReplicaId, NodeId>,
    /// Whether plain heartbeats are told of too.
    pub heartbeats: bool,
    /// Term and vote that each node has on its disk.
    votes: BTreeMap<NodeId, (Term, ReplicaId)>,
    rounds: Vec<LeadershipRound>,
    streams: Vec<u64>,
    probes: Vec<u64>,
}

impl Words {
    /// Tells of this shard, whose replicas stand so.
    #[must_use]
    pub fn new(shard: ShardId, replicas: BTreeMap<ReplicaId, NodeId>) -> Self {
        Self { shard, replicas, ..Self::default() }
    }

    /// A message; `None` if it is not told of.
    pub fn message(&mut self, from: NodeId, to: NodeId, message: &PeerMessage) -> Option<String> {
        let (term, what) = match message {
            PeerMessage::LeadershipAsk { round, leaderships } => {
                let claimed = leaderships.iter().find(|claimed| claimed.shard == self.shard)?;
                (format!("@{}", claimed.term), format!("do I lead? round {}", self.round(*round)))
            }
            PeerMessage::LeadershipAnswer { round, shards } => {
                shards.contains(&self.shard).then_some(())?;
                (String::new(), format!("you lead, round {}", self.round(*round)))
            }
            other if other.shard() != Some(self.shard) => return None,
            PeerMessage::Raft { message, .. } => (format!("@{}", message.term), self.raft(message)?),
            other => (String::new(), self.other(other)?),
        };
        Some(format!("n{from}{term} -> n{to} {what}"))
    }

    fn raft(&mut self, message: &RaftMessage) -> Option<String> {
        let index = message.index;
        let yes = if message.reject { "no" } else { "yes" };
        Some(match message.kind {
            RaftMessageKind::Append => {
                let entries = entries(&message.entries);
                let what = if entries.is_empty() { format!("nothing after {index}") } else { entries };
                format!("append {what}, commit {}", message.commit)
            }
            RaftMessageKind::AppendResponse if message.reject => {
                format!("refused: {index} is not here, try {}@{}", message.reject_hint, message.log_term)
            }
            RaftMessageKind::AppendResponse => format!("has {index}"),
            RaftMessageKind::RequestVote => format!("vote for me, my log ends {index}@{}", message.log_term),
            RaftMessageKind::RequestPreVote => format!("would you vote, my log ends {index}@{}", message.log_term),
            RaftMessageKind::RequestVoteResponse => format!("vote: {yes}"),
            RaftMessageKind::RequestPreVoteResponse => format!("would vote: {yes}"),
            RaftMessageKind::Snapshot => "snapshot".to_owned(),
            RaftMessageKind::TimeoutNow => "campaign now".to_owned(),
            RaftMessageKind::Heartbeat => self.heartbeats.then(|| "heartbeat".to_owned())?,
            RaftMessageKind::HeartbeatResponse => self.heartbeats.then(|| "heartbeat heard".to_owned())?,
        })
    }

    fn other(&mut self, message: &PeerMessage) -> Option<String> {
        Some(match message {
            PeerMessage::ReadProbe { probe, .. } => format!("which index is current? {}", self.probe(*probe)),
            PeerMessage::ReadProbeAnswer { probe, index: Some(index), .. } => {
                format!("{}: {index}", self.probe(*probe))
            }
            PeerMessage::ReadProbeAnswer { probe, index: None, .. } => format!("{}: don't know", self.probe(*probe)),
            PeerMessage::StateAsk { at_least, at_most, .. } => {
                format!("give me a state of {at_least} to {at_most}")
            }
            PeerMessage::SnapshotOffer { stream, manifest, message, .. } => {
                let purpose = if message.is_some() { "snapshot" } else { "state" };
                let (stream, files) = (self.stream(*stream), manifest.files.len());
                format!("{purpose} {}@{} in {files} files, stream {stream}", manifest.index, manifest.term)
            }
            PeerMessage::SnapshotWant { stream, file, .. } if *file == KEEP_STREAM => {
                format!("{}: wait", self.stream(*stream))
            }
            PeerMessage::SnapshotWant { stream, file, offset, .. } => {
                format!("{}: want file {file} from {offset}", self.stream(*stream))
            }
            PeerMessage::SnapshotChunk { stream, file, bytes, .. } if bytes.is_empty() => {
                format!("{}: file {file} is gone", self.stream(*stream))
            }
            PeerMessage::SnapshotChunk { stream, file, .. } => {
                format!("{}: piece of file {file}", self.stream(*stream))
            }
            PeerMessage::Marks { report, .. } => {
                let held: Vec<_> = report.checkpoints.iter().map(|mark| mark.index.to_string()).collect();
                let asks = if report.wants_answer { ", and you?" } else { "" };
                let wants = if report.wants_mark { ", I need a mark" } else { "" };
                format!("my state has digests at [{}]{asks}{wants}", held.join(" "))
            }
            PeerMessage::SnapshotEnd { stream, complete, .. } => {
                format!("{}: {}", self.stream(*stream), if *complete { "done" } else { "given up" })
            }
            _ => return None,
        })
    }

    fn stream(&mut self, stream: u64) -> String {
        name('s', &mut self.streams, stream)
    }

    fn round(&mut self, round: LeadershipRound) -> String {
        name('r', &mut self.rounds, round)
    }

    fn probe(&mut self, probe: u64) -> String {
        name('p', &mut self.probes, probe)
    }

    /// What a block holds about the shard; `None` if nothing.
    pub fn block(&mut self, node: NodeId, batch: &LogBatch) -> Option<String> {
        let mut parts: Vec<String> = Vec::new();
        let mut run: Vec<LogEntry> = Vec::new();
        for record in batch.records.iter().filter(|record| record.shard() == self.shard) {
            if let Record::Entry { entry, .. } = record {
                run.push(entry.clone());
                continue;
            }
            parts.extend(span(&std::mem::take(&mut run)));
            match record {
                Record::HardState { hard_state, .. } => {
                    let vote = (hard_state.term, hard_state.vote);
                    if self.votes.insert(node, vote) != Some(vote) {
                        parts.push(format!("term {}", hard_state.term));
                        parts.extend(self.replicas.get(&hard_state.vote).map(|node| format!("vote n{node}")));
                    }
                    parts.push(format!("commit {}", hard_state.commit));
                }
                Record::Boundary { boundary, .. } => parts.push(format!("log given up to {}", boundary.index)),
                Record::Install { install, .. } => parts.push(format!("install {}@{}", install.index, install.term)),
                Record::Create { .. } | Record::Entry { .. } | Record::Tombstone { .. } => {}
            }
        }
        parts.extend(span(&run));
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// A job for the checkpoint thread; `None` if it is not told of.
    #[must_use]
    pub fn job(&self, job: &CheckpointJob) -> Option<String> {
        let is_ours = |replica: &ReplicaId| self.replicas.contains_key(replica);
        match job {
            CheckpointJob::Write { shard, header, .. } if *shard == self.shard => {
                Some(format!("freezes its table at {}", header.index))
            }
            CheckpointJob::Forget { replica } if is_ours(replica) => Some("throws its checkpoints away".to_owned()),
            CheckpointJob::Load { shard, install, .. } if *shard == self.shard => Some(match install {
                Some(install) => format!("loads its state, install {}", install.index),
                None => "loads its state".to_owned(),
            }),
            CheckpointJob::Stage { replica, .. } if is_ours(replica) => Some("makes a staging directory".to_owned()),
            CheckpointJob::Verify { replica, .. } if is_ours(replica) => Some("verifies what it staged".to_owned()),
            CheckpointJob::Discard { replica, .. } if is_ours(replica) => Some("throws staging away".to_owned()),
            _ => None,
        }
    }

    /// What the checkpoint thread reports; `None` if it is not told of.
    #[must_use]
    pub fn event(&self, event: &CheckpointEvent) -> Option<String> {
        match event {
            CheckpointEvent::Durable { shard, footer, .. } if *shard == self.shard => {
                Some(format!("delta of {} is synced and read back", footer.header.index))
            }
            CheckpointEvent::Confirmed { shard, index, .. } if *shard == self.shard => {
                Some(format!("{index} is noted as confirmed"))
            }
            CheckpointEvent::Inserted { shard, index, .. } if *shard == self.shard => {
                Some(format!("tree has all up to {index}"))
            }
            CheckpointEvent::TreeFailed { shard, .. } if *shard == self.shard => Some("tree fails".to_owned()),
            CheckpointEvent::Verified { replica, .. } if self.replicas.contains_key(replica) => {
                Some("staging is whole".to_owned())
            }
            CheckpointEvent::StageFailed { replica, reason, .. } if self.replicas.contains_key(replica) => {
                Some(format!("staging fails: {reason}"))
            }
            _ => None,
        }
    }

    /// Something for operators; `None` if it is of another shard.
    #[must_use]
    pub fn notice(&self, notice: &Notice) -> Option<String> {
        let ours = |shard: &ShardId| *shard == self.shard;
        Some(match notice {
            Notice::Role { shard, leads, term, leader } if ours(shard) => match leader {
                _ if *leads => format!("leads term {term}"),
                Some(leader) => format!("follows n{leader} in term {term}"),
                None => format!("knows no leader in term {term}"),
            },
            Notice::Quarantined { shard, reason } if ours(shard) => format!("is out of service: {reason}"),
            Notice::Verified { shard, index } if ours(shard) => format!("is proven at {index}"),
            Notice::StateLost { shard, reason } if ours(shard) => format!("has lost its state: {reason}"),
            Notice::MarkSkipped { shard, index } if ours(shard) => format!("is too busy for the mark at {index}"),
            Notice::Diverged { shard, index, .. } if ours(shard) => format!("sees at {index} that its state is wrong"),
            Notice::Disputed { shard, index, .. } if ours(shard) => {
                format!("can't tell at {index} which state is right")
            }
            Notice::Settled { shard } if ours(shard) => "knows again that its state is right".to_owned(),
            Notice::Refused { from, shard: Some(shard), reason } if ours(shard) => {
                format!("refuses what n{from} says: {reason}")
            }
            Notice::LogStalled => "hears nothing from its log's disk".to_owned(),
            Notice::DiskLow { free_bytes } => format!("has {free_bytes} bytes of disk left"),
            _ => return None,
        })
    }

    /// An entry that was applied; `None` if it is of another shard.
    #[must_use]
    pub fn applied(&self, applied: &AppliedEntry) -> Option<String> {
        if applied.shard != self.shard {
            return None;
        }
        let commands = decode_batch(&applied.data).unwrap_or_default();
        let what = commands.iter().map(command).collect::<Vec<_>>().join(", ");
        Some(format!(
            "applies {}@{}{}",
            applied.index,
            applied.term,
            if what.is_empty() { what } else { format!(" {what}") }
        ))
    }

    /// What a replica says of itself, word by word.
    #[must_use]
    pub fn status(&self, status: &ShardStatus) -> BTreeMap<&'static str, String> {
        let leader = status.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        let checkpoint = status.checkpoint.map_or_else(|| "none".to_owned(), |index| index.to_string());
        let state = match (status.quarantined, status.live) {
            (true, _) => "quarantined",
            (_, true) => "live",
            (_, false) => "unproven",
        };
        BTreeMap::from([
            ("role", format!("{:?}", status.role).to_lowercase()),
            ("term", status.term.to_string()),
            ("leader", leader),
            ("commit", status.commit.to_string()),
            ("persisted", status.persisted.to_string()),
            ("applied", status.applied.to_string()),
            ("first", status.first_index.to_string()),
            ("last", status.last_index.to_string()),
            ("checkpoint", checkpoint),
            ("revision", status.revision.to_string()),
            ("waiting", status.waiting.to_string()),
            ("state", state.to_owned()),
        ])
    }
}

/// The answer to a request.
#[must_use]
pub fn answer(request: RequestId, result: &Result<Answer, Error>) -> String {
    let what = match result {
        Ok(Answer::Got { entry, age_micros, .. }) => {
            let entry = entry.as_ref();
            let held = entry.map(|entry| format!("{} of revision {}", value(&entry.value), entry.revision));
            let age = match age_micros {
                Some(0) => String::new(),
                Some(age) => format!(", at most {} ms old", age.div_ceil(1_000)),
                None => ", of any age".to_owned(),
            };
            format!("{}{age}", held.unwrap_or_else(|| "absent".to_owned()))
        }
        Ok(Answer::Written { revision, previous, token: at }) => {
            let at = at.map_or_else(String::new, |at| format!(" at {}", token(at)));
            let previous = match previous {
                Previous::NotAsked => String::new(),
                Previous::Absent => ", was absent".to_owned(),
                Previous::Entry(entry) => format!(", was {}", value(&entry.value)),
                Previous::Unavailable => ", what was is forgotten".to_owned(),
            };
            let done =
                if *revision == Revision(0) { "nothing to do".to_owned() } else { format!("revision {revision}") };
            format!("written{at}, {done}{previous}")
        }
        Ok(Answer::Accepted { token: at }) => format!("accepted at {}", token(*at)),
        Ok(Answer::SessionOpened(session)) => format!("session {session}"),
        Ok(Answer::Durable) => "durable".to_owned(),
        Ok(Answer::Lost) => "lost".to_owned(),
        Ok(Answer::Forgotten) => "too old to be known".to_owned(),
        Ok(Answer::TransferBegun) => "transfer begun".to_owned(),
        Err(error) => refusal(error),
    };
    format!("c{request}: {what}")
}

fn refusal(error: &Error) -> String {
    let outcome = match error.outcome() {
        Outcome::NotApplied => "not applied",
        Outcome::Unknown => "unknown",
    };
    let leader = error.leader().map_or_else(String::new, |leader| format!(", ask n{leader}"));
    let current = error.current().map_or_else(String::new, |current| format!(", revision is {current}"));
    format!("{outcome}, {:?}{leader}{current}", error.kind())
}

fn token(token: Token) -> String {
    format!("{}@{}", token.index, token.term)
}

fn value(value: &Value) -> String {
    let bytes = value.as_bytes();
    if bytes.len() > VALUE_BYTES_SHOWN {
        return format!("({} bytes)", bytes.len());
    }
    bytes.escape_ascii().to_string()
}

fn command(command: &Command) -> String {
    match command {
        Command::Write(Write { key, action, condition, session, .. }) => {
            let key = key.as_bytes().escape_ascii();
            let what = match action {
                Action::Put(put) => format!("{key}={}", value(put)),
                Action::Delete => format!("del {key}"),
            };
            let condition = match condition {
                Condition::Always => String::new(),
                Condition::Absent => " if absent".to_owned(),
                Condition::RevisionIs(revision) => format!(" if {revision}"),
            };
            let session = session
                .map_or_else(String::new, |stamp| format!(" (session {}, no. {})", stamp.session, stamp.sequence));
            format!("{what}{condition}{session}")
        }
        Command::OpenSession => "open session".to_owned(),
        other => format!("{other:?}").chars().take_while(|letter| letter.is_alphanumeric()).collect(),
    }
}

/// Entries of a message: those of one command in full, more by their places.
fn entries(entries: &[LogEntry]) -> String {
    if entries.len() > 3 {
        return span(entries).unwrap_or_default();
    }
    let entry = |entry: &LogEntry| {
        let commands = match entry.kind {
            EntryKind::Commands => decode_batch(&entry.data).unwrap_or_default(),
            _ => Vec::new(),
        };
        let what = commands.iter().map(command).collect::<Vec<_>>().join(" + ");
        format!("{}@{} {what}", entry.index, entry.term).trim_end().to_owned()
    };
    entries.iter().map(entry).collect::<Vec<_>>().join(", ")
}

/// Places of entries that follow one another: the first and the last.
fn span(entries: &[LogEntry]) -> Option<String> {
    let (first, last) = (entries.first()?, entries.last()?);
    let place = |entry: &LogEntry| format!("{}@{}", entry.index, entry.term);
    Some(if first.index == last.index { place(first) } else { format!("{}..{}", place(first), place(last)) })
}

fn name<T: PartialEq>(letter: char, known: &mut Vec<T>, what: T) -> String {
    let at = known.iter().position(|known| *known == what).unwrap_or_else(|| {
        known.push(what);
        known.len() - 1
    });
    format!("{letter}{}", at + 1)
}
