//! The log's next segment, made by a thread of its own while the log is written.
//!
//! A segment's zeros have to be on the disk before it is used, and the thread that writes the log would keep everybody waiting
//! meanwhile. The file has no segment's name until the log takes it; one that is never taken is removed at the next start.
//! Here is no word about when one is needed: that is the log's.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kv_core::disk::{DiskError, DiskErrorKind};

use super::disk_error;

/// So much is written and synced at a time: a sync of the log that comes between waits for no more than that. (Four times as much
/// costs the p99.9 of puts 3 to 5 ms, on a disk that writes a GiB a second; a pause between the pieces gains nothing.)
const PIECE_BYTES: usize = 256 * 1024;
/// For want of room it is not tried again before: each try takes the last of the room for a moment.
const PAUSE: Duration = Duration::from_secs(1);

/// A file of zeros that is to become a segment.
#[derive(Debug)]
pub(super) struct NextSegment {
    path: PathBuf,
    bytes: u64,
    pause: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    None,
    Making { thread: JoinHandle<io::Result<File>>, stop: Arc<AtomicBool> },
    Made(File),
    Failed { error: DiskError, at: Instant },
}

impl NextSegment {
    /// None yet; when there is one, it is at this path.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, bytes: 0, pause: PAUSE, state: State::None }
    }

    /// Where the file is until it is a segment.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins to make one of this size, unless that has been done. True once [`Self::take`] has nothing to wait for.
    ///
    /// # Errors
    /// If it could not be made. For want of room it is tried again, after a pause; whatever else failed is not.
    pub(super) fn prepare(&mut self, bytes: u64) -> Result<bool, DiskError> {
        if matches!(&self.state, State::Making { thread, .. } if thread.is_finished()) {
            self.join();
        }
        match &self.state {
            State::Made(_) if self.bytes == bytes => return Ok(true),
            State::Making { .. } if self.bytes == bytes => return Ok(false),
            State::Failed { error, at } if error.kind != DiskErrorKind::Full || at.elapsed() < self.pause => {
                return Err(error.clone());
            }
            _ => {}
        }
        self.stop();
        self.bytes = bytes;
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (self.path.clone(), Arc::clone(&stop));
        let thread = thread::Builder::new().name("log-next".to_owned()).spawn(move || make(&path, bytes, &stopped));
        // Without a thread it is made when it is taken.
        let Ok(thread) = thread else { return Ok(true) };
        self.state = State::Making { thread, stop };
        Ok(false)
    }

    /// The file, made and synced, but for its name.
    ///
    /// # Errors
    /// `Full` if there is no room, and nothing of it is left then. Any other: whoever asked must stop.
    pub(super) fn take(&mut self, bytes: u64) -> Result<File, DiskError> {
        if bytes != self.bytes {
            self.stop();
        }
        self.join();
        match std::mem::replace(&mut self.state, State::None) {
            State::Made(file) => Ok(file),
            State::Failed { error, .. } if error.kind != DiskErrorKind::Full => Err(error),
            // There may be room by now, and who needs it now can't wait.
            State::None | State::Making { .. } | State::Failed { .. } => {
                make(&self.path, bytes, &AtomicBool::new(false)).map_err(|error| self.failure(&error))
            }
        }
    }

    /// Waits for the thread, if one makes it.
    fn join(&mut self) {
        if !matches!(self.state, State::Making { .. }) {
            return;
        }
        let State::Making { thread, .. } = std::mem::replace(&mut self.state, State::None) else { return };
        let made = thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes it panicked")));
        self.state = match made {
            Ok(file) => State::Made(file),
            Err(error) => State::Failed { error: self.failure(&error), at: Instant::now() },
        };
    }

    /// Has the thread end before it is done, and waits for that.
    fn stop(&mut self) {
        if let State::Making { stop, .. } = &self.state {
            stop.store(true, Relaxed);
        }
        self.join();
        self.state = State::None;
    }

    fn failure(&self, error: &io::Error) -> DiskError {
        disk_error("make the next log segment", &self.path, error)
    }
}

