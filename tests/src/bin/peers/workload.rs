//! What is asked of all systems.

use kv_client::load::{Choice, Keys, Pace, Plan};

/// What a system promises once it has answered. Only equals are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// A write is on the disks of a majority.
    QuorumDisk,
    /// A write is in the memory of the leader or master.
    LeaderMemory,
    /// A read is linearizable, or, of Redis, what its master has.
    Read,
}

/// A load with a name.
#[derive(Debug)]
pub(crate) struct Workload {
    /// Its name.
    pub(crate) name: &'static str,
    /// What is promised.
    pub(crate) tier: Tier,
    /// How many operations are outstanding.
    pub(crate) out: u32,
    /// Size of each value in bytes.
    pub(crate) value_bytes: usize,
    /// Whether each put is of a key that is not there yet, instead of one of those that are.
    pub(crate) is_new: bool,
}

const fn workload(name: &'static str, tier: Tier, out: u32, value_bytes: usize) -> Workload {
    Workload { name, tier, out, value_bytes, is_new: false }
}

/// All of them: 16-byte keys, uniformly chosen but where they are new.
pub(crate) const ALL: &[Workload] = &[
    workload("put-1", Tier::QuorumDisk, 1, 128),
    workload("put-64", Tier::QuorumDisk, 64, 128),
    workload("put-256", Tier::QuorumDisk, 256, 128),
    workload("put-64-1k", Tier::QuorumDisk, 64, 1_024),
    workload("put-16-64k", Tier::QuorumDisk, 16, 65_536),
    Workload { is_new: true, ..workload("new-256", Tier::QuorumDisk, 256, 128) },
    workload("get-1", Tier::Read, 1, 128),
    workload("get-64", Tier::Read, 64, 128),
    workload("get-256", Tier::Read, 256, 128),
    workload("async-put-64", Tier::LeaderMemory, 64, 128),
    workload("async-put-256", Tier::LeaderMemory, 256, 128),
];

/// Those of these names, in this order; all if there are none.
///
/// # Errors
/// With the names that there are, if one is none of them.
pub(crate) fn named(names: &[String]) -> Result<Vec<&'static Workload>, String> {
    if names.is_empty() {
        return Ok(ALL.iter().collect());
    }
    let find = |name: &String| {
        ALL.iter().find(|workload| workload.name == name).ok_or_else(|| {
            let known: Vec<_> = ALL.iter().map(|workload| workload.name).collect();
            format!("there is no workload {name:?}; there are {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

impl Workload {
    /// In words.
    pub(crate) fn describe(&self) -> String {
        let what = match self.tier {
            Tier::QuorumDisk if self.is_new => "puts of new keys, on the disks of a majority",
            Tier::QuorumDisk => "puts, on the disks of a majority",
            Tier::LeaderMemory => "puts, in one memory",
            Tier::Read => "gets",
        };
        format!("{what}, {} outstanding, values of {} B", self.out, self.value_bytes)
    }

    /// As a load; each turn has new keys of its own.
    pub(crate) fn plan(&self, keys: u64, turn: u32) -> Plan {
        let (prefix, choice) = match self.is_new {
            true => (format!("new{turn}/"), Choice::New),
            false => ("bench/".to_owned(), Choice::Uniform),
        };
        Plan {
            put_percent: if self.tier == Tier::Read { 0 } else { 100 },
            pace: Pace::Closed,
            out: self.out,
            keys: Keys { prefix, bytes: 16, count: keys, choice },
            value_bytes: self.value_bytes,
            count: None,
            seed: 1,
        }
    }
}
