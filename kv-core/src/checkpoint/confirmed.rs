//! Which of a replica's checkpoints a majority agreed with, kept over a start: a file whose name says it all.
//!
//! Without it a replica that starts again would have nothing to give to one that lags, until a majority agrees anew; and the
//! one that lags may be part of every majority there can be. The log is given up on the strength of a confirmed checkpoint
//! only once this is durable.
//!
//! A note stays for as long as the checkpoint can still be loaded: the newest file may turn out damaged at the next start, and
//! what is loaded then still has to be something that others may be given.

use crate::{
    disk::{DiskError, FileDisk},
    types::{Digest, LogIndex},
};

/// What the names begin with.
const PREFIX: &str = "confirmed-";

/// The name that says it of a checkpoint.
pub(super) fn confirmed_name(index: LogIndex, digest: Digest) -> String {
    format!("{PREFIX}{index}-{:032x}", digest.0)
}

/// What a name says, if it is of this kind.
fn parse(name: &str) -> Option<(LogIndex, Digest)> {
    let (index, digest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let said = (LogIndex(index.parse().ok()?), Digest(u128::from_str_radix(digest, 16).ok()?));
    (confirmed_name(said.0, said.1) == name).then_some(said)
}

/// The confirmed checkpoints of which a directory says so.
pub(super) fn read_confirmed<F: FileDisk>(
    files: &mut F,
    directory: &str,
) -> Result<Vec<(LogIndex, Digest)>, DiskError> {
    Ok(files.list(directory)?.iter().filter_map(|name| parse(name)).collect())
}

/// Notes, durably, that a checkpoint is confirmed; earlier notes go, but those of checkpoints that are still here.
pub(super) fn note_confirmed<F: FileDisk>(
    files: &mut F,
    directory: &str,
    (index, digest): (LogIndex, Digest),
    is_here: impl Fn((LogIndex, Digest)) -> bool,
) -> Result<(), DiskError> {
    let earlier = read_confirmed(files, directory)?;
    let path = format!("{directory}/{}", confirmed_name(index, digest));
    files.write(&path, 0, b"1")?;
    files.sync(&path)?;
    files.sync_directory(directory)?;
    for (index, digest) in earlier.into_iter().filter(|note| *note != (index, digest) && !is_here(*note)) {
        files.remove(&format!("{directory}/{}", confirmed_name(index, digest)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        let name = confirmed_name(LogIndex(7), Digest(0xab));
        assert_eq!(parse(&name), Some((LogIndex(7), Digest(0xab))));
        for name in ["confirmed-7-ab", "confirmed-07-000000000000000000000000000000ab", "confirmed-7", "base-7"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
