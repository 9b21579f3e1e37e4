//! Which slots are taken, and how many by which tree. It is written down nowhere but in the engine's stubs.

use std::collections::BTreeMap;

use kv_core::types::ReplicaId;

use super::{
    super::Problem,
    files::Files,
    slots::{Length, Slots},
    stub::Stub,
};

#[derive(Default)]
pub(super) struct Books {
    slots: BTreeMap<u8, Slots>,
    of_trees: BTreeMap<ReplicaId, u64>,
    /// Whether the engine was told that it may have stubs.
    pub(super) is_noted: bool,
    /// The stubs of a tree that is about to go.
    pub(super) going: Option<(ReplicaId, Vec<Stub>)>,
}

impl Books {
    /// Those of an engine, from all its stubs. Files that are longer than these need are cut.
    ///
    /// While the index is in use none is cut: after a crash the engine may hold stubs again that it had given up.
    pub(super) fn read(
        files: &Files,
        each_stub: impl FnOnce(&mut dyn FnMut(ReplicaId, Stub) -> Result<(), Problem>) -> Result<(), Problem>,
    ) -> Result<Self, Problem> {
        let mut books = Self::default();
        let in_files = Length::all().map(|length| files.slots(length)).collect::<Result<Vec<_>, _>>()?;
        each_stub(&mut |tree, stub| {
            *books.of_trees.entry(tree).or_default() += 1;
            books.slots(stub.length).claim(stub.slot, in_files[stub.length.place()])
        })?;
        for (length, in_file) in Length::all().zip(in_files) {
            let needed = books.slots(length).end();
            if needed < in_file {
                files.cut(length, needed)?;
            }
        }
        Ok(books)
    }

    fn slots(&mut self, length: Length) -> &mut Slots {
        self.slots.entry(length.number()).or_default()
    }

    /// Whether a tree has values in slots.
    pub(super) fn has(&self, tree: ReplicaId) -> bool {
        self.of_trees.contains_key(&tree)
    }

    /// A slot for a value; `None` if it is longer than any.
    pub(super) fn take(&mut self, tree: ReplicaId, value: &[u8]) -> Result<Option<Stub>, Problem> {
        let Some(length) = Length::of(value.len()) else { return Ok(None) };
        *self.of_trees.entry(tree).or_default() += 1;
        let slot = self.slots(length).take();
        Stub::new(length, slot, value).map(Some)
    }

    /// Gives slots back that no stub of the tree names any more.
    pub(super) fn give_back(&mut self, tree: ReplicaId, stubs: &[Stub]) -> Result<(), Problem> {
        stubs.iter().try_for_each(|stub| self.slots(stub.length).give_back(stub.slot))?;
        let left = self.of_trees.get(&tree).copied().unwrap_or_default().saturating_sub(stubs.len() as u64);
        match left {
            0 => self.of_trees.remove(&tree),
            left => self.of_trees.insert(tree, left),
        };
        Ok(())
    }

    /// How many slots are taken by trees, and how many of each length are.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (u64, Vec<(u8, u64)>) {
        let slots = self.slots.iter().map(|(number, slots)| (*number, slots.taken())).filter(|(_, taken)| *taken > 0);
        (self.of_trees.values().sum(), slots.collect())
    }
}
