//! What this process has used so far, as the system tells: for whoever measures, by metrics or by two status answers.
//!
//! Linux only. *Leaves out*: what threads that have ended waited (there are none between start and stop), and any account
//! per node where several share a process; bytes written, because Linux counts whole folios of the page cache for every small
//! write (550 KiB for a block of 6 KiB, by measurement): the node counts those of its log itself.

/// What a process has used since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessUsage {
    /// Its id.
    pub(crate) process: u64,
    /// When it started, in ticks since the system did.
    pub(crate) started: u64,
    /// Microseconds of CPU.
    pub(crate) cpu_micros: u64,
    /// How often its threads have waited.
    pub(crate) voluntary_switches: u64,
    /// Bytes of memory that it holds.
    pub(crate) resident_bytes: u64,
}

/// What this process has used; `None` where the system does not tell.
pub(crate) fn of_this_process() -> Option<ProcessUsage> {
    #[cfg(target_os = "linux")]
    {
        read().inspect_err(|error| tracing::debug!(%error, "the system does not tell what this process uses")).ok()
    }
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(target_os = "linux")]
fn read() -> procfs::ProcResult<ProcessUsage> {
    let process = procfs::process::Process::myself()?;
    let stat = process.stat()?;
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu_micros =
        u64::try_from(cpu.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(cpu.tv_nsec).unwrap_or(0) / 1_000;
    let mut voluntary_switches = 0;
    for thread in process.tasks()? {
        // A thread that ends meanwhile is not counted.
        let status = thread.and_then(|thread| thread.status());
        voluntary_switches += status.ok().and_then(|status| status.voluntary_ctxt_switches).unwrap_or(0);
    }
    Ok(ProcessUsage {
        process: u64::try_from(stat.pid).unwrap_or(0),
        started: stat.starttime,
        cpu_micros,
        voluntary_switches,
        resident_bytes: stat.rss * procfs::page_size(),
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_does_shows() {
        let before = of_this_process().expect("Linux tells");
        assert_eq!(before.process, u64::from(std::process::id()));
        assert!(before.resident_bytes > 100_000 && before.started > 0);
        let mut after = before;
        // Busy until that shows: this ends, however fast or slow the machine is.
        while after.cpu_micros == before.cpu_micros {
            after = of_this_process().expect("Linux tells");
        }
        assert!(after.cpu_micros > before.cpu_micros);
        assert_eq!((after.process, after.started), (before.process, before.started));
    }
}
