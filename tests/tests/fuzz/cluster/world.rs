//! Three nodes without disks and network: what one sends is the other's next input, and what a log or a checkpoint thread would
//! do is done at once. A link may hold raft's messages back until the next tick ([`Cluster::hold_back`]).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::LazyLock,
};

use bytes::Bytes;
use kv_core::{
    checkpoint::job::{CheckpointEvent, CheckpointJob},
    command::{Action, Command, Condition, Write, encoded_bytes_about},
    configuration::Configuration,
    disk::StateStore,
    founding::{FoundingRecord, Member},
    io::{Consistency, Input, Notice, Operation, Output, Request},
    log::record::{Install, LogReport, StagingId},
    message::{LeadershipRound, PeerMessage},
    node::{Node, Opening, Role},
    settings::Settings,
    shard_map::{ShardMap, ShardRow},
    state::record::{Footer, StateHeader},
    types::{Digest, Durability, Incarnation, Key, LogIndex, NodeId, ReplicaId, RequestId, ShardId, Term, Time},
};
use kv_tests::disk::MemoryStore;

use super::{
    LIAR, NODES,
    clients::{Clients, key_in},
    plain::{self, FreshProbes},
};

/// Messages that may be on their way at once.
const IN_FLIGHT_MAX: usize = 20_000;
/// Inputs of one turn: the shell cuts there too.
const TURN_INPUTS_MAX: usize = 4_096;

/// Inputs of a node may take about so many bytes before the liar or a client says more: nor does the shell read on without end.
const UNREAD_BYTES_MAX: usize = 128 * 1024;
/// Messages that a link holds back; then it lets go of them.
const HELD_BACK_MAX: usize = 64;
/// So much may be written meanwhile: who lags by more than a log keeps would need files, which nobody has here.
const HELD_WRITTEN_BYTES_MAX: usize = 4 * 1024;
/// Longer messages are not kept to be altered.
const KEPT_BYTES_MAX: usize = 4 * 1024;

/// What founded a cluster, and what follows from it: the same for all runs.
pub(super) struct World {
    record: FoundingRecord,
    pub(super) map: ShardMap,
    keys: BTreeMap<ShardId, Key>,
}

/// Two shards, of which every node has a replica.
pub(super) static EVERYWHERE: LazyLock<World> = LazyLock::new(|| World::found(2, 3));
/// Three shards of two replicas each.
pub(super) static IN_PAIRS: LazyLock<World> = LazyLock::new(|| World::found(3, 2));

impl World {
    fn found(shards: u32, replication: u32) -> Self {
        let record = founding(shards, replication);
        let map = record.layout();
        let key = |row: &ShardRow| {
            let arc = row.arc?;
            Some((row.shard, key_in(|name| arc.contains(kv_core::ring::position(name)))))
        };
        let keys = map.shards.iter().filter_map(key).collect();
        Self { record, map, keys }
    }
}

fn founding(shards: u32, replication: u32) -> FoundingRecord {
    let member = |node| Member {
        node: NodeId(node),
        incarnation: Incarnation(u128::from(node)),
        peer_address: format!("n{node}:1"),
        zone: String::new(),
        weight: 1,
    };
    FoundingRecord { members: (1..=3).map(member).collect(), shards, replication, durability: Durability::Sync }
}

