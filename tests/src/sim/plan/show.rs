//! A plan in words, as a run prints it.

use std::fmt;

use super::Plan;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} nodes, {} shards of {} replicas and the meta shard; {} s with faults, then quiet",
            self.seed,
            self.nodes,
            self.shards,
            self.replication,
            self.faults_micros / 1_000_000
        )?;
        self.show_work_and_network(f)?;
        self.show_nodes(f)?;
        self.show_clients(f)?;
        self.show_founding(f)?;
        self.show_bounds(f)?;
        self.show_operations(f)?;
        self.show_faults(f)
    }
}

impl Plan {
    fn show_work_and_network(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (work, links) = (&self.workload, &self.links);
        writeln!(
            f,
            "  clients: {} with up to {} open, {} operations a second on {} keys, values up to {} B, deadline {} ms; {} % reads \
             ({} % of them old), {} % deletes, {} % conditions, {} % async",
            work.clients,
            work.open_max,
            work.operations_per_second,
            work.keys,
            work.value_bytes_max,
            work.deadline_micros / 1_000,
            work.reads_percent,
            work.old_reads_percent,
            work.deletes_percent,
            work.conditions_percent,
            work.async_percent
        )?;
        writeln!(
            f,
            "  network: {} us + {} us, {}, lost {} ppm ({} % reported), twice {} ppm, late {} ppm by up to {} ms; clocks within {} ppm",
            links.delay_micros_min,
            links.jitter_micros,
            if links.ordered { "in order" } else { "out of order" },
            links.drop_ppm,
            links.reported_percent,
            links.duplicate_ppm,
            links.late_ppm,
            links.late_micros_max / 1_000,
            self.drift_ppm_max
        )
    }

    fn show_nodes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  nodes: sync {} to {} us, up to {} ms more with an install, election {} ticks, checkpoints every {} ticks or at {} % of {} B, {} B of log kept, segments of {} B",
            self.costs.sync_micros_min,
            self.costs.sync_micros_max,
            self.costs.install_micros_max / 1_000,
            self.settings.election_ticks,
            self.settings.checkpoint_ticks,
            self.settings.checkpoint_percent,
            self.settings.active_bytes_max,
            self.settings.kept_bytes_max,
            self.segment_bytes
        )
    }

    fn show_clients(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (clients, bounds) = (&self.clients, self.settings.session_bounds);
        writeln!(
            f,
            "  clients: {}, {}, {}, answers within {} ms, requests held up to {} ms but {} %, {} % of writes in new sessions; {} sessions \
             of {} B a shard, {} writes open in one, outcomes of {} B; files in pieces of {} B, {} records a step, {} deltas to merge",
            if clients.one_endpoint { "one address" } else { "all addresses" },
            if clients.old_map { "an old map" } else { "a map" },
            if clients.pushes { "maps pushed" } else { "maps asked for" },
            clients.answer_micros_max / 1_000,
            clients.held_micros_max / 1_000,
            clients.prompt_percent,
            clients.churn_percent,
            bounds.sessions_max,
            bounds.bytes_max,
            bounds.open_max,
            bounds.outcome_bytes_max,
            self.chunk_bytes_max,
            self.slice_records_max,
            self.merge_deltas
        )
    }

    fn show_founding(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let founding = &self.founding;
        if founding.from_empty {
            writeln!(
                f,
                "  founding: from empty directories, starts within {} ms, {} faults in {} ms, {} % of identity writes cut; then \
                 {:.1} wiped and {:.1} started otherwise a minute",
                founding.starts_within_micros / 1_000,
                founding.early_faults,
                founding.early_micros / 1_000,
                founding.cut_percent,
                founding.wipe,
                founding.otherwise
            )?;
        }
        Ok(())
    }

    fn show_bounds(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  bounds: {} B async, {} B of tables, {} B of a node's log kept, {} B a block, {} B of log files, {} ticks a stream, \
             {} requests a shard, {} inputs or {} B a turn, {} us until one",
            self.settings.async_bytes_max,
            self.settings.tables_bytes_max,
            self.settings.kept_node_bytes_max,
            self.settings.block_bytes_max,
            self.settings.log_bytes_max,
            self.settings.stream_ticks_max,
            self.settings.waiting_requests_max,
            self.inbox.turn_inputs_max,
            self.inbox.turn_bytes_max,
            self.inbox.wait_micros_max
        )
    }

    fn show_operations(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.streams_cut > 0 {
            writeln!(f, "  streams of files cut off: {}", self.streams_cut)?;
        }
        if self.full_merges > 0 {
            writeln!(f, "  merges that find the disk full: {}", self.full_merges)?;
        }
        if self.losses.often > 0.0 {
            let cut_millis = self.losses.cut_micros_max / 1_000;
            writeln!(
                f,
                "  leaders lost {:.1} times a minute, cut off for up to {cut_millis} ms before",
                self.losses.often
            )?;
        }
        if self.unaware.often > 0.0 {
            writeln!(f, "  leaders kept from hearing that they are deposed {:.1} times a minute", self.unaware.often)?;
        }
        let operated = &self.operated;
        if operated.async_by_default || operated.stops > 0.0 || operated.away > 0 {
            writeln!(
                f,
                "  operated: {} by default, {:.1} nodes stopped a minute, {} {} until all is served in quiet",
                if operated.async_by_default { "async" } else { "sync" },
                operated.stops,
                operated.away,
                if operated.away_cut_off { "cut off" } else { "without power" }
            )?;
        }
        Ok(())
    }

    fn show_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  faults a minute:")?;
        for (name, often) in self.faults.kinds().into_iter().filter(|(_, often)| *often > 0.0) {
            write!(f, " {name} {often:.1}")?;
        }
        write!(f, ", lasting {} ms", self.faults.lasts_micros / 1_000)?;
        if self.storms.lasts_micros > 0 {
            write!(f, "\n  storms a minute:")?;
            for (name, often) in self.storms.kinds().filter(|(_, often)| *often > 0.0) {
                write!(f, " {name} {often:.1}")?;
            }
            write!(f, ", lasting {} ms", self.storms.lasts_micros / 1_000)?;
        }
        Ok(())
    }
}
