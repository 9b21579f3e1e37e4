//! The index on sled.
//!
//! Only plain inserts and removes: sled's batches stop every reader in the process behind one static lock. sled flushes when
//! it is dropped and when its own buffers are full, never on a timer: its syncs would compete with the log's.
//!
//! Records stand in [`blocks`]: sled makes a whole page anew for each thing that is put into it, which for single records of a
//! checkpoint, one beside the other, was most of what the checkpoint cost. It is only ever searched forwards: its way back loses
//! itself among keys with many bytes of 255.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use kv_core::{disk::Change, types::ReplicaId};
use sled::IVec;

use super::{
    CACHE_BYTES, Call, Database, Problem,
    blocks::{self, Merged},
    tree_name, tree_replica,
};

pub(super) struct SledEngine {
    database: sled::Db,
    trees: BTreeMap<ReplicaId, BlockTree>,
}

impl SledEngine {
    pub(super) fn open(directory: &Path) -> Result<Self, Problem> {
        let configuration = sled::Config::new().path(directory).cache_capacity(CACHE_BYTES as u64).flush_every_ms(None);
        let database = configuration.open()?;
        let mut trees = BTreeMap::new();
        for name in database.tree_names() {
            if let Some(replica) = std::str::from_utf8(&name).ok().and_then(tree_replica) {
                trees.insert(replica, BlockTree::new(database.open_tree(name)?));
            }
        }
        Ok(Self { database, trees })
    }

    fn tree(&self, tree: ReplicaId) -> Result<&BlockTree, Problem> {
        self.trees.get(&tree).ok_or(Problem::NoTree)
    }
}

impl Database for SledEngine {
    fn trees(&self) -> Vec<ReplicaId> {
        self.trees.keys().copied().collect()
    }

    fn get(&self, tree: ReplicaId, key: &[u8]) -> Result<Option<Bytes>, Problem> {
        self.tree(tree)?.get(key)
    }

