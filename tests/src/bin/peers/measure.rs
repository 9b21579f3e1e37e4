//! What processes used, and what the disk can do by itself.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::{Duration, Instant},
};

use kv_proto::v1;
use procfs::process::Process;

/// What some processes have used since they started, together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU, to 10 ms a process.
    pub(crate) cpu: Duration,
    /// How often their threads that run now have waited.
    pub(crate) voluntary_switches: u64,
    /// Memory that they hold now.
    pub(crate) resident_bytes: u64,
}

impl Usage {
    /// Reads it.
    ///
    /// # Errors
    /// If one of them has ended.
    pub(crate) fn of(processes: &[u32]) -> Result<Self, String> {
        let mut sum = Self::default();
        for process in processes {
            let one = read(*process).map_err(|error| format!("process {process} is not to be read: {error}"))?;
            sum.cpu += one.cpu;
            sum.voluntary_switches += one.voluntary_switches;
            sum.resident_bytes += one.resident_bytes;
        }
        Ok(sum)
    }

    /// What lies between; memory as it is now.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            voluntary_switches: self.voluntary_switches.saturating_sub(before.voluntary_switches),
            resident_bytes: self.resident_bytes,
        }
    }
}

/// What this process has used, as kv's servers tell it in their status.
///
/// # Errors
/// If the system does not tell.
pub(crate) fn this_process() -> Result<v1::ProcessUsage, String> {
    let process = Process::myself().and_then(|process| process.stat()).map_err(|error| error.to_string())?;
    let used = read(std::process::id()).map_err(|error| error.to_string())?;
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu_micros =
        u64::try_from(cpu.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(cpu.tv_nsec).unwrap_or(0) / 1_000;
    Ok(v1::ProcessUsage {
        process: u64::from(std::process::id()),
        started: process.starttime,
        cpu_micros,
        voluntary_switches: used.voluntary_switches,
        resident_bytes: used.resident_bytes,
    })
}

fn read(process: u32) -> procfs::ProcResult<Usage> {
    let process = Process::new(i32::try_from(process).unwrap_or(i32::MAX))?;
    let stat = process.stat()?;
    let mut voluntary_switches = 0;
    for task in process.tasks()? {
        let status = task.and_then(|task| task.status());
        voluntary_switches += status.ok().and_then(|status| status.voluntary_ctxt_switches).unwrap_or(0);
    }
    Ok(Usage {
        cpu: Duration::from_secs_f64((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64),
        voluntary_switches,
        resident_bytes: stat.rss * procfs::page_size(),
    })
}

/// The disk by itself: a block written over zeros and synced, again and again, by one thread.
const SYNC_BLOCK_BYTES: usize = 8_192;
const SYNC_FILE_BLOCKS: u64 = 1_024;
const SYNC_SECS: u64 = 3;

/// In words: how many fdatasyncs a second, and how long they take.
///
/// # Errors
/// If the file can't be written.
pub(crate) fn disk_syncs(directory: &Path) -> Result<String, String> {
    let path = directory.join("syncs");
    let mut file = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let said = sync_loop(&mut file).map_err(|error| format!("{}: {error}", path.display()));
    // A file of the run's own directory, which goes as a whole if it is a temporary one.
    std::fs::remove_file(&path).map_err(|error| error.to_string())?;
    said
}

fn sync_loop(file: &mut File) -> std::io::Result<String> {
    let block = vec![0x5a; SYNC_BLOCK_BYTES];
    file.write_all(&vec![0; SYNC_BLOCK_BYTES * SYNC_FILE_BLOCKS as usize])?;
    file.sync_all()?;
    let (began, mut micros, mut number) = (Instant::now(), Vec::new(), 0_u64);
    while began.elapsed() < Duration::from_secs(SYNC_SECS) {
        file.seek(SeekFrom::Start(number % SYNC_FILE_BLOCKS * SYNC_BLOCK_BYTES as u64))?;
        let sync = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        micros.push(sync.elapsed().as_micros());
        number += 1;
    }
    micros.sort_unstable();
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share) as usize];
    Ok(format!(
        "{:.0} writes of {SYNC_BLOCK_BYTES} B with fdatasync a second, p50 {} us, p99 {} us",
        number as f64 / began.elapsed().as_secs_f64(),
        at(0.5),
        at(0.99)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of(&[std::process::id()]).unwrap();
        assert!(usage.resident_bytes > 0);
        assert!(Usage::of(&[u32::MAX]).is_err());
    }
}
