//! What rots on disks: bits, sectors and whole files of logs and checkpoints, records of the read index.
//!
//! Logs are damaged while their node is down, since they are read at a start only: any number of flipped bits, of sectors that
//! are zeros, hold what belongs elsewhere or what was there before, segments cut short or lost. What comes of it is judged at
//! once, on copies: the log is refused, or it says all that it said before. One thing else is allowed, and exactly that: the
//! hole of the log's rule. If every sector behind some block has lost its stamp, and one of that block too, the log ends there
//! as if that block were torn, and the node has forgotten what it had acknowledged. Such a node is taken out of the run, as its
//! operator would have to if he knew: nothing that it says could be relied on. Damage that leaves the stamps is no such hole,
//! not even in the very last block: a log that ends there has cut what it could have known to be synced.
//!
//! Files of checkpoints are damaged in running nodes too; so is the tree, except that a running node's tree is not silently
//! altered: nothing but a scan would find that, and what is read from it would be answered.
//!
//! *Left out*: identity files; a disk that lies about syncs and an old image of a whole disk: both make a node forget what it
//! acknowledged and voted, without a sign that it could see by itself. One such node and one crash elsewhere can lose a
//! write that was acknowledged, so that no count of whole replicas admits them.

use std::collections::BTreeSet;

use fastrand::Rng;
use kv_core::{
    log::{Log, LogError, LogSettings, record::Recovered},
    types::ReplicaId,
};

use super::{faults::Kind, world::World};
use crate::disk::{SECTOR_BYTES, SimDisk};

/// Bytes of a sector's stamp, its check included.
const STAMP_BYTES: usize = 16;
/// About how many bytes of a block's first sector are its stamp and header.
const BLOCK_HEADER_BYTES: usize = 48;

/// Segment epoch and block number: the stamp with which every sector of a log begins.
type Stamp = (u64, u32);

fn stamp(sector: &[u8]) -> Stamp {
    let (epoch, number) = (sector[..8].try_into(), sector[8..12].try_into());
    (epoch.map_or(0, u64::from_le_bytes), number.map_or(0, u32::from_le_bytes))
}

/// A sector of a log in which something was written: file, number, stamp.
type Written = (String, usize, Stamp);

fn written(disk: &SimDisk) -> Vec<Written> {
    let mut written = Vec::new();
    for path in disk.paths().into_iter().filter(|path| path.starts_with("log/")) {
        let content = disk.content(&path).unwrap_or_default();
        let sectors = content.chunks(SECTOR_BYTES).enumerate();
        let used = sectors.filter(|(_, sector)| sector.len() == SECTOR_BYTES && sector.iter().any(|byte| *byte != 0));
        written.extend(used.map(|(number, sector)| (path.clone(), number, stamp(sector))));
    }
    written
}

impl World {
    /// Takes the node down, flips a bit or loses a sector, starts it again: it must repair or refuse.
    pub(super) fn rot(&mut self, node: usize, kind: Kind) {
        if !self.all_are_founded() {
            // It would count on members that have nothing yet.
            return;
        }
        let is_log = kind == Kind::RotLog;
        if is_log && !self.injector.atlas.admits_log(node) {
            return;
        }
        self.stop(node, true, "crashed before a bit of it rots");
        if is_log {
            self.rot_log(node, damage_log);
        } else {
            let what = self.damage_file(node, false);
            self.trace.tell(self.now, || format!("rot on node {}: {what:?}", node + 1));
        }
        let after = self.restart_delay();
        self.schedule_start(node, after);
    }

    /// Damages the log of a node that is down, and judges what its next start will find.
    pub(super) fn rot_log(&mut self, node: usize, damage: impl FnOnce(&SimDisk, &mut Rng) -> Option<String>) {
        if self.machines[node].refused.is_some() {
            return;
        }
        let disk = self.machines[node].disk.clone();
        // Damage adds up until a start looks at it: two bits may look like a torn block where each alone would be refused.
        let before = self.machines[node].before_damage.get_or_insert_with(|| disk.fork()).fork();
        let what = damage(&disk, &mut self.injector.rng);
        self.trace.tell(self.now, || format!("rot on node {}: {what:?}", node + 1));
        let settings = self.plan.log_settings();
        match judge_damage(&before, &disk, &settings) {
            Damage::Harmless | Damage::Refused => {}
            Damage::InTheHole => {
                self.trace.tell(self.now, || format!("n{} would forget what it acknowledged", node + 1));
                self.machines[node].refused = Some("its log looks torn by damage to its last blocks".to_owned());
            }
            Damage::Wrong(what) => {
                self.fail("damage of a log is refused, or costs nothing", format!("node {}: {what}", node + 1));
            }
        }
    }

