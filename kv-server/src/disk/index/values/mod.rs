//! Long values, in files of their own beside the engine.
//!
//! An engine moves what it holds several times: sled makes a block anew for each change of a record in it, and moves what is old out of
//! the way of what is new. That is cheap for records of a hundred bytes, and was most of what a value of 1 KiB cost a node, or one of 64
//! KiB. So a user's value of 512 bytes or more is written once, to a [slot](slots) of a file, and the engine holds a [stub] that says
//! where it is and what its checksum is.
//!
//! A slot is written only while no stub in the engine names it: whoever reads a stub, then its slot, finds the value unless something
//! was written in between, which a counter tells. Then it looks again.
//!
//! Nothing is synced. After a kill the engine may be as it was a while ago, with stubs of slots that hold something else since. Those
//! belong to keys that later checkpoints changed: they get their values again from the checkpoints' files, or the tree is made anew, as
//! it is after a loss of power that took values. A value that is not what its stub says is never handed out: it is an error, and costs that
//! tree. Where it can't be told any more which slots are taken, as when a loss of power took the end of a file, the whole index is
//! given up.
//!
//! A file keeps the length that it once had until the next start, and what lies free in it is used again for values of about that length.
//! Which slots are taken is read from all trees, in one step of the checkpoint thread, before the first change after a start.

mod books;
mod files;
mod slots;
mod stub;
#[cfg(test)]
mod tests;

use std::{
    fs,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering, fence},
    },
};

use bytes::Bytes;
use kv_core::{disk::Change, state::record::SPACE_ENTRIES, types::ReplicaId};

use self::{
    books::Books,
    files::Files,
    stub::{Stub, is_long},
};
use super::{Call, Database, Problem};

/// An engine whose long values are in slots.
pub(super) struct LongValues {
    engine: Box<dyn Database>,
    files: Files,
    /// `None` until the first change.
    books: Mutex<Option<Books>>,
    /// Grows before slots are written.
    writes: AtomicU64,
}

impl LongValues {
    /// Puts long values into this directory, which is made if it does not exist. What is in it belongs to this engine.
    pub(super) fn open(engine: Box<dyn Database>, directory: &Path) -> Result<Self, Problem> {
        fs::create_dir_all(directory)?;
        let files = Files::new(directory);
        Ok(Self { engine, files, books: Mutex::new(None), writes: AtomicU64::new(0) })
    }

    /// Does something with the books, which are read if they were not yet.
    fn with_books<T>(&self, work: impl FnOnce(&mut Books) -> Result<T, Problem>) -> Result<T, Problem> {
        // A panic costs the whole index, with all that this guards.
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        work(match &mut *books {
            Some(books) => books,
            unread => unread.insert(self.read_books()?),
        })
    }

    fn read_books(&self) -> Result<Books, Problem> {
        Books::read(&self.files, |claim| {
            // Most stores have no long values: their trees need not be read for it.
            if !self.engine.may_have_stubs()? {
                return Ok(());
            }
            self.engine.trees().into_iter().try_for_each(|tree| self.each_stub(tree, &mut |stub| claim(tree, stub)))
        })
    }

    /// Calls with each stub of a tree.
    fn each_stub(&self, tree: ReplicaId, call: &mut dyn FnMut(Stub) -> Result<(), Problem>) -> Result<(), Problem> {
        let each = self.engine.each(tree, &mut |key, value| stub_of(key, value)?.map_or(Ok(()), &mut *call));
        each.map_err(|problem| match problem {
            // Whichever tree it is in: some slot is taken, and it can't be told which.
            Problem::Damaged(reason) => Problem::Failed(reason),
            other => other,
        })
    }

