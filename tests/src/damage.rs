//! Bits that flip in the files of a node that is down, and their undoing.
//!
//! Any bit of what is in use is as likely as any other, or it is one in the middle of the log, which must be found out at a start.
//! *Left out*: flips under a running node, in memory, or in what was never written.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// What a log is written in.
const SECTOR_BYTES: usize = 512;

/// A bit that was flipped.
#[derive(Debug)]
pub struct Flip {
    /// The file.
    pub path: PathBuf,
    /// Which of its bytes holds the bit.
    pub offset: usize,
    bit: u8,
    /// What the byte is since.
    now: u8,
}

impl Flip {
    /// The file's name.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Flips it back.
    ///
    /// # Errors
    /// If the file can't be read or written there.
    pub fn undo(self) -> Result<(), String> {
        Self::make(&self.path, self.offset, self.bit).map(drop)
    }

    /// Whether the bit stands in the file as it was flipped.
    ///
    /// # Errors
    /// If the file can't be read there.
    pub fn is_there(&self) -> Result<bool, String> {
        let mut byte = [0];
        let read = File::open(&self.path).and_then(|file| file.read_exact_at(&mut byte, self.offset as u64));
        read.map_err(|error| format!("{}: {error}", self.path.display())).map(|()| byte[0] == self.now)
    }

    fn make(path: &Path, offset: usize, bit: u8) -> Result<Self, String> {
        let named = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = File::options().read(true).write(true).open(path).map_err(named)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset as u64).map_err(named)?;
        let now = byte[0] ^ (1 << bit);
        file.write_all_at(&[now], offset as u64).map_err(named)?;
        Ok(Self { path: path.to_owned(), offset, bit, now })
    }
}

/// Flips a bit of a byte that is not zero, each byte of all files as likely as any other. `None` if there is none.
///
/// # Errors
/// If a file can't be read or written.
pub fn flip_somewhere(files: &[PathBuf], random: &mut fastrand::Rng) -> Result<Option<Flip>, String> {
    let mut chosen = None;
    let mut so_far = 0;
    for path in files {
        let bytes = read(path)?;
        let used: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        so_far += used.len();
        if !used.is_empty() && random.usize(0..so_far) < used.len() {
            chosen = Some((path, used[random.usize(0..used.len())]));
        }
    }
    let Some((path, offset)) = chosen else { return Ok(None) };
    Flip::make(path, offset, random.u8(0..8)).map(Some)
}

/// Flips a bit in the middle of the newest segment of a log: it is in use, and blocks follow it. `None` if nothing is written.
///
/// Every sector begins with the number of the segment that it was written for, which is also the file's name. What lies
/// in a segment from an earlier use, or in one that is given up, may be damaged without harm, and is left alone.
///
/// # Errors
/// If a file can't be read or written.
pub fn flip_in_the_log(files: &[PathBuf]) -> Result<Option<Flip>, String> {
    for path in files.iter().rev() {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(number) = name.parse::<u64>() else { continue };
        let bytes = read(path)?;
        let sectors = bytes.chunks(SECTOR_BYTES).enumerate();
        let written: Vec<_> = sectors.filter(|(_, sector)| sector.starts_with(&number.to_le_bytes())).collect();
        if let Some((place, sector)) = written.get(written.len() / 2) {
            let last = sector.iter().rposition(|byte| *byte != 0).unwrap_or_default();
            return Flip::make(path, place * SECTOR_BYTES + last, 0).map(Some);
        }
    }
    Ok(None)
}

/// All files of a directory and of those in it, by name.
///
/// # Errors
/// If a directory can't be read.
pub fn files_below(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let named = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(named)? {
        let path = entry.map_err(named)?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

/// How many bytes the files of a directory have.
///
/// # Errors
/// If a directory can't be read.
pub fn bytes_below(directory: &Path) -> Result<u64, String> {
    let sizes = files_below(directory)?.into_iter().map(|path| fs::metadata(path).map_or(0, |metadata| metadata.len()));
    Ok(sizes.sum())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: u64) -> Vec<u8> {
        let mut bytes = vec![0; 5 * SECTOR_BYTES];
        for sector in bytes.chunks_mut(SECTOR_BYTES).take(4) {
            sector[..8].copy_from_slice(&number.to_le_bytes());
            sector[8..20].fill(7);
        }
        bytes
    }

    #[test]
    fn one_bit_of_what_is_in_use_flips_and_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("log");
        fs::create_dir(&below).unwrap();
        // The newest holds nothing of its own number yet.
        for (number, written) in [(2, 2), (3, 3), (4, 3)] {
            fs::write(below.join(format!("{number:020}.log")), segment(written)).unwrap();
        }
        let files = files_below(directory.path()).unwrap();
        assert_eq!((files.len(), bytes_below(directory.path()).unwrap()), (3, 3 * 5 * SECTOR_BYTES as u64));
        let random = &mut fastrand::Rng::with_seed(1);
        let whole = |path: &Path| fs::read(path).unwrap();
        let before: Vec<_> = files.iter().map(|path| whole(path)).collect();
        for in_log in [true, false] {
            let made = if in_log { flip_in_the_log(&files) } else { flip_somewhere(&files, random) };
            let flip = made.unwrap().unwrap();
            let place = files.iter().position(|path| *path == flip.path).unwrap();
            assert!(!in_log || (place, flip.offset) == (1, 2 * SECTOR_BYTES + 19), "{flip:?}");
            let after = whole(&flip.path);
            let differ: u32 = before[place].iter().zip(&after).map(|(old, new)| (old ^ new).count_ones()).sum();
            assert_eq!((differ, before[place][flip.offset] == 0), (1, false));
            assert!(flip.is_there().unwrap());
            fs::write(&flip.path, &before[place]).unwrap();
            assert!(!flip.is_there().unwrap());
            fs::write(&flip.path, &after).unwrap();
            flip.undo().unwrap();
            assert_eq!(files.iter().map(|path| whole(path)).collect::<Vec<_>>(), before);
        }
        assert!(flip_somewhere(&[], random).unwrap().is_none());
        assert!(flip_in_the_log(&files[2..]).unwrap().is_none());
    }
}
