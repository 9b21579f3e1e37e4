//! A run as a file of JSON lines: what `chaos` writes, and `check` reads from whoever writes it.
//!
//! One JSON object a line, told apart by its field `type`. The first line is `about`. An operation is two lines, `invoke` when it is
//! called and `ok`, `fail` or `unknown` when it has an answer; one that never had an answer has no second line. Lines stand in any
//! order but for `about` and this: a completion comes after its call. Fields that are not listed here are ignored; optional ones may
//! be left out.
//!
//! ```text
//! {"type":"about","format":1,"program":"chaos","version":"0.1.0","seed":7,"workload":"register","nodes":["n1","n2","n3"],"shards":12,
//!  "started":"2026-11-21T21:27:34Z","settings":{"durability":"sync","sessions":true,"clock_drift_ppm":0}}          (one line)
//! {"type":"invoke","id":0,"client":1,"event":1,"micros":0,"f":"put","key":"k1","value":"v0"}
//! {"type":"invoke","id":1,"client":2,"event":2,"micros":40,"f":"get","key":"k1"}
//! {"type":"ok","id":0,"event":3,"micros":900,"revision":6,"token":[4,2,33],"stamps":[[4,1,9]]}
//! {"type":"ok","id":1,"event":4,"micros":950,"found":{"revision":6,"value":"v0"},"at":6}
//! {"type":"fail","id":2,"event":9,"micros":1200,"kind":"Conflict","current":7}
//! {"type":"unknown","id":3,"event":12,"micros":5001200,"kind":"Timeout"}
//! {"type":"fault","from_micros":1000,"until_micros":2000,"name":"kill","nodes":[2],"detail":"kill -9"}
//! ```
//!
//! **`about`**: `format` (1); optional `program`, `version`, `seed`, `workload`, `nodes` (their names; events count them from 1),
//! `shards`, `started` (RFC 3339), and `settings`, each of them optional: `durability` of writes that don't say it (`sync` or `async`),
//! `sessions` (whether writes carried session numbers, so that none takes effect twice), `clock_drift_ppm` (by how many millionths a
//! node's clock may differ from the history's), `age_slack_micros` (what is added to each age that a node tells: its rounding),
//! `async_commands_max` (most async writes of a shard that may be acknowledged and undecided); others are shown as they are.
//!
//! **Every line of an operation**: `id` (its number, unlike any other's), `event` (a counter of the whole run: a call or answer that
//! came later has a greater one, no two have the same), `micros` (microseconds since the run began, by one clock for all clients, which
//! never goes back as events go on).
//!
//! **`invoke`**: `client`, `f`, and
//! - `get`: `key`; optional `consistency`: `linearizable` (if left out), `stale`, or `bounded` with `age_micros_max`, microseconds;
//! - `put`: `key`, `value`; `delete`: `key`; both: optional `if_absent` (true) or `if_revision`, `previous` (true if the entry before was
//!   asked for), `mode` (`sync` or `async`);
//! - `wait_durable`: `token`.
//!
//! **`ok`**, by the call:
//! - `get`: `found` (`null`, or `revision` and `value`); optional `at` (the shard's revision at that state), `age_micros` (how old the
//!   state was at most, microseconds by the node's clock: 0 if left out; `null` if the node could not say);
//! - `put` and `delete`: `revision` (0 for the delete of an absent key); optional `previous` (`null`: absent; left out: not told), `token`;
//! - the same with `"accepted":true` and `token` in place of `revision`: acknowledged before it was decided, it may yet be lost;
//! - `wait_durable`: `durability`: `durable`, `lost`, or `unknown` (too old to tell).
//!
//! **`fail`**: it took no effect and never will. **`unknown`**: it may have, or may yet. Both: optional `kind` (a word of
//! [`kv_core::error::ErrorKind`]; `Internal` if left out), `current` (with `Conflict`: the key's revision, 0 if it was absent).
//!
//! **All completions**: optional `stamps`, the session numbers (shard, session, sequence) under which a write was sent. A **token** is
//! (shard, term, index) of a write's place in the log.
//!
//! **Events**: `fault` (`name`, `nodes`, optional `detail`), `leader` (`shard`, `node`, `term`), `final_reads` (`event`: from there on
//! every key that was written is read, and nothing is injected), `note` (`text`); all with `from_micros` and optional `until_micros`.
//!
//! **Keys and values** are texts that are equal only if the bytes are; nobody looks inside but for two workloads. **No two puts of a run
//! write the same value**, so that a read names the write that it saw. In the workload `append`, and at keys that begin with
//! `append/`, a value is a list, its elements joined by
//! `,`, and each put adds one element at the end; in `counter`, alike, it is `COUNT/UNIQUE`, and each put adds one to the count.
//!
//! Reading takes any bytes without a panic. Both directions take memory for one line and for what is still open.

mod read;
mod write;

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};

pub use self::write::Writer;

/// Longest line, in bytes, that is read; a longer one is refused.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// All lines but the first: what a line does not have is `None`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(borrow, rename = "type")]
    kind_of_line: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    micros: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    f: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    consistency: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_micros_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_absent: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_revision: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    mode: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    found: Option<Option<Entry<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    age_micros: Option<Option<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    previous: Option<Told<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<[u64; 3]>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    durability: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    kind: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stamps: Vec<[u64; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_micros: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    detail: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry<'a> {
    revision: u64,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

/// `previous` asks in a call (true) and tells in a completion (an entry, or `null`).
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Told<'a> {
    Asked(bool),
    #[serde(borrow)]
    Was(Option<Entry<'a>>),
}

/// A field that is there, `null` included; one that is not there is the default, `None`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