impl Drop for NextSegment {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Writes the zeros and syncs them. What is half made is removed.
fn make(path: &Path, bytes: u64, stop: &AtomicBool) -> io::Result<File> {
    let made = write_zeros(path, bytes, stop);
    if made.is_err() {
        // That it can't be removed matters less than why it could not be made.
        let _ = fs::remove_file(path);
    }
    made
}

fn write_zeros(path: &Path, bytes: u64, stop: &AtomicBool) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0; PIECE_BYTES];
    let mut offset = 0;
    while offset < bytes {
        if stop.load(Relaxed) {
            return Err(io::Error::other("it is not needed any more"));
        }
        let count = (bytes - offset).min(PIECE_BYTES as u64);
        file.write_all_at(&zeros[..usize::try_from(count).expect("at most a piece")], offset)?;
        file.sync_data()?;
        offset += count;
    }
    file.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = PIECE_BYTES as u64 + 512;

    fn prepared(next: &mut NextSegment) {
        while !next.prepare(BYTES).unwrap() {
            thread::yield_now();
        }
    }

    #[test]
    fn it_is_made_beside_and_taken_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut next = NextSegment::new(directory.path().join("next.new"));
        prepared(&mut next);
        assert!(next.prepare(BYTES).unwrap());
        let mut bytes = fs::read(next.path()).unwrap();
        assert!(bytes.len() as u64 == BYTES && bytes.iter().all(|byte| *byte == 0));
        // A mark tells whether what is taken is what was made.
        OpenOptions::new().write(true).open(next.path()).unwrap().write_all_at(b"mark", 512).unwrap();
        let file = next.take(BYTES).unwrap();
        assert_eq!(file.metadata().unwrap().len(), BYTES);
        file.read_exact_at(&mut bytes[..4], 512).unwrap();
        assert_eq!(&bytes[..4], b"mark");
        assert!(!next.prepare(BYTES).unwrap(), "the next one is begun");
    }

    #[test]
    fn one_that_nobody_prepared_or_of_another_size_is_made_when_it_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let mut next = NextSegment::new(directory.path().join("next.new"));
        assert_eq!(next.take(512).unwrap().metadata().unwrap().len(), 512);
        prepared(&mut next);
        assert_eq!(next.take(1_024).unwrap().metadata().unwrap().len(), 1_024);
        next.prepare(BYTES).unwrap();
        assert_eq!(next.take(BYTES).unwrap().metadata().unwrap().len(), BYTES, "one that is being made is awaited");
    }

    #[test]
    fn a_failure_is_told_and_nothing_but_want_of_room_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut next = NextSegment::new(directory.path().join("gone").join("next.new"));
        let failure = loop {
            match next.prepare(BYTES) {
                Ok(ready) => assert!(!ready),
                Err(error) => break error,
            }
            thread::yield_now();
        };
        assert_eq!(failure.kind, DiskErrorKind::NotFound);
        fs::create_dir(directory.path().join("gone")).unwrap();
        assert_eq!(next.prepare(BYTES).unwrap_err(), failure);
        assert_eq!(next.take(BYTES).unwrap_err(), failure);
    }

    #[test]
    fn want_of_room_is_told_until_a_pause_is_over_and_who_cant_wait_has_it_tried() {
        let directory = tempfile::tempdir().unwrap();
        let full = DiskError::new(DiskErrorKind::Full, "no room");
        let failed = || State::Failed { error: full.clone(), at: Instant::now() };
        let mut next = NextSegment::new(directory.path().join("next.new"));
        (next.state, next.pause) = (failed(), Duration::MAX);
        assert_eq!(next.prepare(BYTES).unwrap_err(), full);
        assert!(next.take(BYTES).is_ok());
        (next.state, next.pause) = (failed(), Duration::ZERO);
        prepared(&mut next);
    }

    #[test]
    fn whoever_gives_it_up_leaves_no_thread_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("next.new");
        let mut next = NextSegment::new(path.clone());
        assert!(!next.prepare(1 << 40).unwrap());
        drop(next);
        assert!(!path.exists());
    }
}
