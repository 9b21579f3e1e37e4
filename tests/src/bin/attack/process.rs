//! What a process holds and has used, as Linux tells it.

use std::{fs, time::Duration};

/// What a process holds now, and its CPU since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) resident_bytes: u64,
    /// Open files, connections among them.
    pub(crate) files: u64,
    /// To 10 ms.
    pub(crate) cpu: Duration,
}

/// Reads it.
///
/// # Errors
/// If the process has ended.
pub(crate) fn usage(process: u32) -> Result<Usage, String> {
    let read = |what: &str| {
        let path = format!("/proc/{process}/{what}");
        fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
    };
    // After the name in parentheses, which may hold anything: the state is field 3, user and system time are 14 and 15.
    let stat = read("stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    let cpu_ticks = ticks(14) + ticks(15);
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let statm = read("statm")?;
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    Ok(Usage {
        resident_bytes: pages * rustix::param::page_size() as u64,
        files: files(process)?,
        cpu: Duration::from_millis(cpu_ticks * 1_000 / ticks_per_second),
    })
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
    use super::*;

    #[test]
    fn this_process_holds_something() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.resident_bytes > 100_000 && usage.files >= 3, "{usage:?}");
    }
}
