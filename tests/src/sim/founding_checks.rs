//! What must hold of foundings whatever happens: one record is in force, it names who adopts it, and a node that ends by itself
//! says what is true.

use kv_core::{founding::FoundingRecord, types::NodeId};

use super::{founding::Member, machine::Machine, world::World};

/// Other settings that were put right are a reason to end for so long, in microseconds.
const LATELY_MICROS: u64 = 30_000_000;

impl World {
    /// No two disks hold two records.
    pub(super) fn check_one_record(&mut self) {
        let mut records: Vec<FoundingRecord> = Vec::new();
        for machine in &self.machines {
            if let Some(record) = machine.on_disk().and_then(|file| file.record)
                && !records.contains(&record)
            {
                records.push(record);
            }
        }
        if records.len() > 1 {
            let ids: Vec<_> = records.iter().map(FoundingRecord::cluster_id).collect();
            self.fail("at most one founding record is in force", format!("there are {ids:?}"));
        }
    }

    /// Once any but the lowest member has adopted a record, no other is ever adopted; and it names who adopts it.
    pub(super) fn check_record(&mut self, node: usize, record: &FoundingRecord) {
        let own = self.machines[node].member.as_ref().map(Member::incarnation);
        let named = record.member(NodeId(node as u64 + 1)).map(|member| member.incarnation);
        if named != own {
            let what = format!("node {} with {own:?} adopts a record that names {named:?}", node + 1);
            self.fail("a wiped disk takes no part", what);
        }
        if let Some(adopted) = self.adopted.filter(|adopted| *adopted != record.cluster_id()) {
            let what = format!("node {} adopts {} after {adopted} was adopted", node + 1, record.cluster_id());
            self.fail("at most one founding record is in force", what);
        }
        if node > 0 {
            self.adopted = Some(record.cluster_id());
        }
    }

    /// What a node ends for is true.
    pub(super) fn check_sentence(&mut self, node: usize, sentence: &str) {
        let id = NodeId(node as u64 + 1);
        let current = self.machines[node].member.as_ref().map(Member::incarnation);
        let named_otherwise = |machine: &Machine| {
            let named = machine.on_disk().and_then(|file| Some(file.record?.member(id)?.incarnation));
            named.is_some() && named != current
        };
        let wiped = is_about_a_wiped_disk(sentence) && self.machines.iter().any(named_otherwise);
        // What was said meanwhile may still be under way.
        let lately = self.put_right_at.is_some_and(|at| self.now < at + LATELY_MICROS);
        let is_otherwise = |machine: &Machine| machine.member.as_ref().is_some_and(|member| member.otherwise.is_some());
        if !wiped && !lately && !self.machines.iter().any(is_otherwise) {
            self.fail("a node ends only for a reason", format!("node {} ended: {sentence}", node + 1));
        }
    }
}

/// Whether a node that ended with this sentence was told that its disk was wiped.
pub(super) fn is_about_a_wiped_disk(sentence: &str) -> bool {
    sentence.contains("the disk was wiped or replaced")
}
