//! System calls of a running node that are tampered with, by strace.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::tools::Tool;

/// A node whose system calls are tampered with until this is dropped.
#[derive(Debug)]
pub(crate) struct Tampered {
    strace: Child,
}

impl Tampered {
    /// Attaches to the process: from about now on this is injected into these calls.
    pub(crate) fn new(process: u32, calls: &str, injection: &str) -> Result<Self, String> {
        let program = Tool::Strace.path().ok_or_else(|| Tool::Strace.missing().unwrap_or_default())?;
        let mut command = Command::new(program);
        command
            .args(["-f", "-qq", "-o", "/dev/null", "-p", &process.to_string()])
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{injection}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let strace = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        Ok(Self { strace })
    }
}

impl Drop for Tampered {
    fn drop(&mut self) {
        // Asked to end, it lets the node go first.
        let _asked = kill_process(Pid::from_child(&self.strace), Signal::TERM);
        let _status = self.strace.wait();
    }
}
