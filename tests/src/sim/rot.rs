//! What rots on disks: bits of logs and checkpoint files, sectors of logs, records of the read index.
//!
//! *Left out*: sectors lost in the last blocks of a log, which is the one hole of the log's rule, and a second rotten bit in one
//! log, which can make a block look torn.

use super::{faults::Kind, world::World};
use crate::disk::SECTOR_BYTES;

/// About how many bytes of a block's first sector are its stamp and header.
const BLOCK_HEADER_BYTES: usize = 48;

/// No sector is lost in a log's last blocks.
const BLOCKS_NEAR_END: u32 = 3;

/// Segment epoch and block number: the stamp with which every sector of a log begins.
fn stamp(sector: &[u8]) -> (u64, u32) {
    let (epoch, number) = (sector[..8].try_into(), sector[8..12].try_into());
    (epoch.map_or(0, u64::from_le_bytes), number.map_or(0, u32::from_le_bytes))
}

impl World {
    /// Takes the node down, flips a bit, starts it again: it must repair or refuse.
    pub(super) fn rot(&mut self, node: usize, kind: Kind) {
        let atlas = &mut self.injector.atlas;
        let is_log = kind == Kind::RotLog;
        if !atlas.admits(node) || (is_log && atlas.rotten_logs.contains(&node)) {
            return;
        }
        self.stop(node, true, "crashed before a bit of it rots");
        let what = if is_log {
            self.injector.atlas.rotten_logs.push(node);
            self.damage_log(node)
        } else {
            self.machines[node].disk.damage_any("files/", &mut self.injector.rng)
        };
        self.trace.tell(self.now, || format!("rot on node {}: {what:?}", node + 1));
        let after = self.restart_delay();
        self.schedule_start(node, after);
    }

    /// Damages a log where something was written: flips a bit, often in the stamp or header with which a sector begins, often
    /// at the very end; or loses a whole sector, but none near the end: that it can look torn there is the one hole of the
    /// log's rule.
    fn damage_log(&mut self, node: usize) -> Option<String> {
        let (disk, rng) = (&self.machines[node].disk, &mut self.injector.rng);
        let segments = disk.paths().into_iter().filter(|path| path.starts_with("log/"));
        let mut written = Vec::new();
        for path in segments {
            let content = disk.content(&path)?;
            let sectors = content.chunks(SECTOR_BYTES).enumerate();
            let used = sectors.filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
            written.extend(used.map(|(number, sector)| (path.clone(), number, stamp(sector))));
        }
        if rng.u32(..3) == 0 {
            // Behind the newest block of a recycled segment stands what it held before.
            let path = written.last()?.0.clone();
            written.retain(|(other, _, _)| *other == path);
            let epoch = written.first()?.2.0;
            written.retain(|(_, _, stamp)| stamp.0 == epoch);
            let last = written.iter().map(|(_, _, stamp)| stamp.1).max()?;
            written.retain(|(_, _, stamp)| stamp.1 + BLOCKS_NEAR_END < last);
            let (path, sector, _) = rng.choice(written)?;
            disk.zero_sector(&path, sector as u64);
            return Some(format!("sector {sector} of {path}"));
        }
        let (path, sector, _) = if rng.bool() { written.pop() } else { rng.choice(written) }?;
        let within = if rng.bool() { SECTOR_BYTES } else { BLOCK_HEADER_BYTES };
        let bit = (sector * SECTOR_BYTES * 8 + rng.usize(..within * 8)) as u64;
        disk.flip_bit(&path, bit);
        Some(format!("bit {bit} of {path}"))
    }

    pub(super) fn damage_store(&mut self, node: usize, kind: Kind) {
        self.stop(node, true, "crashed before its read index is damaged");
        if kind == Kind::StoreLost {
            self.machines[node].store.lose();
        } else {
            let _altered = self.machines[node].store.flip(&mut self.injector.rng);
        }
        let after = self.restart_delay();
        self.schedule_start(node, after);
    }
}
