//! Loading: finding a replica's newest checkpoint that is whole, and making the tree hold exactly that.
//!
//! Every file is read to its end and the digest computed from all records, so that nothing is believed that was not proven
//! in this run. The tree is then brought up by the deltas above its mark and scanned against the same digest; if anything is
//! wrong with it, it is made anew from the files and scanned again. Files that are no part of what was loaded go only after
//! it was loaded: if nothing is of use, all stays as it is.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    checkpoint::{
        chain::{Chain, chains, directory, set_directory, sets, staging_directory, staging_name, sync_names},
        confirmed::{confirmed_name, read_confirmed},
        context::{Context, Failure, Progress, ReplicaFiles, Step},
        job::CheckpointEvent,
        merge::Merge,
        reader::{Damaged, FileReader},
        tree::{Scan, mark_tree, read_mark},
    },
    disk::{FileDisk, StateStore, StoreError},
    log::record::Install,
    state::{
        digest::RecordSum,
        record::{Footer, StateHeader},
    },
    types::{Digest, LogIndex, ReplicaId, ShardId},
};

/// How often the tree is made anew before the read index is given up.
const REBUILDS_MAX: u32 = 3;

/// What is to be loaded.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) shard: ShardId,
    pub(super) replica: ReplicaId,
    pub(super) at_least: LogIndex,
    pub(super) install: Option<Install>,
    pub(super) initial: Option<StateHeader>,
}

pub(super) struct LoadTask {
    wanted: Wanted,
    set: u64,
    /// Checkpoints that the set's notes call confirmed.
    confirmed: Vec<(LogIndex, Digest)>,
    /// Checkpoints not yet tried, the newest first.
    candidates: VecDeque<Chain>,
    /// The one being tried; without files it is the initial state.
    chain: Chain,
    /// What is wrong with those that were of no use.
    reasons: Vec<String>,
    rebuilds: u32,
    phase: Phase,
}

enum Phase {
    Begin,
    /// Takes the next candidate.
    Next,
    /// Reads all files for their own sake.
    Prove(Merge),
    /// Looks where the tree stands.
    Tree,
    /// Brings deltas into the tree.
    Insert {
        next: usize,
        reader: Option<Box<FileReader>>,
    },
    /// Fills an empty tree.
    Rebuild(Option<Merge>),
    Scan(Scan),
    /// Removes what is no part of it.
    Clean(Scan),
}

impl LoadTask {
    pub(super) fn new(wanted: Wanted) -> Self {
        let chain = Chain { files: Vec::new(), footer: Footer::default() };
        let candidates = VecDeque::new();
        Self {
            wanted,
            set: 0,
            confirmed: Vec::new(),
            candidates,
            chain,
            reasons: Vec::new(),
            rebuilds: 0,
            phase: Phase::Begin,
        }
    }

    pub(super) fn step<F: FileDisk, S: StateStore>(
        &mut self,
        cx: &mut Context<F, S>,
        step: &mut Step,
    ) -> Result<Progress, Failure> {
        match self.work(cx, step) {
            // Another checkpoint may be whole, or this one's tree be made anew: only a failing disk is the end.
            Err(Failure::Files(Damaged(reason))) if !matches!(self.phase, Phase::Next) => {
                point!(OlderCheckpointTried if !self.candidates.is_empty());
                self.reasons.push(reason);
                self.phase = Phase::Next;
                Ok(Progress::More)
            }
            Err(Failure::Store(error)) => {
                self.tree_is_bad(error)?;
                Ok(Progress::More)
            }
            other => other,
        }
    }

    /// No checkpoint is of use. All files stay; an install may take their place.
    pub(super) fn failed<F, S>(&self, cx: &mut Context<F, S>, reason: &str) -> CheckpointEvent {
        let Wanted { shard, replica, .. } = self.wanted;
        let known = ReplicaFiles { set: self.set, has_failed: true, ..ReplicaFiles::default() };
        cx.replicas.insert(replica, known);
        let reasons: Vec<&str> = self.reasons.iter().map(String::as_str).chain([reason]).collect();
        CheckpointEvent::LoadFailed { shard, replica, reason: reasons.join("; ") }
    }