pub(super) struct Cluster {
    world: &'static World,
    pub(super) nodes: BTreeMap<NodeId, Node<MemoryStore>>,
    stores: BTreeMap<NodeId, MemoryStore>,
    pub(super) inputs: BTreeMap<NodeId, Vec<Input>>,
    /// The liar's messages are held back while it is silent.
    pub(super) is_silent: bool,
    /// What was last sent, to be altered and sent again.
    pub(super) sent: VecDeque<(NodeId, PeerMessage)>,
    pub(super) now: Time,
    pub(super) clients: Clients,
    /// The last round of leadership that each node asked.
    pub(super) asked: BTreeMap<NodeId, LeadershipRound>,
    /// The last question of each replica that does not lead.
    pub(super) probes: BTreeMap<(NodeId, ShardId), u64>,
    /// Those that its last turn asked, of whom: nothing has answered them yet.
    fresh_probes: BTreeMap<NodeId, FreshProbes>,
    /// What raft says on this link waits for the next tick.
    held_link: Option<(NodeId, NodeId)>,
    held_back: Vec<(NodeId, Input)>,
    /// What clients have asked to be written since.
    held_written_bytes: usize,
    /// What each replica began with: a state from a peer is made of it.
    initial: BTreeMap<ReplicaId, StateHeader>,
    /// What is being gathered: its place.
    staged: BTreeMap<(ReplicaId, StagingId), (LogIndex, Term)>,
    /// Shards of which a replica took a state over.
    pub(super) installed: BTreeSet<ShardId>,
    /// Messages that were refused, by reason.
    pub(super) refused: BTreeMap<&'static str, u64>,
    /// Replicas that were taken out of service, and why.
    pub(super) quarantined: BTreeMap<(NodeId, ShardId), String>,
    /// Lies that no honest node could tell, of which each was seen to be refused and counted.
    pub(super) plain_lies: u64,
}

impl Cluster {
    pub(super) fn start(world: &'static World) -> Self {
        let mut cluster = Self {
            world,
            nodes: BTreeMap::new(),
            stores: BTreeMap::new(),
            inputs: BTreeMap::new(),
            is_silent: false,
            sent: VecDeque::new(),
            now: Time(1),
            clients: Clients::default(),
            asked: BTreeMap::new(),
            probes: BTreeMap::new(),
            fresh_probes: BTreeMap::new(),
            held_link: None,
            held_back: Vec::new(),
            held_written_bytes: 0,
            initial: BTreeMap::new(),
            staged: BTreeMap::new(),
            installed: BTreeSet::new(),
            refused: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            plain_lies: 0,
        };
        let settings = Settings { active_bytes_max: 16 * 1024, kept_bytes_max: 16 * 1024, ..Settings::default() };
        for node in NODES {
            let store = MemoryStore::default();
            let opening = Opening::first(node, world.record.clone(), settings.clone(), cluster.now);
            let mut outputs = Vec::new();
            let opened = Node::open(opening, store.clone(), &mut outputs).unwrap();
            let mut own = opened.map().nodes.iter().find(|known| known.node == node).unwrap().clone();
            own.client_address = format!("n{node}:2");
            cluster.inputs.insert(node, vec![Input::Describe(own)]);
            cluster.nodes.insert(node, opened);
            cluster.stores.insert(node, store);
            cluster.perform(node, outputs);
        }
        cluster.tick(3);
        cluster
    }

