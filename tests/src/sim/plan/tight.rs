//! Bounds drawn so small that runs come to them.
//!
//! Most bounds of production are far above what minutes of simulated time can fill: 256 MiB of tables, a GiB of log files, turns
//! of 4,096 inputs. The branches behind them are as easy to get wrong as any. So in a third of all seeds some of them are drawn
//! small, from a stream of their own; what all others draw is as it was.
//!
//! *Never here*: bounds so small that nothing could go on (a stream of files that must end before one file is sent), and less
//! undecided than one entry may hold, which raft does not take.

use fastrand::Rng;

use super::{Plan, mix};

/// Bytes that an entry may have here: one holds what all clients ask in one turn, and must fit into a segment beside the table.
const VALUES_IN_FLIGHT_BYTES_MAX: usize = 100 * 1024;

impl Plan {
    /// Draws some bounds small, in some seeds.
    pub(super) fn tighten(&mut self) {
        let mut rng = Rng::with_seed(mix(self.seed, "tight bounds"));
        if rng.u32(..3) > 0 {
            return;
        }
        let mut chosen = || rng.u32(..4) == 0;
        let mut apply = Rng::with_seed(mix(self.seed, "applied in a turn"));
        let [sync, block, log, tables, node, stream, turn, wait, large] = std::array::from_fn(|_| chosen());
        let settings = &mut self.settings;
        if apply.u32(..4) == 0 {
            // One entry of each shard, or a few.
            settings.apply_bytes_max = [1, 2_000][apply.usize(..2)];
        }
        if sync {
            settings.async_bytes_max = [200, 1_000, 4_000][rng.usize(..3)];
        }
        if block {
            settings.block_bytes_max = [512, 4_096, 16_384][rng.usize(..3)];
        }
        if log {
            // As in production, where the log is told the same bound; a little lower, a log could be past it with nothing left
            // to give up.
            if self.workload.value_bytes_max <= 200 && !large {
                // What all clients ask in one turn takes some 20 KiB.
                self.segment_bytes = 64 * 1024;
                settings.block_bytes_max = settings.block_bytes_max.min(16 * 1024);
            }
            self.log_bytes_max = self.segment_bytes * rng.u64(2..=4);
            settings.log_bytes_max = self.log_bytes_max;
        }
        if tables {
            settings.tables_bytes_max = [4, 16][rng.usize(..2)] * 1024;
        }
        if node {
            settings.kept_node_bytes_max = [64, 128, 256][rng.usize(..3)] * 1024;
        }
        if stream && self.costs.step_micros <= 1_000 && self.chunk_bytes_max > 2_048 {
            // A stream must be able to end: a file takes some steps of the checkpoint thread at both ends.
            settings.stream_ticks_max = rng.u64(60..=200);
        }
        if turn {
            self.inbox.turn_inputs_max = rng.usize(4..=24);
            self.inbox.turn_bytes_max = [2, 16][rng.usize(..2)] * 1024;
        }
        if wait {
            self.inbox.wait_micros_max = [1_000, 20_000][rng.usize(..2)];
        }
        if large {
            // Above what a session remembers of a write that asked for the previous entry.
            self.workload.value_bytes_max = 6_000;
            let open = VALUES_IN_FLIGHT_BYTES_MAX / self.workload.value_bytes_max / self.workload.clients as usize;
            self.workload.open_max = self.workload.open_max.min(open.max(1));
        }
    }
}
