//! Damage to files, and its undoing.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a log is written in.
const SECTOR_BYTES: usize = 512;

/// A byte that was inverted.
pub(crate) struct Flip {
    path: PathBuf,
    /// Where it is in its file.
    pub(crate) offset: usize,
}

impl Flip {
    fn make(path: PathBuf, offset: usize) -> Result<Self, String> {
        let flip = Self { path, offset };
        flip.invert()?;
        Ok(flip)
    }

    /// The file's name.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Puts the byte back.
    pub(crate) fn undo(self) -> Result<(), String> {
        self.invert()
    }

    fn invert(&self) -> Result<(), String> {
        let mut bytes = read(&self.path)?;
        let byte = bytes.get_mut(self.offset).ok_or_else(|| format!("{} is shorter now", self.path.display()))?;
        *byte = !*byte;
        fs::write(&self.path, bytes).map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

/// Flips a byte that is not zero, anywhere in the files of a directory.
pub(crate) fn flip_somewhere(directory: &Path, random: &mut fastrand::Rng) -> Result<Flip, String> {
    let mut chosen = None;
    let mut so_far = 0;
    for path in files_below(directory)? {
        let used = used(&path)?;
        so_far += used.len();
        // Each byte of all files is as likely as any other.
        if !used.is_empty() && random.usize(0..so_far) < used.len() {
            chosen = Some((path, used[random.usize(0..used.len())]));
        }
    }
    let (path, offset) = chosen.ok_or_else(|| format!("{} holds nothing to flip", directory.display()))?;
    Flip::make(path, offset)
}

/// Flips a byte in the middle of the newest segment of a log: it is in use, and blocks follow that byte.
///
/// Every sector begins with the number of the segment that it was written for, which is also the file's name. What lies
/// in a segment from an earlier use, or in one that is given up, may be damaged without harm, and is left alone.
pub(crate) fn flip_in_the_middle(log: &Path) -> Result<Flip, String> {
    for path in files_below(log)?.into_iter().rev() {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(number) = name.parse::<u64>() else { continue };
        let bytes = read(&path)?;
        let sectors = bytes.chunks(SECTOR_BYTES).enumerate();
        let written: Vec<_> = sectors.filter(|(_, sector)| sector.starts_with(&number.to_le_bytes())).collect();
        if let Some((place, sector)) = written.get(written.len() / 2) {
            let last = sector.iter().rposition(|byte| *byte != 0).unwrap_or_default();
            return Flip::make(path, place * SECTOR_BYTES + last);
        }
    }
    Err(format!("{} holds nothing to flip", log.display()))
}

/// How many bytes the files of a directory have.
pub(crate) fn bytes_below(directory: &Path) -> Result<u64, String> {
    let sizes = files_below(directory)?.into_iter().map(|path| fs::metadata(path).map_or(0, |metadata| metadata.len()));
    Ok(sizes.sum())
}

/// All files of a directory and of those in it, by name.
fn files_below(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let named = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(named)? {
        let path = entry.map_err(named)?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

/// Where a file is not zero.
fn used(path: &Path) -> Result<Vec<usize>, String> {
    let bytes = read(path)?;
    Ok((0..bytes.len()).filter(|at| bytes[*at] != 0).collect())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
