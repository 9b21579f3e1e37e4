//! Records a run while it happens: many clients of one process, one file.
//!
//! The moment of a call is taken before the call is made and that of its answer after it came, so that the interval between
//! them holds the operation. Both are taken under the lock that orders the lines of the file: event numbers rise with the lines, and
//! an answer that came before a call was made has the lower number. The lock is held for one line into a buffer, about a
//! microsecond; nothing of the run is kept in memory.

use std::{
    fs::File,
    io::{self, BufWriter},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    Answer, Call, Moment, Stamp,
    json::Writer,
    run::{About, RunEvent, What},
};

/// Records calls, answers and events; cheap to clone, one for each client task.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    writer: Writer<BufWriter<File>>,
    events: u64,
    calls: u64,
    /// The first thing that went wrong with the file: the run is worth nothing without it, and says so in the end.
    fault: Option<io::Error>,
}

/// A call that has no answer yet. Dropped without one it stays a call that never had one.
#[derive(Debug)]
#[must_use = "an answer that is not recorded is taken for one that never came"]
pub struct Recorded {
    id: u64,
}

impl Recorder {
    /// Begins a run now, in a new file at this path.
    ///
    /// # Errors
    /// If the file can't be made or written.
    pub fn start(path: &Path, about: &About) -> io::Result<Self> {
        let writer = Writer::new(BufWriter::with_capacity(1 << 20, File::create(path)?), about)?;
        let state = Mutex::new(State { writer, events: 0, calls: 0, fault: None });
        Ok(Self { shared: Arc::new(Shared { began: Instant::now(), path: path.to_owned(), state }) })
    }

    /// Microseconds since the run began.
    #[must_use]
    pub fn micros(&self) -> u64 {
        u64::try_from(self.shared.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Records a call: make it right after this.
    pub fn invoke(&self, client: u64, call: &Call) -> Recorded {
        let mut state = self.lock();
        let at = self.next(&mut state);
        let id = state.calls;
        state.calls += 1;
        let written = state.writer.invoke(id, client, call, at);
        state.note(written);
        Recorded { id }
    }

    /// Records the answer to a call: right after it came.
    pub fn complete(&self, call: Recorded, answer: &Answer, stamps: &[Stamp]) {
        let mut state = self.lock();
        let at = self.next(&mut state);
        let written = state.writer.complete(call.id, answer, stamps, at);
        state.note(written);
    }

    /// Records an event, when all is known of it: a fault when it is over.
    pub fn event(&self, event: &RunEvent) {
        let mut state = self.lock();
        let written = state.writer.event(event);
        state.note(written);
    }

    /// Records that nothing is injected any more and that what is called from now on reads every key that was written.
    pub fn final_reads(&self) {
        let mut state = self.lock();
        let at = self.next(&mut state);
        let what = What::FinalReads { event: at.event };
        let written = state.writer.event(&RunEvent { from_micros: at.micros, until_micros: None, what });
        state.note(written);
    }

    /// Writes what is in memory to the file and gives its path. Calls that are open stay open.
    ///
    /// # Errors
    /// The first thing that went wrong with the file since the start.
    pub fn finish(&self) -> io::Result<PathBuf> {
        let mut state = self.lock();
        if let Some(fault) = state.fault.take() {
            return Err(fault);
        }
        state.writer.flush()?;
        Ok(self.shared.path.clone())
    }

    fn next(&self, state: &mut State) -> Moment {
        state.events += 1;
        Moment { event: state.events, micros: self.micros() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, written: io::Result<()>) {
        if let Err(fault) = written {
            self.fault.get_or_insert(fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use kv_core::{
        command::Condition,
        error::{ErrorKind, Outcome},
        types::{Revision, Sequence, SessionId, ShardId},
    };

    use super::*;
    use crate::history::{Consistency, Mode, Name, Previous, run::Run};

    #[test]
    fn what_many_clients_record_is_a_run() {
        let directory = tempfile::tempdir().unwrap();
        let about = About { workload: "register".into(), seed: 3, ..About::default() };
        let recorder = Recorder::start(&directory.path().join("run.jsonl"), &about).unwrap();
        std::thread::scope(|scope| {
            for client in 0..4 {
                let recorder = recorder.clone();
                scope.spawn(move || (0..100).for_each(|turn| call(&recorder, client, turn)));
            }
        });
        recorder.final_reads();
        drop(recorder.invoke(9, &Call::Get { key: "k0".into(), consistency: Consistency::Linearizable }));
        let run = Run::read(BufReader::new(File::open(recorder.finish().unwrap()).unwrap())).unwrap();
        assert_eq!((run.about.workload.as_str(), run.about.seed), ("register", 3));
        let operations = run.history.operations();
        assert_eq!(operations.len(), 401);
        assert!(operations.windows(2).all(|pair| pair[0].invoked < pair[1].invoked));
        assert_eq!(operations.iter().filter(|operation| operation.completed.is_none()).count(), 1);
        assert_eq!(run.final_reads_from().map(|event| event + 1), operations.last().map(|last| last.invoked.event));
        assert_eq!(operations.iter().filter(|operation| operation.stamps.len() == 1).count(), 300);
    }

    fn call(recorder: &Recorder, client: u64, turn: u64) {
        let value = Some(Name::from(format!("v{client}.{turn}").as_str()));
        let (condition, mode) = (Condition::Always, Mode::Sync);
        let open =
            recorder.invoke(client, &Call::Write { key: "k0".into(), value, condition, return_previous: false, mode });
        if turn.is_multiple_of(4) {
            let answer = Answer::Failed { kind: ErrorKind::Timeout, outcome: Outcome::Unknown, current: None };
            return recorder.complete(open, &answer, &[]);
        }
        let stamp = Stamp { shard: ShardId(1), session: SessionId(client), sequence: Sequence(turn) };
        let answer = Answer::Written { revision: Revision(turn), previous: Previous::Untold, token: None };
        recorder.complete(open, &answer, &[stamp]);
    }
}
