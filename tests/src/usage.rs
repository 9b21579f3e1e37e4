//! What a process holds and has used, as Linux tells it.

use std::{fs, time::Duration};

/// What a process holds now, and its CPU since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Memory.
    pub resident_bytes: u64,
    /// Open files, connections among them.
    pub files: u64,
    /// To 10 ms.
    pub cpu: Duration,
}

/// Reads it.
///
/// # Errors
/// If the process has ended.
pub fn usage(process: u32) -> Result<Usage, String> {
    let statm = read(format!("/proc/{process}/statm"))?;
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    Ok(Usage { resident_bytes: pages * rustix::param::page_size() as u64, files: files(process)?, cpu: cpu(process)? })
}

/// Its CPU since it started, of all threads that it has and had.
///
/// # Errors
/// If the process has ended.
pub fn cpu(process: u32) -> Result<Duration, String> {
    let stat = read(format!("/proc/{process}/stat"))?;
    // User and system time are fields 14 and 15, and the first is the third.
    let mut times = fields(&stat).skip(11).take(2);
    let ticks: u64 = times.by_ref().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second().max(1)))
}

/// Whether none of its threads can run because it was told to stop, by a signal or by who traces it.
///
/// # Errors
/// If the process has ended.
pub fn stands_still(process: u32) -> Result<bool, String> {
    let directory = format!("/proc/{process}/task");
    let threads = fs::read_dir(&directory).map_err(|error| format!("{directory}: {error}"))?;
    // One that ends meanwhile was not stopped.
    let mut states = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default());
    Ok(states.all(|stat| matches!(fields(&stat).next(), Some("T" | "t"))))
}

/// What a `stat` says from its third field on, the state: after the name in parentheses, which may hold anything.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

fn read(path: String) -> Result<String, String> {
    fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
}

/// How many files a process has open. Linux tells it as the size of the directory since 6.2; before it they are counted, which
/// for 10,000 takes as long as an honest call may wait.
fn files(process: u32) -> Result<u64, String> {
    let directory = format!("/proc/{process}/fd");
    let told = fs::metadata(&directory).map_err(|error| error.to_string())?.len();
    if told > 0 { Ok(told) } else { Ok(fs::read_dir(&directory).map_err(|error| error.to_string())?.count() as u64) }
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        thread,
        time::{Duration, Instant},
    };

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    #[test]
    fn a_process_that_is_stopped_stands_still_and_uses_nothing() {
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let (id, began) = (child.id(), Instant::now());
        let wait = |is: &dyn Fn() -> bool| {
            while !is() {
                assert!(began.elapsed() < Duration::from_secs(60), "it did not come to that");
                thread::sleep(Duration::from_millis(5));
            }
        };
        wait(&|| cpu(id).unwrap() > Duration::ZERO);
        assert!(!stands_still(id).unwrap());
        kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
        wait(&|| stands_still(id).unwrap());
        let before = cpu(id).unwrap();
        thread::sleep(Duration::from_millis(50));
        assert_eq!(cpu(id).unwrap(), before);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(stands_still(id).is_err(), "it is no more");
    }

    #[test]
    fn this_process_holds_something() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.resident_bytes > 100_000 && usage.files >= 3, "{usage:?}");
    }
}
