//! System calls of a running node that are tampered with, by strace, which also keeps the books: what it did not touch did not happen.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::tools::Tool;

/// A node whose system calls are tampered with until this is dropped.
#[derive(Debug)]
pub(crate) struct Tampered {
    strace: Child,
    trace: PathBuf,
}

/// How strace marks the calls that it tampered with.
const MARKS: [&str; 2] = ["(INJECTED)", "(DELAYED)"];

impl Tampered {
    /// Attaches to the process: from about now on this is injected into these calls, all of which are noted in the file.
    pub(crate) fn new(process: u32, calls: &str, injection: &str, trace: PathBuf) -> Result<Self, String> {
        let program = Tool::Strace.path().ok_or_else(|| Tool::Strace.missing().unwrap_or_default())?;
        let mut command = Command::new(program);
        command
            .args(["-f", "-qq", "-p", &process.to_string()])
            .arg("-o")
            .arg(&trace)
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{injection}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let strace = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        Ok(Self { strace, trace })
    }

    /// Lets the node go, and tells how many calls of this name were tampered with.
    pub(crate) fn end(self, call: &str) -> usize {
        let trace = self.trace.clone();
        drop(self);
        tampered_in(&trace, call)
    }
}

impl Drop for Tampered {
    fn drop(&mut self) {
        // Asked to end, it lets the node go first.
        let _asked = kill_process(Pid::from_child(&self.strace), Signal::TERM);
        let _status = self.strace.wait();
    }
}

fn tampered_in(trace: &Path, call: &str) -> usize {
    // Where strace could not attach there may be no file.
    let text = fs::read_to_string(trace).unwrap_or_default();
    let is_tampered = |line: &&str| line.contains(call) && MARKS.iter().any(|mark| line.contains(mark));
    text.lines().filter(is_tampered).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_that_were_tampered_with_count() {
        let directory = tempfile::tempdir().unwrap();
        let trace = directory.path().join("trace");
        assert_eq!(tampered_in(&trace, "fdatasync"), 0, "there is none");
        let text = "7 fdatasync(9) = 0\n\
                    7 fdatasync(9) = -1 EIO (Input/output error) (INJECTED)\n\
                    8 fdatasync(9 <unfinished ...>\n\
                    7 fsync(11) = -1 EIO (Input/output error) (INJECTED)\n\
                    8 <... fdatasync resumed>) = 0 (DELAYED)\n";
        fs::write(&trace, text).unwrap();
        assert_eq!((tampered_in(&trace, "fdatasync"), tampered_in(&trace, "sync")), (2, 3));
    }
}