    fn work<F: FileDisk, S: StateStore>(
        &mut self,
        cx: &mut Context<F, S>,
        step: &mut Step,
    ) -> Result<Progress, Failure> {
        match &mut self.phase {
            Phase::Begin => self.begin(cx)?,
            Phase::Next => self.try_next(cx)?,
            Phase::Prove(_) => self.prove(cx, step)?,
            Phase::Tree => self.look_at_tree(cx)?,
            Phase::Insert { .. } => self.insert(cx, step)?,
            Phase::Rebuild(_) => self.rebuild(cx, step)?,
            Phase::Scan(_) => self.scan(cx, step)?,
            Phase::Clean(_) => {
                if !self.chain.files.is_empty() {
                    sync_names(&mut cx.files, self.wanted.replica, self.set)?;
                }
                self.clean(cx)?;
                self.loaded(cx, step);
                return Ok(Progress::Done);
            }
        }
        Ok(Progress::More)
    }

    /// Switches to an install's files if that was not done yet, and lists what there is.
    fn begin<F: FileDisk, S>(&mut self, cx: &mut Context<F, S>) -> Result<(), Failure> {
        let replica = self.wanted.replica;
        cx.offers.drop_replica(replica);
        cx.scrubs.remove(&replica);
        let had_failed = cx.replicas.remove(&replica).is_some_and(|known| known.has_failed);
        let names = cx.files.list(&directory(replica))?;
        self.set = sets(&names).last().copied().unwrap_or(0);
        let mut content = chains(&mut cx.files, &set_directory(replica, self.set))?;
        if let Some(install) = &self.wanted.install {
            // Later checkpoints may stand on the install's files already: then what is staged is of no use.
            let newest = content.chains.first().map(|chain| chain.footer.header.index);
            let is_installed = !had_failed && newest.is_some_and(|newest| newest >= install.index);
            // A directory that this run has not verified, but knows, is being filled by another stream.
            let staging = cx.stagings.get(&(replica, install.staging));
            let is_whole =
                names.contains(&staging_name(install.staging)) && staging.is_none_or(|staging| staging.is_verified);
            if is_whole && !is_installed {
                let next = set_directory(replica, self.set + 1);
                point!(InstallFinishedByLoad);
                cx.files.rename(&staging_directory(replica, install.staging), &next)?;
                cx.files.sync_directory(&directory(replica))?;
                cx.stagings.remove(&(replica, install.staging));
                self.set += 1;
                content = chains(&mut cx.files, &next)?;
            }
        }
        self.reasons.extend(content.damaged.into_iter().map(|Damaged(reason)| reason));
        self.confirmed = read_confirmed(&mut cx.files, &set_directory(replica, self.set))?;
        self.candidates = content.chains.into();
        self.phase = Phase::Next;
        Ok(())
    }