    /// Damages or loses a file of a checkpoint, if the atlas admits it for its replica.
    pub(super) fn damage_file(&mut self, node: usize, may_lose: bool) -> Option<String> {
        let (machine, rng) = (&self.machines[node], &mut self.injector.rng);
        let disk = &machine.disk;
        let mut paths = disk.paths();
        paths.retain(|path| path.starts_with("files/r") && disk.content(path).is_some_and(|bytes| !bytes.is_empty()));
        let path = rng.choice(paths)?;
        let replica = path.strip_prefix("files/r")?.split('/').next()?.parse().ok().map(ReplicaId)?;
        let shard = self.injector.atlas.shard_of(replica)?;
        if !self.injector.atlas.admits_files(node, shard, machine.start) {
            return None;
        }
        self.damaged_paths.insert((node, path.trim_start_matches("files/").to_owned()));
        if may_lose && rng.u8(..3) == 0 {
            disk.lose_file(&path);
            return Some(format!("{path} is lost"));
        }
        disk.damage_any(&path, rng)
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

/// Damages a log where something was written: flips a bit, often in the stamp or header with which a sector begins, often at
/// the very end; or loses a whole sector of its newest segment.
pub(super) fn damage_log(disk: &SimDisk, rng: &mut Rng) -> Option<String> {
    let mut written = written(disk);
    if rng.u32(..3) == 0 {
        // Behind the newest block of a recycled segment stands what it held before.
        let path = written.last()?.0.clone();
        written.retain(|(other, _, _)| *other == path);
        let epoch = written.first()?.2.0;
        written.retain(|(_, _, stamp)| stamp.0 == epoch);
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

/// Damages a log in all ways that there are, several times over; `older` is how the disk once was.
pub(super) fn damage_log_badly(disk: &SimDisk, older: Option<&SimDisk>, rng: &mut Rng) -> Option<String> {
    let mut told = Vec::new();
    for _ in 0..rng.u32(1..6) {
        let written = written(disk);
        let (path, sector, _) = rng.choice(&written)?.clone();
        let (other, from, _) = rng.choice(&written)?.clone();
        told.push(match rng.u32(..12) {
            0..5 => damage_log(disk, rng)?,
            5..8 => {
                let bytes = sector_of(disk, &other, from)?;
                disk.misplace_sector(&path, sector as u64, &bytes);
                format!("sector {sector} of {path} holds sector {from} of {other}")
            }
            8..10 => match older.and_then(|older| sector_of(older, &path, sector)) {
                Some(bytes) => {
                    disk.misplace_sector(&path, sector as u64, &bytes);
                    format!("sector {sector} of {path} is an old one")
                }
                None => continue,
            },
            10 => {
                let mut content = disk.content(&path)?;
                content.truncate(rng.usize(..content.len()));
                let told = format!("{path} is cut to {} bytes", content.len());
                disk.replace(&path, content);
                told
            }
            _ => {
                disk.lose_file(&path);
                format!("{path} is lost")
            }
        });
    }
    Some(told.join(", "))
}

fn sector_of(disk: &SimDisk, path: &str, sector: usize) -> Option<Vec<u8>> {
    let content = disk.content(path)?;
    content.get(sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES).map(<[u8]>::to_vec)
}

/// What damage of a log came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The log says all that it said.
    Harmless,
    /// The log is refused.
    Refused,
    /// The log looks torn where all that stood behind has lost its stamps.
    InTheHole,
    /// Anything else.
    Wrong(String),
}

/// Judges the damage of a log by opening copies of both disks.
#[must_use]
pub fn judge_damage(before: &SimDisk, after: &SimDisk, settings: &LogSettings) -> Damage {
    let open = |disk: &SimDisk| Log::open(disk.fork().log(), settings.clone()).map(|(_, recovered)| recovered);
    let Ok(said) = open(before) else { return Damage::Refused };
    let says = match open(after) {
        Ok(says) => says,
        Err(LogError::Corrupt { .. } | LogError::Format { .. }) => return Damage::Refused,
        Err(error) => return Damage::Wrong(format!("its start fails: {error}")),
    };
    if says == said {
        return Damage::Harmless;
    }
    if ends_in_the_hole(before, after).iter().any(|end| open(end).is_ok_and(|shorter| shorter == says)) {
        return Damage::InTheHole;
    }
    Damage::Wrong(format!("the log says {} instead of {}", in_short(&says), in_short(&said)))
}

/// The disk as it was, cut in each way that the hole of the log's rule allows: at a block of which a sector has lost its stamp,
/// all sectors behind it having lost theirs as well.
pub(super) fn ends_in_the_hole(before: &SimDisk, after: &SimDisk) -> Vec<SimDisk> {
    let mut sectors = written(before);
    // A recycled segment shows older blocks behind its own; those are no part of the log.
    sectors.retain(|(path, _, stamp)| path.ends_with(&format!("{:016x}", stamp.0)));
    let blocks: BTreeSet<Stamp> = sectors.iter().map(|(_, _, stamp)| *stamp).collect();
    let stamp_of = |disk, (path, sector, _): &Written| {
        sector_of(disk, path, *sector).map(|mut bytes| {
            bytes.truncate(STAMP_BYTES);
            bytes
        })
    };
    let is_lost = |sector: &Written| stamp_of(before, sector) != stamp_of(after, sector);
    let (mut ends, cut) = (Vec::new(), before.fork());
    for block in blocks.into_iter().rev() {
        let of_block: Vec<&Written> = sectors.iter().filter(|(_, _, stamp)| *stamp == block).collect();
        let lost = of_block.iter().filter(|sector| is_lost(sector)).count();
        of_block.iter().for_each(|(path, sector, _)| cut.zero_sector(path, *sector as u64));
        if lost > 0 {
            ends.push(cut.fork());
        }
        if lost < of_block.len() {
            break;
        }
    }
    ends
}

fn in_short(recovered: &Recovered) -> String {
    let shard = |(shard, found): (&kv_core::types::ShardId, &kv_core::log::record::RecoveredShard)| {
        let last = found.entries.last().map_or(found.boundary.index, |entry| entry.index);
        format!("shard {shard} {:?} {}..{last}", found.hard_state, found.boundary.index)
    };
    recovered.shards.iter().map(shard).collect::<Vec<_>>().join("; ")
}
