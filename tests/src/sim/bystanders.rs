//! Callers that stand beside a node: they ask it at once, whatever it is, and are told at once what it says.
//!
//! Clients come to a shard through networks, maps and routers, and seldom ask one node right after another has acknowledged a write.
//! These do: no time passes and nothing is lost between them and the node, so that a read begins as early as a promise may bind it.
//!
//! *Never produced*: a request that is sent again or comes twice, writes in sessions, with conditions, asynchronous ones (clients
//! do all that). A bystander of a process that ends is never answered.

use std::collections::BTreeMap;

use bytes::Bytes;
use kv_core::{
    command::{Action, Condition, Write},
    error::Error,
    io::{Answer, Consistency, Input, Operation, Request},
    types::{Durability, Key, RequestId, ShardId, Time, Value},
};

use super::{record, world::World};

/// Marks the number of a bystander's request.
pub(super) const BYSTANDERS: u64 = 1 << 58;

/// How long such a request may wait in its node, in microseconds.
const DEADLINE_MICROS: u64 = 1_000_000;

/// What all bystanders wait for.
#[derive(Debug, Default)]
pub(super) struct Bystanders {
    asked: u64,
    waited: BTreeMap<RequestId, Waited>,
}

#[derive(Debug)]
struct Waited {
    spell: u64,
    recorded: u64,
    operation: Operation,
}

impl World {
    /// Reads a key linearizably at a node, for the sake of a [`super::unaware`] leader.
    pub(super) fn read_beside(&mut self, node: usize, shard: ShardId, key: Key, spell: u64) {
        self.ask_beside(node, shard, Operation::Get { key, consistency: Consistency::Linearizable }, spell);
    }

    /// Writes a value to it that no other writes.
    pub(super) fn write_beside(&mut self, node: usize, shard: ShardId, key: Key, spell: u64) {
        let value = Bytes::from(format!("b{}.", self.bystanders.asked));
        let action = Action::Put(Value::new(value).expect("a short value is a value"));
        let write = Write { key, action, condition: Condition::Always, return_previous: false, session: None };
        self.ask_beside(node, shard, Operation::Write { write, durability: Some(Durability::Sync) }, spell);
    }

    fn ask_beside(&mut self, node: usize, shard: ShardId, operation: Operation, spell: u64) {
        let now = self.now;
        let client = self.clients.len() + usize::from(matches!(operation, Operation::Write { .. }));
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return };
        self.bystanders.asked += 1;
        let id = RequestId(BYSTANDERS | self.bystanders.asked);
        let deadline = Time(machine.clock.at(now).0 + DEADLINE_MICROS);
        process.serving.insert(id, (client, shard, operation.clone()));
        let call = record::call(&operation, self.plan.slow_ppm_max(), self.plan.operated.async_by_default);
        let moment = self.judge.own_moment();
        let recorded = self.judge.history.invoke(client as u64, call, moment);
        self.trace.note([now, id.0, recorded]);
        self.trace.tell(now, || format!("beside n{} {recorded} is asked as {id}: {operation:?}", node + 1));
        self.bystanders.waited.insert(id, Waited { spell, recorded, operation: operation.clone() });
        self.give(node, Input::Request(Request { id, shard, epoch: None, deadline, operation }));
    }

    /// One is answered.
    pub(super) fn answered_beside(&mut self, request: RequestId, result: Result<Answer, Error>) {
        let waited = self.bystanders.waited.remove(&request);
        let Waited { spell, recorded, operation } = waited.expect("a bystander's request is answered once");
        let told = match &result {
            Ok(answer) => record::answer(answer),
            Err(error) => record::failure(error),
        };
        *self.counts.operations.entry((record::asked(&operation), record::told(&told))).or_default() += 1;
        self.answered_in_spell(spell, &operation, &told);
        let moment = self.judge.own_moment();
        self.judge.history.complete(recorded, told, moment);
    }
}
