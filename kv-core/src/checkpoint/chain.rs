//! Which files of a replica are its checkpoint: a base and the deltas that stand on it, one on the other.
//!
//! A replica's directory `r<replica>` holds sets of files, `set-<number>`; the highest number is the one that counts. A
//! checkpoint taken over from a peer is made ready as `staging-<hash>` and becomes the next set by one rename, so that a
//! crash leaves either the old files or the new ones, never a mixture.

use std::collections::BTreeMap;

use crate::{
    checkpoint::{
        format::{FileFooter, Kind},
        job::FileDescription,
        reader::{Damaged, FileEnd, read_end},
        writer::{UNFINISHED, parse_file_name},
    },
    disk::{DiskError, FileDisk},
    log::record::StagingId,
    state::record::Footer,
    types::{Digest, LogIndex, ReplicaId},
};

/// One file of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChainFile {
    pub(super) description: FileDescription,
    pub(super) kind: Kind,
    /// The state that one has with it.
    pub(super) index: LogIndex,
    pub(super) digest: Digest,
}

impl ChainFile {
    pub(super) fn new(description: FileDescription, kind: Kind, footer: &Footer) -> Self {
        Self { description, kind, index: footer.header.index, digest: footer.digest }
    }
}

/// A base and its deltas, the oldest first, and what the newest says.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) files: Vec<ChainFile>,
    pub(super) footer: Footer,
}

impl Chain {
    pub(super) fn names(&self) -> Vec<String> {
        names(&self.files)
    }
}

pub(super) fn names(files: &[ChainFile]) -> Vec<String> {
    files.iter().map(|file| file.description.name.clone()).collect()
}

/// The newest checkpoint of every replica that has one, by the ends of its files: their other bytes are not looked at, so
/// that log may be given up only once it is loaded.
///
/// # Errors
/// If directories can't be read. A file that can't be read, or whose end is damaged, counts as none.
pub fn newest_footers<F: FileDisk>(files: &mut F) -> Result<BTreeMap<ReplicaId, Footer>, DiskError> {
    let mut footers = BTreeMap::new();
    for name in files.list("")? {
        let number = name.strip_prefix('r').and_then(|number| number.parse().ok());
        let Some(replica) = number.map(ReplicaId).filter(|replica| directory(*replica) == name) else { continue };
        let Some(set) = sets(&files.list(&name)?).last().copied() else { continue };
        if let Some(chain) = chains(files, &set_directory(replica, set))?.chains.into_iter().next() {
            sync_names(files, replica, set)?;
            footers.insert(replica, chain.footer);
        }
    }
    Ok(footers)
}

/// Makes the names of a set and of its files durable: after a kill, the system may show names that the disk does not have.
pub(super) fn sync_names<F: FileDisk>(files: &mut F, replica: ReplicaId, set: u64) -> Result<(), DiskError> {
    files.sync_directory(&set_directory(replica, set))?;
    files.sync_directory(&directory(replica))?;
    files.sync_directory("")
}

/// What a set's directory holds.
pub(super) struct SetContent {
    /// Complete chains, the newest first.
    pub(super) chains: Vec<Chain>,
    /// Names of all files that are, or once were, whole.
    pub(super) names: Vec<String>,
    /// Names of files that were never finished.
    pub(super) unfinished: Vec<String>,
    /// What is wrong with those whose ends can't be read.
    pub(super) damaged: Vec<Damaged>,
}

/// Looks through a set by the ends of its files.
pub(super) fn chains<F: FileDisk>(files: &mut F, directory: &str) -> Result<SetContent, DiskError> {
    let mut content = SetContent { chains: Vec::new(), names: Vec::new(), unfinished: Vec::new(), damaged: Vec::new() };
    let mut ends = Vec::new();
    for name in files.list(directory)? {
        let Some(meant) = parse_file_name(&name) else {
            if name.ends_with(UNFINISHED) {
                content.unfinished.push(name);
            }
            continue;
        };
        match read_end(files, directory, &name) {
            Ok(end) if (end.footer.kind(), end.footer.index()) == meant => ends.push(end),
            Ok(_) => content.damaged.push(Damaged(format!("{directory}/{name} holds another file"))),
            Err(damaged) => content.damaged.push(damaged),
        }
        content.names.push(name);
    }
    // The newest first; of a base and a delta of one state the base, which needs nothing else.
    ends.sort_by_key(|end| std::cmp::Reverse((end.footer.index(), end.footer.kind())));
    content.chains = (0..ends.len()).filter_map(|newest| chain_to(&ends, newest)).collect();
    Ok(content)
}

fn chain_to(ends: &[FileEnd], newest: usize) -> Option<Chain> {
    let mut files = Vec::new();
    let mut next = Some(newest);
    while let Some(end) = next.and_then(|next| ends.get(next)) {
        let FileFooter { footer, stands_on, .. } = &end.footer;
        files.push(ChainFile::new(end.description.clone(), end.footer.kind(), footer));
        let Some((index, digest)) = *stands_on else {
            files.reverse();
            return Some(Chain { files, footer: ends[newest].footer.footer.clone() });
        };
        // What it stands on has a lower index, so that this ends.
        next = ends.iter().position(|end| (end.footer.index(), end.footer.footer.digest) == (index, digest));
    }
    None
}

/// The directory of a replica.
pub(super) fn directory(replica: ReplicaId) -> String {
    format!("r{replica}")
}

/// The directory of a set of files.
pub(super) fn set_directory(replica: ReplicaId, set: u64) -> String {
    format!("r{replica}/set-{set}")
}

/// The directory in which files from a peer are gathered.
pub(super) fn staging_directory(replica: ReplicaId, staging: StagingId) -> String {
    format!("r{replica}/{}", staging_name(staging))
}

/// Its name within the replica's directory.
pub(super) fn staging_name(staging: StagingId) -> String {
    format!("staging-{:032x}", staging.0)
}

/// The numbers of the sets among these names, ascending.
pub(super) fn sets(names: &[String]) -> Vec<u64> {
    let number = |name: &String| name.strip_prefix("set-").and_then(|number| number.parse().ok());
    let mut sets: Vec<u64> = names.iter().filter_map(number).collect();
    sets.sort_unstable();
    sets
}
