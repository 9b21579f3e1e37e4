//! A few nodes on one thread with a perfect network and disk.

use std::{cell::RefCell, collections::BTreeMap, ops::Bound, rc::Rc, sync::Arc};

use super::*;

type Trees = BTreeMap<ReplicaId, BTreeMap<Bytes, Bytes>>;

#[derive(Clone, Default)]
pub(super) struct Memory(Rc<RefCell<Trees>>);

impl StateStore for Memory {
    fn get(&self, tree: ReplicaId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let trees = self.0.borrow();
        Ok(trees.get(&tree).ok_or_else(|| StoreError("no tree".into()))?.get(key).cloned())
    }

    fn range(&self, tree: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let trees = self.0.borrow();
        let tree = trees.get(&tree).ok_or_else(|| StoreError("no tree".into()))?;
        let range = (Bound::Included(Bytes::copy_from_slice(from)), Bound::Unbounded);
        Ok(tree.range(range).take(count_max).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, tree: ReplicaId, changes: &[crate::disk::Change<'_>]) -> Result<(), StoreError> {
        let mut trees = self.0.borrow_mut();
        let tree = trees.get_mut(&tree).ok_or_else(|| StoreError("no tree".into()))?;
        for (key, value) in changes {
            match value {
                Some(value) => tree.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)),
                None => tree.remove(&key[..]),
            };
        }
        Ok(())
    }

    fn reset(&self, tree: ReplicaId) -> Result<(), StoreError> {
        self.0.borrow_mut().insert(tree, BTreeMap::new());
        Ok(())
    }

    fn remove(&self, tree: ReplicaId) -> Result<(), StoreError> {
        self.0.borrow_mut().remove(&tree);
        Ok(())
    }
}

pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<NodeId, Node<Memory>>,
    pub(super) stores: BTreeMap<NodeId, Memory>,
    pub(super) inputs: BTreeMap<NodeId, Vec<Input>>,
    pub(super) now: Time,
    pub(super) replies: BTreeMap<RequestId, Result<Answer, Error>>,
    pub(super) next: u64,
    pub(super) checkpoints: usize,
    /// Tables given back to be freed.
    pub(super) freed: usize,
    /// A node whose messages are lost, those to it as well.
    pub(super) silent: Option<NodeId>,
    /// A node that is never told to campaign, and when it should have been.
    pub(super) deaf: Option<NodeId>,
    pub(super) told_to_campaign: Vec<Time>,
    /// Accounts of marks that were made up.
    pub(super) next_told: u64,
    /// Why messages of peers were refused.
    pub(super) refused: Vec<&'static str>,
    /// Jobs that a healthy cluster asks for none of.
    pub(super) other_jobs: Vec<CheckpointJob>,
}