    /// Writes changes whose keys ascend.
    fn write_ascending(&self, books: &mut Books, tree: ReplicaId, changes: &[Change<'_>]) -> Result<(), Problem> {
        let is_long = |(key, value): &Change<'_>| value.is_some_and(|value| goes_to_a_slot(key, value));
        let has_long = changes.iter().any(is_long);
        if !has_long && !books.has(tree) {
            return self.engine.write(tree, changes);
        }
        let keys: Vec<&[u8]> = changes.iter().map(|(key, _)| *key).collect();
        let mut free = Vec::new();
        for (key, old) in keys.iter().zip(self.engine.get_many(tree, &keys)?) {
            free.extend(old.map_or(Ok(None), |old| stub_of(key, &old))?);
        }
        if has_long && !books.is_noted {
            // Before the first stub: one is never there without this.
            self.engine.note_stubs()?;
            books.is_noted = true;
        }
        let (mut values, mut stubs) = (Vec::new(), Vec::with_capacity(changes.len()));
        for (key, value) in changes {
            let long = value.filter(|value| goes_to_a_slot(key, value));
            let stub = long.map_or(Ok(None), |value| books.take(tree, value))?;
            values.extend(stub.zip(long));
            stubs.push(stub.map(|stub| stub.encode()));
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.files.write(&values)?;
        let stubs = changes.iter().zip(&stubs);
        let changes: Vec<Change<'_>> =
            stubs.map(|((key, value), stub)| (*key, stub.as_ref().map(|stub| &stub[..]).or(*value))).collect();
        self.engine.write(tree, &changes)?;
        books.give_back(tree, &free)
    }

    /// Drops what a tree holds, by this call into the engine.
    fn drop_tree(
        &mut self,
        tree: ReplicaId,
        call: impl FnOnce(&mut dyn Database) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        self.before_drop(tree)?;
        call(&mut *self.engine)?;
        self.with_books(|books| match books.going.take() {
            Some((going, stubs)) if going == tree => books.give_back(tree, &stubs),
            _ => Ok(()),
        })
    }

    /// A stub's value.
    fn value(&self, stub: Stub) -> Result<Bytes, Problem> {
        let found = self.files.read(&[stub])?.pop();
        found.filter(|value| stub.is_of(value)).ok_or_else(not_as_written)
    }

    /// Values in the place of stubs, each of the key at its place.
    fn fill<'a>(&self, keys: impl Iterator<Item = &'a [u8]>, values: &mut [Bytes]) -> Result<(), Problem> {
        let (mut places, mut stubs) = (Vec::new(), Vec::new());
        for (place, (key, value)) in keys.zip(&*values).enumerate() {
            if let Some(stub) = stub_of(key, value)? {
                places.push(place);
                stubs.push(stub);
            }
        }
        for ((place, stub), value) in places.into_iter().zip(&stubs).zip(self.files.read(&stubs)?) {
            values[place] = Some(value).filter(|value| stub.is_of(value)).ok_or_else(not_as_written)?;
        }
        Ok(())
    }

    /// Reads something, again if slots were written meanwhile.
    fn steady<T>(&self, read: impl Fn() -> Result<T, Problem>) -> Result<T, Problem> {
        loop {
            let writes = self.writes.load(Ordering::SeqCst);
            let result = read();
            fence(Ordering::SeqCst);
            if self.writes.load(Ordering::SeqCst) == writes {
                return result;
            }
        }
    }
}

fn not_as_written() -> Problem {
    Problem::Damaged("a long value is not what was written".to_owned())
}

/// Whether a key's value may have a slot: users' values alone. Sessions are long too, and every tree has some: so a tree whose users
/// have no long values costs nothing here.
fn may_be_long(key: &[u8]) -> bool {
    key.first() == Some(&SPACE_ENTRIES)
}

fn goes_to_a_slot(key: &[u8], value: &[u8]) -> bool {
    may_be_long(key) && is_long(value)
}

/// What the engine's value of a key says of its slot; `None` if it is the value itself.
fn stub_of(key: &[u8], value: &[u8]) -> Result<Option<Stub>, Problem> {
    if may_be_long(key) { Stub::decode(value) } else { Ok(None) }
}

impl Database for LongValues {
    fn trees(&self) -> Vec<ReplicaId> {
        self.engine.trees()
    }

    fn get(&self, tree: ReplicaId, key: &[u8]) -> Result<Option<Bytes>, Problem> {
        self.steady(|| {
            let Some(found) = self.engine.get(tree, key)? else { return Ok(None) };
            Ok(Some(match stub_of(key, &found)? {
                Some(stub) => self.value(stub)?,
                None => found,
            }))
        })
    }

    fn get_many(&self, tree: ReplicaId, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Problem> {
        self.steady(|| {
            let mut found = self.engine.get_many(tree, keys)?;
            let there = keys.iter().zip(&found).filter(|(_, value)| value.is_some()).map(|(key, _)| *key);
            let mut values: Vec<Bytes> = found.iter().flatten().cloned().collect();
            self.fill(there, &mut values)?;
            found.iter_mut().flatten().zip(values).for_each(|(found, value)| *found = value);
            Ok(found)
        })
    }

    fn range(&self, tree: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, Problem> {
        self.steady(|| {
            let (keys, mut values): (Vec<_>, Vec<_>) = self.engine.range(tree, from, count_max)?.into_iter().unzip();
            self.fill(keys.iter().map(|key: &Bytes| &key[..]), &mut values)?;
            Ok(keys.into_iter().zip(values).collect())
        })
    }

    fn each(&self, tree: ReplicaId, call: &mut Call<'_>) -> Result<(), Problem> {
        self.engine.each(tree, &mut |key, value| match stub_of(key, value)? {
            Some(stub) => call(key, &self.value(stub)?),
            None => call(key, value),
        })
    }

    fn write(&self, tree: ReplicaId, changes: &[Change<'_>]) -> Result<(), Problem> {
        if changes.is_empty() {
            return self.engine.write(tree, changes);
        }
        // Of keys that come twice the later one counts.
        let runs = || changes.chunk_by(|(key, _), (next, _)| key < next);
        self.with_books(|books| {
            // A tree that was to go and did not may be another one now.
            books.going = None;
            runs().try_for_each(|run| self.write_ascending(books, tree, run))
        })
    }

    fn before_drop(&self, tree: ReplicaId) -> Result<(), Problem> {
        self.with_books(|books| {
            let is_known = books.going.as_ref().is_some_and(|(going, _)| *going == tree);
            if !books.has(tree) || is_known {
                return Ok(());
            }
            let mut stubs = Vec::new();
            self.each_stub(tree, &mut |stub| {
                stubs.push(stub);
                Ok(())
            })?;
            books.going = Some((tree, stubs));
            Ok(())
        })
    }

    fn reset(&mut self, tree: ReplicaId) -> Result<(), Problem> {
        self.drop_tree(tree, |engine| engine.reset(tree))
    }

    fn remove(&mut self, tree: ReplicaId) -> Result<(), Problem> {
        self.drop_tree(tree, |engine| engine.remove(tree))
    }

    fn may_have_stubs(&self) -> Result<bool, Problem> {
        self.engine.may_have_stubs()
    }

    fn note_stubs(&self) -> Result<(), Problem> {
        self.engine.note_stubs()
    }

    fn close_files(&mut self) {
        self.files.close();
    }
}
