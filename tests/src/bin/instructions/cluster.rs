//! Nodes that say everything to each other in rounds: each takes what came, then each log writes its block.

use std::collections::BTreeMap;

use kv_core::{
    checkpoint::job::{CheckpointEvent, CheckpointJob},
    command::{Action, Condition, SessionStamp, Write},
    founding::{FoundingRecord, Member},
    io::{Answer, Consistency, Input, Operation, Output, Request},
    log::{Log, LogSettings},
    node::{Node, Opening},
    ring,
    settings::Settings,
    shard_map::ShardMap,
    state::record::Footer,
    types::{Digest, Durability, Incarnation, Key, NodeId, RequestId, Sequence, SessionId, ShardId, Time, Value},
};

use crate::{disk::MemoryLog, store::Empty};

/// Bytes of every value.
const VALUE_BYTES: usize = 128;
/// Rounds after which an operation is held to be lost.
const ROUNDS_MAX: usize = 1_000;

struct Host {
    node: Node<Empty>,
    log: Log<MemoryLog>,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
}

/// A session of the one client, with the next number of a write.
struct Session {
    id: SessionId,
    next: Sequence,
}

pub(crate) struct Cluster {
    hosts: BTreeMap<NodeId, Host>,
    map: ShardMap,
    now: Time,
    sessions: BTreeMap<ShardId, Session>,
    asked: u64,
    unanswered: usize,
    opened: Vec<(RequestId, SessionId)>,
    value: Value,
}

impl Cluster {
    /// A cluster whose owners lead, and a session in each of its shards.
    pub(crate) fn start(nodes: u64, shards: u32) -> Self {
        let member = |node| Member {
            node: NodeId(node),
            incarnation: Incarnation(u128::from(node)),
            peer_address: format!("n{node}:1"),
            zone: String::new(),
            weight: 1,
        };
        let members = (1..=nodes).map(member).collect();
        let record = FoundingRecord { members, shards, replication: 3, durability: Durability::Sync };
        let mut hosts = BTreeMap::new();
        let now = Time(1);
        for node in (1..=nodes).map(NodeId) {
            let opening = Opening::first(node, record.clone(), Settings::default(), now);
            let mut outputs = Vec::new();
            let node_itself = Node::open(opening, Empty, &mut outputs).expect("a fresh node opens");
            let mut own =
                node_itself.map().nodes.iter().find(|known| known.node == node).cloned().expect("it is on its map");
            own.client_address = format!("n{node}:2");
            let log = Log::create(MemoryLog::default(), LogSettings::default()).expect("memory does not fail");
            hosts.insert(node, Host { node: node_itself, log, inputs: vec![Input::Describe(own)], outputs });
        }
        let map = hosts[&NodeId(1)].node.map().clone();
        let value = Value::new(vec![b'v'; VALUE_BYTES]).expect("a small value");
        let (sessions, opened) = (BTreeMap::new(), Vec::new());
        let mut cluster = Self { hosts, map, now, sessions, asked: 0, unanswered: 0, opened, value };
        for _ in 0..40 {
            cluster.now = cluster.now.plus_micros(50_000);
            cluster.hosts.values_mut().for_each(|host| host.inputs.push(Input::Tick));
            cluster.settle();
        }
        cluster.open_sessions();
        cluster
    }

    fn open_sessions(&mut self) {
        let shards: Vec<ShardId> =
            self.map.shards.iter().filter(|row| row.arc.is_some()).map(|row| row.shard).collect();
        for shard in shards {
            let request = self.ask(shard, Operation::OpenSession);
            self.settle();
            let opened = self.opened.pop().filter(|(answered, _)| *answered == request);
            let (_, id) = opened.expect("a shard with a leader opens a session");
            self.sessions.insert(shard, Session { id, next: Sequence(1) });
        }
    }