    fn try_next<F: FileDisk, S>(&mut self, cx: &mut Context<F, S>) -> Result<(), Failure> {
        while let Some(chain) = self.candidates.pop_front() {
            let header = &chain.footer.header;
            if header.index < self.wanted.at_least {
                break;
            }
            let install = self.wanted.install.as_ref().filter(|install| install.index == header.index);
            if install.is_some_and(|install| install.digest != chain.footer.digest) {
                self.reasons.push("the files of an install have another digest".to_owned());
                continue;
            }
            match Merge::open(&mut cx.files, &set_directory(self.wanted.replica, self.set), &chain.names()) {
                Ok(merge) => {
                    self.chain = chain;
                    self.phase = Phase::Prove(merge);
                    return Ok(());
                }
                Err(Damaged(reason)) => {
                    point!(OlderCheckpointTried if !self.candidates.is_empty());
                    self.reasons.push(reason);
                }
            }
        }
        let Wanted { at_least, install, .. } = &self.wanted;
        let at_least = *at_least;
        let is_replaced = install.is_some();
        // The log has all since the initial state: whatever became of the files, nothing is lost.
        if let Some(initial) = self.wanted.initial.take_if(|initial| initial.index >= at_least && !is_replaced) {
            point!(BeganFromTheLogAlone if !self.reasons.is_empty());
            let digest = RecordSum::default().digest(&initial);
            self.chain = Chain { files: Vec::new(), footer: Footer { header: initial, digest } };
            self.phase = Phase::Rebuild(None);
            return Ok(());
        }
        Err(Failure::Files(Damaged(format!("no checkpoint at or above index {at_least} can be read"))))
    }

    fn prove<F: FileDisk, S>(&mut self, cx: &mut Context<F, S>, step: &mut Step) -> Result<(), Failure> {
        let Phase::Prove(merge) = &mut self.phase else { return Ok(()) };
        let mut slice = cx.slice();
        let is_end = merge.slice(&mut cx.files, &mut slice, &mut Vec::new())?;
        slice.report(step);
        if is_end {
            if merge.digest(&self.chain.footer.header) != self.chain.footer.digest {
                let index = self.chain.footer.header.index;
                return Err(Damaged(format!("the files of checkpoint {index} do not add up to its digest")).into());
            }
            self.phase = Phase::Tree;
        }
        Ok(())
    }

    fn look_at_tree<F, S: StateStore>(&mut self, cx: &mut Context<F, S>) -> Result<(), Failure> {
        let mark = read_mark(&cx.store, self.wanted.replica)?;
        let stands_at = mark.and_then(|mark| self.chain.files.iter().position(|file| file.index == mark));
        self.phase = match stands_at {
            Some(at) => Phase::Insert { next: at + 1, reader: None },
            None => {
                point!(TreeRebuilt);
                Phase::Rebuild(None)
            }
        };
        Ok(())
    }

    fn insert<F: FileDisk, S: StateStore>(&mut self, cx: &mut Context<F, S>, step: &mut Step) -> Result<(), Failure> {
        let replica = self.wanted.replica;
        let Phase::Insert { next, reader } = &mut self.phase else { return Ok(()) };
        let Some(file) = self.chain.files.get(*next) else {
            mark_tree(&cx.store, replica, self.chain.footer.header.index)?;
            self.phase = Phase::Scan(Scan::new());
            return Ok(());
        };
        if reader.is_none() {
            point!(TreeWasBehind);
            let directory = set_directory(replica, self.set);
            *reader = Some(Box::new(FileReader::open(&mut cx.files, &directory, &file.description.name)?));
        }
        let open = reader.as_mut().expect("it was opened above");
        let mut slice = cx.slice();
        let mut records = Vec::new();
        while !slice.is_full() {
            let Some((key, value)) = open.advance(&mut cx.files)? else { break };
            slice.count(&key, value.as_deref());
            records.push((key, value));
        }
        let changes: Vec<_> = records.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        cx.store.write(replica, &changes)?;
        slice.report(step);
        if !slice.is_full() {
            (*next, *reader) = (*next + 1, None);
        }
        Ok(())
    }

    fn rebuild<F: FileDisk, S: StateStore>(&mut self, cx: &mut Context<F, S>, step: &mut Step) -> Result<(), Failure> {
        let replica = self.wanted.replica;
        let Phase::Rebuild(merge) = &mut self.phase else { return Ok(()) };
        let Some(merge) = merge else {
            cx.store.reset(replica)?;
            let directory = set_directory(replica, self.set);
            *merge = Some(Merge::open(&mut cx.files, &directory, &self.chain.names())?);
            return Ok(());
        };
        let mut slice = cx.slice();
        let mut live: Vec<(Bytes, Bytes)> = Vec::new();
        let is_end = merge.slice(&mut cx.files, &mut slice, &mut live)?;
        let changes: Vec<_> = live.iter().map(|(key, value)| (&key[..], Some(&value[..]))).collect();
        cx.store.write(replica, &changes)?;
        slice.report(step);
        if is_end {
            mark_tree(&cx.store, replica, self.chain.footer.header.index)?;
            self.phase = Phase::Scan(Scan::new());
        }
        Ok(())
    }