    fn get_many(&self, tree: ReplicaId, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Problem> {
        self.tree(tree)?.get_many(keys)
    }

    fn range(&self, tree: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, Problem> {
        self.tree(tree)?.range(from, count_max)
    }

    fn each(&self, tree: ReplicaId, call: &mut Call<'_>) -> Result<(), Problem> {
        self.tree(tree)?.each(call)
    }

    fn write(&self, tree: ReplicaId, changes: &[Change<'_>]) -> Result<(), Problem> {
        self.tree(tree)?.write(changes)
    }

    fn reset(&mut self, tree: ReplicaId) -> Result<(), Problem> {
        self.remove(tree)?;
        self.trees.insert(tree, BlockTree::new(self.database.open_tree(tree_name(tree))?));
        Ok(())
    }

    fn remove(&mut self, tree: ReplicaId) -> Result<(), Problem> {
        self.trees.remove(&tree);
        self.database.drop_tree(tree_name(tree))?;
        Ok(())
    }

    fn may_have_stubs(&self) -> Result<bool, Problem> {
        Ok(self.database.contains_key(HAS_STUBS)?)
    }

    fn note_stubs(&self) -> Result<(), Problem> {
        // sled's log has this before what is written after it.
        self.database.insert(HAS_STUBS, &[])?;
        Ok(())
    }
}

/// A key of sled's own tree.
const HAS_STUBS: &[u8] = b"has stubs";

/// A tree of blocks by their bounds. One thread writes, and asks for ranges and for many records; others may look single ones up meanwhile.
struct BlockTree {
    tree: sled::Tree,
    /// Grows with each block that has been put where another holds, or held, the same records.
    moves: AtomicU64,
    /// Whether each record is in one block only. Not so after a crash, until the tree is first asked for something.
    is_settled: AtomicBool,
    settling: Mutex<()>,
}

impl BlockTree {
    fn new(tree: sled::Tree) -> Self {
        Self { tree, moves: AtomicU64::new(0), is_settled: AtomicBool::new(false), settling: Mutex::new(()) }
    }

    /// A crash can leave a block as it was beside some that were to take its place. What these have is taken from it: else an old
    /// record would show when the new one goes. Before this nothing is read, nor written. It reads the whole tree, in one step of the
    /// worker: 5,000 blocks of a tree of 80,000 records.
    fn settle(&self) -> Result<(), Problem> {
        if self.is_settled.load(Ordering::SeqCst) {
            return Ok(());
        }
        let _one = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_settled.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut overlapping = Vec::new();
        let mut before: Option<IVec> = None;
        for entry in &self.tree {
            let (bound, block) = entry?;
            let keys = blocks::records(&block).map(|record| record.map(|(key, _)| key));
            let keys: Vec<&[u8]> = keys.collect::<Result<_, _>>()?;
            if !keys.is_sorted_by(|key, next| key < next) || keys.last().is_none_or(|last| *last > &bound[..]) {
                return Err(Problem::Failed("a block holds what does not belong to it".to_owned()));
            }
            let stale = before.map_or(0, |before| keys.partition_point(|key| *key <= &before[..]));
            if stale > 0 {
                overlapping.push((bound.clone(), block.clone(), stale));
            }
            before = Some(bound);
        }
        for (bound, block, stale) in overlapping {
            let keys = blocks::records(&block).take(stale);
            let gone: Vec<Change<'_>> = keys.map(|record| Ok((record?.0, None))).collect::<Result<_, Problem>>()?;
            self.replace(&bound, &Merged::new(&block, &gone)?)?;
        }
        self.is_settled.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Problem> {
        self.settle()?;
        loop {
            let moves = self.moves.load(Ordering::SeqCst);
            if let Some((_, block)) = self.tree.range(key..).next().transpose()?
                && let Some(value) = blocks::find(&block, key)?
            {
                return Ok(Some(Bytes::copy_from_slice(value)));
            }
            // sled may have passed by where the record is now before it was there, and come to where it was when it had left.
            if self.moves.load(Ordering::SeqCst) == moves {
                return Ok(None);
            }
        }
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Problem> {
        self.settle()?;
        let mut found = Vec::with_capacity(keys.len());
        // The block in which the last key is, or would be, and the key.
        let mut last: Option<(&[u8], IVec, IVec)> = None;
        for key in keys {
            let (bound, block) = match last {
                Some((before, bound, block)) if before <= *key && **key <= bound[..] => (bound, block),
                _ => self.tree.range(*key..).next().transpose()?.unwrap_or_default(),
            };
            found.push(blocks::find(&block, key)?.map(Bytes::copy_from_slice));
            last = Some((key, bound, block));
        }
        Ok(found)
    }

    fn each(&self, call: &mut Call<'_>) -> Result<(), Problem> {
        self.settle()?;
        for entry in &self.tree {
            for record in blocks::records(&entry?.1) {
                let (key, value) = record?;
                call(key, value)?;
            }
        }
        Ok(())
    }

    fn range(&self, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, Problem> {
        self.settle()?;
        let mut found: Vec<(Bytes, Bytes)> = Vec::new();
        for entry in self.tree.range(from..) {
            let (_, block) = entry?;
            for record in blocks::records(&block) {
                let (key, value) = record?;
                if found.len() >= count_max {
                    return Ok(found);
                }
                if found.last().is_some_and(|(last, _)| last >= key) {
                    return Err(Problem::Failed("a record is in two blocks".to_owned()));
                }
                if key >= from {
                    found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                }
            }
        }
        Ok(found)
    }

    fn write(&self, changes: &[Change<'_>]) -> Result<(), Problem> {
        self.settle()?;
        let mut left = changes;
        // The block that was changed last, and those after it.
        let mut last: Option<(IVec, sled::Iter)> = None;
        while let Some((key, _)) = left.first() {
            if *key > blocks::LAST {
                return Err(Problem::Failed("no record has a key above 255".to_owned()));
            }
            let next = match &mut last {
                Some((bound, after)) if bound[..] < **key => after.next().transpose()?,
                _ => None,
            };
            let (bound, block) = match next {
                // Where much is changed at once.
                Some(next) if **key <= next.0[..] => next,
                _ => {
                    let mut from = self.tree.range(*key..);
                    let found = from.next().transpose()?;
                    let (bound, block) = found.unwrap_or_else(|| (blocks::LAST.into(), IVec::default()));
                    last = Some((bound.clone(), from));
                    (bound, block)
                }
            };
            let follows = |pair: &&[Change<'_>]| pair[0].0 < pair[1].0 && *pair[1].0 <= bound[..];
            let (changed, rest) = left.split_at(1 + left.windows(2).take_while(follows).count());
            self.replace(&bound, &Merged::new(&block, changed)?)?;
            left = rest;
            last = last.map(|(_, after)| (bound, after));
        }
        Ok(())
    }

    /// Puts blocks in the place of one, in their order: whoever reads meanwhile finds what it held in that one or in another.
    fn replace(&self, bound: &[u8], merged: &Merged) -> Result<(), Problem> {
        let mut blocks = merged.blocks();
        let Some((_, last)) = blocks.pop() else {
            self.tree.remove(bound)?;
            return Ok(());
        };
        for (key, block) in &blocks {
            self.tree.insert(key, *block)?;
            // Before the next one: that may be what a reader comes to who was where this one is before it was there.
            self.moves.fetch_add(1, Ordering::SeqCst);
        }
        self.tree.insert(bound, last)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn tree(directory: &Path) -> BlockTree {
        let database = sled::Config::new().path(directory).flush_every_ms(None).open().unwrap();
        BlockTree::new(database.open_tree("records").unwrap())
    }

    fn change<'a>((key, value): &'a (Vec<u8>, Option<Vec<u8>>)) -> Change<'a> {
        (key, value.as_deref())
    }

    #[test]
    fn it_holds_what_an_ordered_map_holds() {
        for seed in 0..4 {
            let directory = tempfile::tempdir().unwrap();
            let tree = tree(directory.path());
            let mut model = BTreeMap::new();
            let mut random = fastrand::Rng::with_seed(seed);
            let keys = [50, 1_000, 5_000, 5_000][usize::try_from(seed).unwrap()];
            // Many bytes of 255 behind a common first one, and keys of which one begins another.
            let key = |number: u32| [&b"k\xff\xff\xff\xff\xff\xff"[..], number.to_string().as_bytes()].concat();
            for round in 0..60 {
                let mut changes: Vec<_> = (0..random.usize(0..200))
                    .map(|_| {
                        let length = if random.u8(0..50) == 0 { 9_000 } else { random.usize(0..300) };
                        let value = (random.u8(0..10) > round / 20).then(|| vec![random.u8(..); length]);
                        (key(random.u32(0..keys)), value)
                    })
                    .collect();
                // As checkpoints write them; and in whatever order, with keys that come twice.
                if round % 3 > 0 {
                    changes.sort_by(|a, b| a.0.cmp(&b.0));
                    changes.dedup_by(|a, b| a.0 == b.0);
                }
                tree.write(&changes.iter().map(change).collect::<Vec<_>>()).unwrap();
                for (key, value) in changes {
                    match value {
                        Some(value) => model.insert(key, value),
                        None => model.remove(&key),
                    };
                }
                let (number, count) = (random.u32(0..keys), random.usize(0..300));
                assert_eq!(tree.get(&key(number)).unwrap().as_deref(), model.get(&key(number)).map(Vec::as_slice));
                let found = tree.range(&key(number), count).unwrap();
                assert!(
                    found
                        .iter()
                        .map(|(key, value)| (&key[..], &value[..]))
                        .eq(model.range(key(number)..).take(count).map(|(key, value)| (&key[..], &value[..])))
                );
            }
            // In whatever order, some twice; then ascending.
            let numbers: Vec<u32> = (0..keys).chain(0..9).collect();
            let many: Vec<_> = numbers.iter().map(|number| key(*number)).collect();
            let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
            let found = tree.get_many(&many).unwrap();
            assert!(found.iter().zip(&many).all(|(value, key)| value.as_deref() == model.get(*key).map(Vec::as_slice)));
            let mut sorted = many.clone();
            sorted.sort_unstable();
            let found = tree.get_many(&sorted).unwrap();
            assert!(
                found.iter().zip(&sorted).all(|(value, key)| value.as_deref() == model.get(*key).map(Vec::as_slice))
            );
            for number in 0..keys {
                assert_eq!(tree.get(&key(number)).unwrap().as_deref(), model.get(&key(number)).map(Vec::as_slice));
            }
            let all = tree.range(b"", usize::MAX).unwrap();
            assert!(
                all.iter()
                    .map(|(key, value)| (&key[..], &value[..]))
                    .eq(model.iter().map(|(key, value)| (&key[..], &value[..])))
            );
            let blocks = tree.tree.iter().count();
            assert!(blocks < 2 + model.len() / 3, "{blocks} blocks of {} records", model.len());
        }
    }

    #[test]
    fn keys_that_no_record_has_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let tree = tree(directory.path());
        assert!(tree.write(&[(b"a", Some(b"1")), (b"\xff\x00", Some(b"1"))]).is_err());
        assert_eq!(tree.get(b"a").unwrap(), Some(Bytes::from("1")));
    }

    #[test]
    fn a_cut_that_a_crash_interrupts_is_undone_before_anything_is_asked() {
        let key = |number: usize| format!("key{number:03}").into_bytes();
        let old: Vec<_> = (0..30).map(|number| (key(2 * number), Some(vec![1; 100]))).collect();
        // Twice as many, and those that were there have other values.
        let new: Vec<_> = (0..100).map(|number| (key(number), Some(vec![2; 100]))).collect();
        let new: Vec<_> = new.iter().map(change).collect();
        let merged = |block: &[u8]| Merged::new(block, &new).unwrap();
        let pieces = merged(&[]).blocks().len();
        for done in 0..pieces {
            let directory = tempfile::tempdir().unwrap();
            let tree = tree(directory.path());
            tree.write(&old.iter().map(change).collect::<Vec<_>>()).unwrap();
            for (bound, block) in merged(&[]).blocks().iter().take(done) {
                tree.tree.insert(bound, *block).unwrap();
            }
            // Started again.
            let tree = BlockTree::new(tree.tree);
            assert!(tree.range(b"", 1_000).unwrap().len() >= old.len());
            let gone: Vec<Change<'_>> = new[..10].iter().map(|(key, _)| (*key, None)).collect();
            tree.write(&new).unwrap();
            tree.write(&gone).unwrap();
            for (number, (key, value)) in new.iter().enumerate() {
                let found = tree.get(key).unwrap();
                assert_eq!(found.as_deref(), value.filter(|_| number >= 10), "{done} pieces, {number}");
            }
            let left: Vec<_> = tree.range(b"", 1_000).unwrap();
            assert!(left.iter().map(|(key, value)| (&key[..], Some(&value[..]))).eq(new[10..].iter().copied()));
        }
    }

    #[test]
    fn what_does_not_belong_to_a_block_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let tree = tree(directory.path());
        let merged = Merged::new(&[], &[(b"a", Some(b"1")), (b"c", Some(b"2"))]).unwrap();
        tree.tree.insert(b"b", merged.blocks()[0].1).unwrap();
        assert!(tree.get(b"a").is_err());
        tree.tree.insert(b"b", &b"\x01"[..]).unwrap();
        assert!(tree.range(b"", 9).is_err());
        tree.tree.remove(b"b").unwrap();
        assert_eq!(tree.get(b"a").unwrap(), None);
    }

    #[test]
    fn what_is_there_is_found_while_blocks_are_cut_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let tree = tree(directory.path());
        let key = |number: u32| number.to_be_bytes();
        let kept: Vec<u32> = (0..200_000).step_by(100).collect();
        let value = [1; 100];
        for number in &kept {
            tree.write(&[(&key(*number), Some(&value))]).unwrap();
        }
        std::thread::scope(|scope| {
            for seed in 1..=2 {
                let (tree, kept) = (&tree, &kept);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..100_000 {
                        let number = kept[random.usize(0..kept.len())];
                        assert!(tree.get(&key(number)).unwrap().is_some(), "{number} is missing");
                    }
                });
            }
            let mut random = fastrand::Rng::with_seed(3);
            for _ in 0..100 {
                // Blocks are cut as more come, some into many, and are emptied again.
                for is_added in [true, false] {
                    let from = random.u32(0..190_000);
                    let step = random.usize(1..9);
                    let numbers = (from..from + 8_000).step_by(step).filter(|number| number % 100 > 0);
                    let keys: Vec<_> = numbers.map(key).collect();
                    let changes: Vec<_> = keys.iter().map(|key| (&key[..], is_added.then_some(&value[..]))).collect();
                    tree.write(&changes).unwrap();
                }
            }
        });
    }
}