    /// Puts these keys, all at once, and waits for all answers.
    pub(crate) fn put(&mut self, keys: impl Iterator<Item = Key>) {
        // Those of the batch before are answered, so that nothing below the first of this one is open.
        let floors: BTreeMap<ShardId, Sequence> =
            self.sessions.iter().map(|(shard, session)| (*shard, session.next)).collect();
        for key in keys {
            let shard = self.shard_of(&key);
            let session = self.sessions.get_mut(&shard).expect("every shard with an arc has a session");
            let stamp = SessionStamp { session: session.id, sequence: session.next, floor: floors[&shard] };
            session.next = Sequence(session.next.0 + 1);
            let write = Write {
                key,
                action: Action::Put(self.value.clone()),
                condition: Condition::Always,
                return_previous: false,
                session: Some(stamp),
            };
            self.ask(shard, Operation::Write { write, durability: None });
        }
        self.settle();
    }

    /// Gets these keys, all at once, and waits for all answers.
    pub(crate) fn get(&mut self, keys: impl Iterator<Item = Key>) {
        for key in keys {
            let shard = self.shard_of(&key);
            self.ask(shard, Operation::Get { key, consistency: Consistency::Linearizable });
        }
        self.settle();
    }

    fn shard_of(&self, key: &Key) -> ShardId {
        let position = ring::position(key.as_bytes());
        let owner = self.map.shards.iter().find(|row| row.arc.is_some_and(|arc| arc.contains(position)));
        owner.expect("the arcs cover the ring").shard
    }

    fn ask(&mut self, shard: ShardId, operation: Operation) -> RequestId {
        self.asked += 1;
        self.unanswered += 1;
        let id = RequestId(self.asked);
        let row = self.map.shards.iter().find(|row| row.shard == shard).expect("a shard of the map");
        let (owner, epoch) = (row.owner().expect("it has replicas"), Some(row.epoch));
        let deadline = self.now.plus_micros(5_000_000);
        let request = Request { id, shard, epoch, deadline, operation };
        self.hosts.get_mut(&owner).expect("owners are nodes").inputs.push(Input::Request(request));
        id
    }

    /// Rounds until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if !self.round() {
                assert_eq!(self.unanswered, 0, "every request is answered");
                return;
            }
        }
        panic!("a step does not end");
    }

    fn round(&mut self) -> bool {
        self.now = self.now.plus_micros(100);
        let mut has_moved = false;
        let mut sent = Vec::new();
        for (from, host) in &mut self.hosts {
            if host.inputs.is_empty() && host.outputs.is_empty() {
                continue;
            }
            has_moved = true;
            host.node.turn(self.now, &mut host.inputs, &mut host.outputs);
            for output in std::mem::take(&mut host.outputs) {
                match output {
                    Output::Send { to, message } => sent.push((to, Input::Peer { from: *from, message })),
                    Output::LogBatch(batch) => {
                        let report = host.log.append(&batch).expect("memory does not fail");
                        host.inputs.push(Input::Synced(report));
                    }
                    // There is nothing yet that could rot.
                    Output::Checkpoint(job) if matches!(*job, CheckpointJob::Scrub { .. }) => {}
                    Output::Checkpoint(job) => host.inputs.push(Input::Checkpoint(Box::new(loaded(*job)))),
                    Output::Reply { request, result } => {
                        self.unanswered -= 1;
                        match result.expect("nothing goes wrong here") {
                            Answer::SessionOpened(session) => self.opened.push((request, session)),
                            Answer::Got { entry, .. } => assert!(entry.is_some(), "every key was put"),
                            _ => {}
                        }
                    }
                    Output::MapChanged(map) => self.map = map,
                    Output::Notice(_) => {}
                }
            }
        }
        for (to, input) in sent {
            self.hosts.get_mut(&to).expect("nodes know each other").inputs.push(input);
        }
        has_moved
    }
}

/// What the checkpoint thread of a fresh node reports.
fn loaded(job: CheckpointJob) -> CheckpointEvent {
    let CheckpointJob::Load { shard, replica, initial: Some(header), .. } = job else {
        panic!("the load is too small for a checkpoint: {job:?}")
    };
    CheckpointEvent::Loaded {
        shard,
        replica,
        footer: Footer { header, digest: Digest(0) },
        checkpoints: Vec::new(),
        confirmed: None,
        sessions: Vec::new(),
        nodes: Vec::new(),
    }
}