impl Cluster {
    pub(super) fn start(count: u64, shards: u32, settings: &Settings) -> Self {
        let record = record(count, shards, 3);
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            stores: BTreeMap::new(),
            inputs: BTreeMap::new(),
            now: Time(1),
            replies: BTreeMap::new(),
            next: 0,
            checkpoints: 0,
            freed: 0,
            silent: None,
            deaf: None,
            told_to_campaign: Vec::new(),
            next_told: 0,
            refused: Vec::new(),
            other_jobs: Vec::new(),
        };
        for node in (1..=count).map(NodeId) {
            let store = Memory::default();
            let opening = Opening::first(node, record.clone(), settings.clone(), cluster.now);
            let mut outputs = Vec::new();
            let opened = Node::open(opening, store.clone(), &mut outputs).unwrap();
            let mut own = opened.map().nodes.iter().find(|known| known.node == node).unwrap().clone();
            own.client_address = format!("n{node}:2");
            cluster.inputs.insert(node, vec![Input::Describe(own)]);
            cluster.nodes.insert(node, opened);
            cluster.stores.insert(node, store);
            cluster.perform(node, outputs);
        }
        cluster.run_ticks(40);
        cluster
    }

    pub(super) fn perform(&mut self, node: NodeId, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { to, .. } if [node, to].map(Some).contains(&self.silent) => {}
                Output::Send { to, message } if Some(to) == self.deaf && tells_to_campaign(&message) => {
                    self.told_to_campaign.push(self.now);
                }
                Output::Send { to, message } => {
                    self.inputs.get_mut(&to).unwrap().push(Input::Peer { from: node, message });
                }
                Output::LogBatch(batch) => {
                    let report = LogReport { number: batch.number, ..LogReport::default() };
                    self.inputs.get_mut(&node).unwrap().push(Input::Synced(report));
                }
                Output::Checkpoint(job) => self.checkpoint(node, *job),
                Output::Reply { request, result } => {
                    assert!((1..=self.next).contains(&request.0), "{request} was never asked, and got {result:?}");
                    assert!(self.replies.insert(request, result).is_none(), "one reply to each request");
                }
                Output::MapChanged(_) => {}
                Output::Notice(Notice::Refused { reason, .. }) => self.refused.push(reason),
                Output::Notice(notice) => assert!(!matches!(notice, Notice::Quarantined { .. }), "{notice:?}"),
            }
        }
    }

    /// A checkpoint thread without files: the tree is all there is.
    pub(super) fn checkpoint(&mut self, node: NodeId, job: CheckpointJob) {
        let store = &self.stores[&node];
        let inputs = self.inputs.get_mut(&node).unwrap();
        match job {
            CheckpointJob::Load { shard, replica, initial, .. } => {
                store.reset(replica).unwrap();
                let footer = Footer { header: initial.unwrap(), digest: Digest(0) };
                let (sessions, nodes) = (Vec::new(), Vec::new());
                let event = CheckpointEvent::Loaded {
                    shard,
                    replica,
                    footer,
                    checkpoints: Vec::new(),
                    confirmed: None,
                    sessions,
                    nodes,
                };
                inputs.push(Input::Checkpoint(Box::new(event)));
            }
            CheckpointJob::Write { shard, replica, table, header } => {
                self.checkpoints += 1;
                store.write(replica, &table.sorted().collect::<Vec<_>>()).unwrap();
                let StateHeader { index, .. } = header;
                let footer = Footer { header, digest: Digest(1) };
                inputs.push(Input::Checkpoint(Box::new(CheckpointEvent::Durable { shard, replica, footer })));
                inputs.push(Input::Checkpoint(Box::new(CheckpointEvent::Inserted { shard, replica, index })));
            }
            CheckpointJob::Confirmed { shard, replica, index, .. } => {
                inputs.push(Input::Checkpoint(Box::new(CheckpointEvent::Confirmed { shard, replica, index })));
            }
            CheckpointJob::Free { table } => {
                assert_eq!(Arc::strong_count(&table), 1, "a turn that lets go of the last of it would free it");
                self.freed += 1;
            }
            CheckpointJob::Scrub { .. } => {}
            other => self.other_jobs.push(other),
        }
    }

    pub(super) fn settle(&mut self) {
        while self.inputs.values().any(|inputs| !inputs.is_empty()) {
            for node in self.nodes.keys().copied().collect::<Vec<_>>() {
                let mut inputs = std::mem::take(self.inputs.get_mut(&node).unwrap());
                if inputs.is_empty() {
                    continue;
                }
                let mut outputs = Vec::new();
                self.now = self.now.plus_micros(10);
                self.nodes.get_mut(&node).unwrap().turn(self.now, &mut inputs, &mut outputs);
                self.perform(node, outputs);
            }
        }
    }

    #[track_caller]
    pub(super) fn assert_healthy(&self) {
        assert!(self.other_jobs.is_empty(), "{:?}", self.other_jobs);
        assert_eq!(self.refused, [""; 0]);
    }

    pub(super) fn run_ticks(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.now = self.now.plus_micros(50_000);
            for inputs in self.inputs.values_mut() {
                inputs.push(Input::Tick);
            }
            self.settle();
        }
    }

    pub(super) fn ask(&mut self, node: NodeId, shard: ShardId, operation: Operation) -> RequestId {
        self.next += 1;
        let (id, deadline) = (RequestId(self.next), self.now.plus_micros(5_000_000));
        let request = Request { id, shard, epoch: None, deadline, operation };
        self.inputs.get_mut(&node).unwrap().push(Input::Request(request));
        id
    }

    pub(super) fn answer(&mut self, node: NodeId, shard: ShardId, operation: Operation) -> Result<Answer, Error> {
        let id = self.ask(node, shard, operation);
        self.settle();
        self.run_ticks(4);
        self.replies.remove(&id).expect("answered")
    }

    pub(super) fn leader(&self, shard: ShardId) -> NodeId {
        let leads = |node: &&Node<Memory>| node.shard_status(shard).is_some_and(|status| status.role == Role::Leader);
        let leaders: Vec<_> = self.nodes.values().filter(leads).map(Node::id).collect();
        assert_eq!(leaders.len(), 1, "one leader");
        leaders[0]
    }

    pub(super) fn place(&self, key: &Key) -> (ShardId, NodeId) {
        let shard =
            self.nodes[&NodeId(1)].keeper.checked().row_at(crate::ring::position(key.as_bytes())).unwrap().shard;
        (shard, self.leader(shard))
    }
}

fn tells_to_campaign(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Raft { message, .. } if message.kind == RaftMessageKind::TimeoutNow)
}