    fn scan<F, S: StateStore>(&mut self, cx: &mut Context<F, S>, step: &mut Step) -> Result<(), Failure> {
        let Phase::Scan(scan) = &mut self.phase else { return Ok(()) };
        let mut slice = cx.slice();
        let is_end = scan.slice(&cx.store, self.wanted.replica, &mut slice)?;
        slice.report(step);
        if is_end {
            if scan.digest(&self.chain.footer.header) != self.chain.footer.digest {
                point!(TreeLied);
                return Err(StoreError("it does not hold what the checkpoint does".to_owned()).into());
            }
            let scan = std::mem::replace(scan, Scan::new());
            self.phase = Phase::Clean(scan);
        }
        Ok(())
    }

    fn tree_is_bad(&mut self, error: StoreError) -> Result<(), Failure> {
        point!(TreeFailed);
        if self.rebuilds >= REBUILDS_MAX {
            return Err(error.into());
        }
        self.rebuilds += 1;
        self.phase = Phase::Rebuild(None);
        Ok(())
    }

    /// Removes all files of the replica but those of the checkpoint that was loaded, and stagings that nobody fills.
    fn clean<F: FileDisk, S>(&mut self, cx: &mut Context<F, S>) -> Result<(), Failure> {
        let replica = self.wanted.replica;
        let root = directory(replica);
        let set = format!("set-{}", self.set);
        for name in cx.files.list(&root)? {
            let is_filled = cx.stagings.keys().any(|(of, id)| *of == replica && staging_name(*id) == name);
            if name != set && !is_filled {
                cx.files.remove(&format!("{root}/{name}"))?;
            }
        }
        let mut keep = self.chain.names();
        keep.extend(self.confirmed().map(|(index, digest)| confirmed_name(*index, *digest)));
        for name in cx.files.list(&set_directory(replica, self.set))? {
            if !keep.contains(&name) {
                cx.files.remove(&format!("{root}/{set}/{name}"))?;
            }
        }
        Ok(())
    }

    /// Those of the checkpoints loaded that are noted as confirmed.
    fn confirmed(&self) -> impl Iterator<Item = &(LogIndex, Digest)> {
        let is_here =
            |note: &&(LogIndex, Digest)| self.chain.files.iter().any(|file| (file.index, file.digest) == **note);
        self.confirmed.iter().filter(is_here)
    }

    fn loaded<F, S>(&mut self, cx: &mut Context<F, S>, step: &mut Step) {
        let confirmed = self.confirmed().map(|(index, _)| *index).max();
        let Phase::Clean(scan) = &mut self.phase else { return };
        let Wanted { shard, replica, .. } = self.wanted;
        let footer = self.chain.footer.clone();
        let files = std::mem::take(&mut self.chain.files);
        let checkpoints = files.iter().map(|file| (file.index, file.digest)).collect();
        cx.replicas.insert(
            replica,
            ReplicaFiles {
                set: self.set,
                files,
                footer: footer.clone(),
                confirmed: confirmed.unwrap_or_default(),
                inserted: footer.header.index,
                is_loaded: true,
                has_failed: false,
            },
        );
        let (sessions, nodes) = (std::mem::take(&mut scan.sessions), std::mem::take(&mut scan.nodes));
        step.events.push(CheckpointEvent::Loaded { shard, replica, footer, checkpoints, confirmed, sessions, nodes });
    }
}
