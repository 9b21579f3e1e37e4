//! What has to be looked at every second or so.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kv_core::io::Input;
use tokio::time::{MissedTickBehavior, interval};

use crate::{inbox::Event, shared::Shared};

/// How often the disk's free space is looked at. The kernel knows it without asking the disk.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tells the node how much space is left on the disk of its data directory, and keeps the metrics tidy.
pub(crate) async fn watch_disk(data: PathBuf, shared: Arc<Shared>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut is_told = true;
    loop {
        ticks.tick().await;
        shared.metrics.upkeep();
        match rustix::fs::statvfs(&data) {
            Ok(disk) => {
                is_told = true;
                let bytes = shared.faults.disk_free(disk.f_bavail.saturating_mul(disk.f_frsize));
                shared.disk_free_bytes.store(bytes, Ordering::Relaxed);
                shared.inbox.push(Event::Input(Input::DiskFree { bytes }));
            }
            Err(error) => {
                if std::mem::take(&mut is_told) {
                    tracing::warn!(%error, path = %data.display(), "the free space can't be told");
                }
            }
        }
    }
}
