//! The programs of the system that faults are made with: whether they are there, and running them.
//!
//! What is missing is named with its Debian package. Nothing here is run through a shell.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A program that some fault needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tool {
    Ip,
    Nsenter,
    Setpriv,
    Iptables,
    Strace,
    Losetup,
    MkfsExt4,
    Libfaketime,
}

/// Where Debian puts the library, by the triplet of the machine.
const LIBFAKETIME: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"];

impl Tool {
    fn program(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Nsenter => "nsenter",
            Self::Setpriv => "setpriv",
            Self::Iptables => "iptables",
            Self::Strace => "strace",
            Self::Losetup => "losetup",
            Self::MkfsExt4 => "mkfs.ext4",
            Self::Libfaketime => "libfaketime.so.1",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Ip => "iproute2",
            Self::Nsenter | Self::Setpriv => "util-linux",
            Self::Iptables => "iptables",
            Self::Strace => "strace",
            Self::Losetup => "mount",
            Self::MkfsExt4 => "e2fsprogs",
            Self::Libfaketime => "libfaketime",
        }
    }

    /// Where it is.
    pub(crate) fn path(self) -> Option<PathBuf> {
        if self == Self::Libfaketime {
            return LIBFAKETIME.iter().map(PathBuf::from).find(|path| path.is_file());
        }
        let path = env::var_os("PATH").unwrap_or_default();
        // Users who are not root often lack the directories for administration.
        let further = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        env::split_paths(&path)
            .chain(further)
            .map(|directory| directory.join(self.program()))
            .find(|file| file.is_file())
    }

    /// What to say if it is not there.
    pub(crate) fn missing(self) -> Option<String> {
        let lacks = self.path().is_none();
        lacks.then(|| format!("{} is missing: apt-get install {}", self.program(), self.package()))
    }

    /// Runs it and waits: an error says what it printed.
    pub(crate) fn run(self, arguments: &[&str]) -> Result<(), String> {
        let program = self.path().ok_or_else(|| self.missing().unwrap_or_default())?;
        run(Command::new(program).args(arguments))
    }
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether there is a process of this id.
pub(crate) fn is_alive(id: u32) -> bool {
    Path::new("/proc").join(id.to_string()).exists()
}

/// Runs a command and waits for its end.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    ask(command).map(drop)
}

/// Runs a command, waits for its end, and gives what it printed.
pub(crate) fn ask(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed: {}", said.trim()))
}

/// Runs something that blocks, beside the clients.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}