    fn perform(&mut self, node: NodeId, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { to, message } => {
                    self.note(node, to, &message);
                    if self.held_link == Some((node, to)) && matches!(message, PeerMessage::Raft { .. }) {
                        self.held_back.push((to, Input::Peer { from: node, message }));
                        if self.held_back.len() == HELD_BACK_MAX {
                            self.release();
                        }
                    } else if !(self.is_silent && (node == LIAR || to == LIAR)) {
                        self.give(to, Input::Peer { from: node, message });
                    }
                }
                Output::LogBatch(batch) => {
                    let report = LogReport { number: batch.number, ..LogReport::default() };
                    self.give(node, Input::Synced(report));
                }
                Output::Checkpoint(job) => self.checkpoint(node, *job),
                Output::Reply { request, result } => self.clients.answered(request, &result, self.now),
                Output::MapChanged(_) => {}
                Output::Notice(Notice::Refused { reason, .. }) => *self.refused.entry(reason).or_default() += 1,
                Output::Notice(Notice::Quarantined { shard, reason }) => {
                    // The node would live on. But raft must not be brought by a message to stop on what can't be.
                    assert!(!reason.contains("must be impossible"), "node {node}, shard {shard}: {reason}");
                    self.quarantined.insert((node, shard), reason);
                }
                Output::Notice(_) => {}
            }
        }
    }

    /// Keeps what was said: it can be altered, and questions can be answered by those who were not asked.
    fn note(&mut self, node: NodeId, to: NodeId, message: &PeerMessage) {
        match message {
            PeerMessage::LeadershipAsk { round, .. } => drop(self.asked.insert(node, *round)),
            PeerMessage::ReadProbe { shard, probe } => {
                self.probes.insert((node, *shard), *probe);
                self.fresh_probes.entry(node).or_default().insert(*shard, (to, *probe));
            }
            _ => {}
        }
        if message.bytes_about() <= KEPT_BYTES_MAX {
            if self.sent.len() == 64 {
                self.sent.pop_front();
            }
            self.sent.push_back((to, message.clone()));
        }
    }

    /// A shard's row, which nothing changes.
    pub(super) fn row(&self, shard: ShardId) -> Option<&'static ShardRow> {
        self.map().shards.iter().find(|row| row.shard == shard)
    }

    /// The map of the founding.
    pub(super) fn map(&self) -> &'static ShardMap {
        &self.world.map
    }

    /// The liar says something.
    pub(super) fn say(&mut self, to: NodeId, from: NodeId, message: PeerMessage) {
        self.make_room(to);
        self.give(to, Input::Peer { from, message });
    }

    /// What a node has not taken yet has a bound, whoever it is from.
    fn make_room(&mut self, to: NodeId) {
        let bytes = |input: &Input| match input {
            Input::Peer { message, .. } => size_of::<Input>() + message.bytes_about(),
            Input::Request(Request { operation: Operation::Write { write, .. }, .. }) => {
                size_of::<Input>() + encoded_bytes_about(&Command::Write(write.clone()))
            }
            _ => size_of::<Input>(),
        };
        let unread = self.inputs.get(&to).map_or(0, |inputs| inputs.iter().map(bytes).sum());
        if unread > UNREAD_BYTES_MAX {
            self.turns();
        }
    }

    pub(super) fn give(&mut self, to: NodeId, input: Input) {
        // What is for nobody is dropped by the shell.
        if let Some(inputs) = self.inputs.get_mut(&to) {
            inputs.push(input);
            assert!(inputs.len() < IN_FLIGHT_MAX, "messages make ever more messages");
        }
    }

    /// A checkpoint thread without files: the tree is all there is. What peers offer can be staged, and half of it is whole.
    fn checkpoint(&mut self, node: NodeId, job: CheckpointJob) {
        let store = self.stores[&node].clone();
        let loaded = |shard, replica, header| {
            store.reset(replica).unwrap();
            let footer = Footer { header, digest: Digest(0) };
            let (checkpoints, sessions, nodes) = (Vec::new(), Vec::new(), Vec::new());
            CheckpointEvent::Loaded { shard, replica, footer, checkpoints, confirmed: None, sessions, nodes }
        };
        let event = match job {
            CheckpointJob::Load { shard, replica, install: Some(Install { index, term, .. }), .. } => {
                self.installed.insert(shard);
                loaded(shard, replica, self.header(replica, index, term))
            }
            CheckpointJob::Load { shard, replica, initial: Some(header), .. } => {
                self.initial.insert(replica, header.clone());
                loaded(shard, replica, header)
            }
            CheckpointJob::Load { shard, replica, .. } => {
                CheckpointEvent::LoadFailed { shard, replica, reason: "there are no files".to_owned() }
            }
            CheckpointJob::Write { shard, replica, table, header } => {
                store.write(replica, &table.sorted().collect::<Vec<_>>()).unwrap();
                let StateHeader { index, .. } = header;
                let footer = Footer { header, digest: Digest(1) };
                self.give(node, Input::Checkpoint(Box::new(CheckpointEvent::Durable { shard, replica, footer })));
                CheckpointEvent::Inserted { shard, replica, index }
            }
            CheckpointJob::Confirmed { shard, replica, index, .. } => {
                CheckpointEvent::Confirmed { shard, replica, index }
            }
            CheckpointJob::Offer { stream, .. } => CheckpointEvent::OfferFailed { stream },
            CheckpointJob::ReadPiece { stream, file, offset } => {
                CheckpointEvent::PieceRead { stream, file, offset, bytes: Bytes::new() }
            }
            // What is offered lacks everything, takes every piece, and is whole if its index is even.
            CheckpointJob::Stage { replica, manifest } => {
                let staging = manifest.staging();
                self.staged.retain(|(other, _), _| *other != replica);
                self.staged.insert((replica, staging), (manifest.index, manifest.term));
                let lacking = (0..manifest.files.len() as u32).map(|file| (file, 0)).collect();
                CheckpointEvent::Staged { replica, staging, lacking }
            }
            CheckpointJob::WritePiece { replica, staging, file, offset, bytes } => {
                let next_offset = offset.saturating_add(bytes.len() as u64);
                CheckpointEvent::PieceWritten { replica, staging, file, next_offset }
            }
            CheckpointJob::Verify { replica, staging } => match self.staged.get(&(replica, staging)) {
                Some((index, term)) if index.0.is_multiple_of(2) => {
                    CheckpointEvent::Verified { replica, staging, header: self.header(replica, *index, *term) }
                }
                _ => CheckpointEvent::StageFailed { replica, staging, reason: "not what was offered".to_owned() },
            },
            CheckpointJob::Free { .. }
            | CheckpointJob::Release { .. }
            | CheckpointJob::Discard { .. }
            | CheckpointJob::Forget { .. }
            | CheckpointJob::Scrub { .. } => return,
        };
        self.give(node, Input::Checkpoint(Box::new(event)));
    }

    /// The state that a replica began with, as if it stood elsewhere.
    fn header(&self, replica: ReplicaId, index: LogIndex, term: Term) -> StateHeader {
        let mut header = self.initial.get(&replica).cloned().unwrap_or_default();
        let configuration = header.configurations.pop().map_or_else(Configuration::default, |(_, last)| last);
        header.configurations = vec![(index, configuration)];
        StateHeader { index, term, ..header }
    }

    /// A turn of each node that has inputs.
    pub(super) fn turns(&mut self) -> bool {
        let mut any = false;
        for node in NODES {
            let mut inputs = std::mem::take(self.inputs.get_mut(&node).unwrap());
            if inputs.is_empty() && !self.nodes[&node].has_more() {
                continue;
            }
            any = true;
            if inputs.len() > TURN_INPUTS_MAX {
                let rest = inputs.split_off(TURN_INPUTS_MAX);
                self.inputs.insert(node, rest);
            }
            let asked = plain::Asked {
                round: self.asked.get(&node).copied(),
                probes: self.fresh_probes.remove(&node).unwrap_or_default(),
            };
            let lies = plain::lies(&self.nodes[&node], self.map(), asked, &inputs);
            let mut outputs = Vec::new();
            self.now = self.now.plus_micros(10);
            self.nodes.get_mut(&node).unwrap().turn(self.now, &mut inputs, &mut outputs);
            self.plain_lies += plain::check(&self.nodes[&node], &lies, &outputs);
            self.perform(node, outputs);
        }
        any
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..2_000 {
            if !self.turns() {
                return;
            }
        }
        let next: Vec<_> = self.inputs.iter().filter(|(_, inputs)| !inputs.is_empty()).collect();
        let more: Vec<_> = NODES.iter().filter(|node| self.nodes[node].has_more()).collect();
        panic!("nodes go on sending each other messages for ever: {next:?}, and have more: {more:?}");
    }

    /// Until the next tick, what raft says from one node to another is under way: whoever is at its end does not hear what is
    /// decided meanwhile, nor who leads. No leader is lost for it. Network and disks here are as fast as can be, so that without this
    /// every replica has applied whatever it is asked for, and what goes wrong only at one that has not is never seen.
    pub(super) fn hold_back(&mut self, from: NodeId, to: NodeId) {
        self.release();
        // All that clients have asked for by now is on both sides.
        self.settle();
        (self.held_link, self.held_written_bytes) = (Some((from, to)), 0);
    }

    /// What was held back comes.
    pub(super) fn release(&mut self) {
        self.held_link = None;
        for (to, input) in std::mem::take(&mut self.held_back) {
            self.give(to, input);
        }
    }

    pub(super) fn tick(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.release();
            self.now = self.now.plus_micros(50_000);
            for node in NODES {
                self.give(node, Input::Tick);
            }
            self.settle();
        }
    }

    /// A client asks a node to write a shard's key; `None` if it has none.
    pub(super) fn write(&mut self, node: NodeId, shard: ShardId, bytes: usize) -> Option<RequestId> {
        let key = self.world.keys.get(&shard)?.clone();
        self.held_written_bytes += bytes;
        if self.held_written_bytes > HELD_WRITTEN_BYTES_MAX {
            self.release();
        }
        let write = |id| Write {
            key,
            action: Action::Put(Clients::value(id, bytes)),
            condition: Condition::Always,
            return_previous: false,
            session: None,
        };
        let asked = self.clients.ask(shard, None, |id| Operation::Write { write: write(id), durability: None });
        Some(self.request(node, shard, asked))
    }

    /// A client asks a node for what a shard's key holds; `None` if it has none.
    pub(super) fn read(&mut self, node: NodeId, shard: ShardId, consistency: Consistency) -> Option<RequestId> {
        let key = self.world.keys.get(&shard)?.clone();
        let asked = self.clients.ask(shard, Some(consistency), |_| Operation::Get { key, consistency });
        Some(self.request(node, shard, asked))
    }

    fn request(&mut self, node: NodeId, shard: ShardId, (id, operation): (RequestId, Operation)) -> RequestId {
        self.make_room(node);
        let deadline = self.now.plus_micros(60_000_000);
        self.give(node, Input::Request(Request { id, shard, epoch: None, deadline, operation }));
        id
    }

    /// Who of these leads a shard.
    pub(super) fn leader(&self, shard: ShardId, among: &[NodeId]) -> Option<NodeId> {
        let leads = |node: &&NodeId| {
            let status = self.nodes[node].shard_status(shard);
            status.is_some_and(|status| status.role == Role::Leader && !status.quarantined)
        };
        among.iter().find(leads).copied()
    }

    /// Whether the log of one of these begins above the end of another's: a leader that believed a follower to be gone for a while
    /// kept no more than its bound for it. It could be given files, which nobody has here.
    pub(super) fn needs_files(&self, shard: ShardId, among: &[NodeId]) -> bool {
        let status: Vec<_> = among.iter().filter_map(|node| self.nodes[node].shard_status(shard)).collect();
        let first = status.iter().map(|status| status.first_index.0).max();
        let last = status.iter().map(|status| status.last_index.0).min();
        first > last.map(|last| last + 1)
    }

    /// What stands true of a shard on a node, for lies that are nearly true: its replica there and the liar's, term, last index
    /// and commit index. Zeros where nothing stands.
    pub(super) fn truth(&self, node: NodeId, shard: ShardId) -> (ReplicaId, ReplicaId, u64, u64, u64) {
        let replica = |node| self.row(shard).and_then(|row| row.replica_on(node)).unwrap_or(ReplicaId(0));
        let status = self.nodes.get(&node).and_then(|node| node.shard_status(shard));
        let (term, last, commit) =
            status.map_or((1, 1, 1), |status| (status.term.0, status.last_index.0, status.commit.0));
        (replica(node), replica(LIAR), term, last, commit)
    }
}
