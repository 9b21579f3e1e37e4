//! The metrics of one node, in a registry of its own: several nodes can live in one process.
//!
//! Names begin with `kv_`, but for those of the whole process, which begin with `process_` as with other programs. Counters and
//! histograms are updated where things happen; gauges are set when somebody asks.

use std::{sync::Arc, time::Duration};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use kv_core::{
    error::ErrorKind,
    node::FollowerStatus,
    types::{LogIndex, ShardId},
};

use crate::{net::Counts, status::Report, unread::Unread, usage};

/// Seconds: from what a fast disk needs to what stops a node.
const SYNC_BUCKETS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
/// Things per turn or batch.
const COUNT_BUCKETS: [f64; 13] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0];

/// A node's registry and the handles that are used often.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    turns: Counter,
    turn_inputs: Histogram,
    turn_seconds: Histogram,
    log_sync_seconds: Histogram,
    log_batch_records: Histogram,
    log_bytes: Gauge,
    undelivered: Counter,
    requests: Counter,
}

impl Metrics {
    /// An empty registry.
    pub(crate) fn new() -> Self {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SYNC_BUCKETS)
            .and_then(|builder| builder.set_buckets(&COUNT_BUCKETS))
            .expect("buckets are given");
        let recorder = builder.build_recorder();
        for (name, unit, text) in DESCRIPTIONS {
            // One description serves all kinds: the exporter keeps them by name.
            recorder.describe_gauge(KeyName::from_const_str(name), *unit, (*text).into());
        }
        Self {
            handle: recorder.handle(),
            turns: counter(&recorder, "kv_turns_total"),
            turn_inputs: histogram(&recorder, "kv_turn_inputs"),
            turn_seconds: histogram(&recorder, "kv_turn_seconds"),
            log_sync_seconds: histogram(&recorder, "kv_log_sync_seconds"),
            log_batch_records: histogram(&recorder, "kv_log_batch_records"),
            log_bytes: gauge(&recorder, "kv_log_bytes"),
            undelivered: counter(&recorder, "kv_peer_messages_undelivered_total"),
            requests: counter(&recorder, "kv_requests_total"),
            recorder,
        }
    }

    /// An account of what clients have not read, which counts here what it closes.
    pub(crate) fn unread(&self, bytes_max: usize) -> Arc<Unread> {
        let closed = |what: &'static str| {
            let key = Key::from_parts("kv_unread_closed_total", vec![Label::new("what", what)]);
            self.recorder.register_counter(&key, &METADATA)
        };
        Unread::new(bytes_max, closed("stream"), closed("connection"))
    }

    /// What is counted of a port.
    pub(crate) fn door(&self, port: &'static str) -> Counts {
        let count = |name: &'static str| {
            let key = Key::from_parts(name, vec![Label::new("port", port)]);
            self.recorder.register_counter(&key, &METADATA)
        };
        Counts {
            refused: count("kv_connections_refused_total"),
            left: count("kv_connections_left_total"),
            slowed: count("kv_connections_slowed_total"),
        }
    }

    /// A turn was taken.
    pub(crate) fn turn(&self, inputs: usize, requests: usize, took: Duration) {
        self.turns.increment(1);
        self.turn_inputs.record(inputs as f64);
        self.turn_seconds.record(took.as_secs_f64());
        self.requests.increment(requests as u64);
    }

    /// A batch was written and synced.
    pub(crate) fn log_synced(&self, took: Duration, records: usize, log_bytes: u64) {
        self.log_sync_seconds.record(took.as_secs_f64());
        self.log_batch_records.record(records as f64);
        self.log_bytes.set(log_bytes as f64);
    }

    /// A message to a peer was dropped.
    pub(crate) fn undelivered(&self) {
        self.undelivered.increment(1);
    }

    /// A message of a peer was refused, for one of a few reasons.
    pub(crate) fn peer_message_refused(&self, reason: &'static str) {
        let key = Key::from_parts("kv_peer_messages_refused_total", vec![Label::new("reason", reason)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// A node was refused when it said hello, for one of a few reasons.
    pub(crate) fn peer_refused(&self, reason: &'static str) {
        let key = Key::from_parts("kv_peers_refused_total", vec![Label::new("reason", reason)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// A replica was too busy for a mark.
    pub(crate) fn mark_skipped(&self, shard: ShardId) {
        self.count_of_shard("kv_shard_marks_skipped_total", shard);
    }

    /// A replica's state was thrown away since a majority holds another one.
    pub(crate) fn state_replaced(&self, shard: ShardId) {
        self.count_of_shard("kv_shard_states_replaced_total", shard);
    }

    fn count_of_shard(&self, name: &'static str, shard: ShardId) {
        let key = Key::from_parts(name, vec![Label::new("shard", shard.to_string())]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// A request was answered with an error.
    pub(crate) fn refused(&self, kind: ErrorKind) {
        let key = Key::from_parts("kv_requests_failed_total", vec![Label::new("kind", format!("{kind:?}"))]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// Empties what the histograms gather between two readings. To be called every few seconds.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The registry as Prometheus reads it, with the gauges set from a report.
    pub(crate) fn render(&self, report: &Report) -> String {
        let set = |name: &'static str, value: f64| gauge(&self.recorder, name).set(value);
        set("kv_ready", f64::from(u8::from(report.ready)));
        set("kv_inbox_events", report.inbox_events as f64);
        set("kv_requests_outstanding", report.requests_outstanding as f64);
        set("kv_unread_bytes", report.unread_bytes as f64);
        set("kv_asking_bytes", report.asking_bytes as f64);
        set("kv_peer_queue_messages", report.peer_queue_messages as f64);
        let count = |name: &'static str, value: u64| counter(&self.recorder, name).absolute(value);
        count("kv_log_written_bytes_total", report.log_written_bytes);
        set("kv_disk_free_bytes", report.disk_free_bytes as f64);
        let usage = usage::of_this_process();
        if let Some(usage) = &usage {
            set("process_resident_memory_bytes", usage.resident_bytes as f64);
            count("process_voluntary_context_switches_total", usage.voluntary_switches);
        }
        for shard in report.shards() {
            let set = |name: &'static str, value: u64| {
                let key = Key::from_parts(name, vec![Label::new("shard", shard.shard.to_string())]);
                self.recorder.register_gauge(&key, &METADATA).set(value as f64);
            };
            set("kv_shard_leads", u64::from(shard.role == kv_core::node::Role::Leader));
            set("kv_shard_term", shard.term.0);
            set("kv_shard_commit", shard.commit.0);
            set("kv_shard_applied", shard.applied.0);
            set("kv_shard_lag", shard.commit.0.saturating_sub(shard.applied.0));
            set("kv_shard_live", u64::from(shard.live && !shard.quarantined));
            set("kv_shard_disputed", u64::from(shard.disputed));
            let confirmed = shard.confirmed.unwrap_or_default();
            set("kv_shard_unconfirmed", shard.applied.0.saturating_sub(confirmed.0));
            set("kv_shard_log_bytes", shard.log_bytes as u64);
            set("kv_shard_table_bytes", shard.table_bytes as u64);
            let behind = |matched: LogIndex| shard.commit.0.saturating_sub(matched.0);
            let furthest = shard.followers.iter().map(|follower| behind(follower.matched)).max();
            set("kv_shard_followers_lag", furthest.unwrap_or(0));
            let count = |is: fn(&FollowerStatus) -> bool| shard.followers.iter().filter(|one| is(one)).count() as u64;
            set("kv_shard_followers_silent", count(|follower| !follower.active));
            set("kv_shard_followers_snapshot", count(|follower| follower.snapshot));
        }
        let mut text = self.handle.render();
        if let Some(usage) = usage {
            text.push_str(&cpu_seconds(usage.cpu_micros));
        }
        text
    }
}

const METADATA: Metadata<'static> = Metadata::new("kv_server", Level::INFO, None);

const DESCRIPTIONS: &[(&str, Option<Unit>, &str)] = &[
    ("kv_turns_total", None, "Turns taken."),
    ("kv_turn_inputs", None, "Inputs of a turn."),
    ("kv_turn_seconds", None, "Time that a turn took, with everything it set off on the loop."),
    ("kv_log_sync_seconds", None, "Time to write and sync one batch of the log."),
    ("kv_log_batch_records", None, "Records in one batch of the log."),
    ("kv_log_written_bytes_total", None, "Bytes of the blocks written to the log."),
    ("kv_log_bytes", None, "Size of the log's segments."),
    ("kv_peer_messages_undelivered_total", None, "Messages to peers that were dropped."),
    ("kv_peer_messages_refused_total", None, "Messages of peers that can't be right, and were not taken, by reason."),
    ("kv_peers_refused_total", None, "Nodes that were refused when they said hello, by reason."),
    ("kv_requests_total", None, "Requests taken."),
    ("kv_requests_failed_total", None, "Requests answered with an error, by kind."),
    ("kv_ready", None, "1 if the node takes traffic."),
    ("kv_inbox_events", None, "Events that wait for a turn."),
    ("kv_requests_outstanding", None, "Requests taken and not yet answered."),
    ("kv_unread_bytes", None, "Bytes of answers that clients have not read."),
    ("kv_asking_bytes", None, "Bytes of calls that are open, and of what has come of messages that are not whole."),
    (
        "kv_unread_closed_total",
        None,
        "Streams and connections closed because their clients did not read, or asked without an end, past the bound of all of them.",
    ),
    (
        "kv_connections_refused_total",
        None,
        "Connections that were closed at once, since all of the port's were in use, by port.",
    ),
    (
        "kv_connections_left_total",
        None,
        "Connections closed because they did not ask anything in time, or asked nothing when the port was full, by port.",
    ),
    (
        "kv_connections_slowed_total",
        None,
        "How often a connection had to wait before it was read on, for frames or bytes by which it asks nothing, by port.",
    ),
    ("kv_peer_queue_messages", None, "Messages to peers that wait for their connections."),
    ("kv_disk_free_bytes", None, "Free bytes on the disk of the data directory."),
    ("process_resident_memory_bytes", None, "Memory that the process holds."),
    ("process_voluntary_context_switches_total", None, "How often threads of the process that still run have waited."),
    ("kv_shard_leads", None, "1 if the replica here leads its shard."),
    ("kv_shard_term", None, "The replica's term."),
    ("kv_shard_commit", None, "The last index known to be committed."),
    ("kv_shard_applied", None, "The last index applied."),
    ("kv_shard_lag", None, "Committed indexes that are not applied yet."),
    ("kv_shard_live", None, "1 if the replica's state is proven and it serves."),
    ("kv_shard_disputed", None, "1 if replicas hold different states and no majority agrees on one: the shard stops."),
    ("kv_shard_unconfirmed", None, "Indexes applied since the newest checkpoint that a majority agrees with."),
    (
        "kv_shard_states_replaced_total",
        None,
        "States thrown away since a majority held another one. Look at that node's hardware.",
    ),
    ("kv_shard_marks_skipped_total", None, "Marks for which the replica was too busy with a checkpoint."),
    ("kv_shard_log_bytes", None, "Bytes of log entries kept in memory."),
    (
        "kv_shard_followers_lag",
        None,
        "At the leader: committed indexes that the furthest follower does not have on disk.",
    ),
    ("kv_shard_followers_silent", None, "At the leader: followers that have not answered within an election timeout."),
    ("kv_shard_followers_snapshot", None, "At the leader: followers that are being sent a snapshot."),
    ("kv_shard_table_bytes", None, "Bytes of changes in memory that no checkpoint has taken over."),
];

/// The one counter that is no whole number, which the registry's counters are.
fn cpu_seconds(micros: u64) -> String {
    format!(
        "# HELP process_cpu_seconds_total CPU that the process has used, in user code and in the kernel for it.\n\
         # TYPE process_cpu_seconds_total counter\n\
         process_cpu_seconds_total {}.{:06}\n\n",
        micros / 1_000_000,
        micros % 1_000_000
    )
}

fn counter(recorder: &PrometheusRecorder, name: &'static str) -> Counter {
    recorder.register_counter(&Key::from_static_name(name), &METADATA)
}

fn gauge(recorder: &PrometheusRecorder, name: &'static str) -> Gauge {
    recorder.register_gauge(&Key::from_static_name(name), &METADATA)
}

fn histogram(recorder: &PrometheusRecorder, name: &'static str) -> Histogram {
    recorder.register_histogram(&Key::from_static_name(name), &METADATA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.turn(3, 2, Duration::from_micros(60));
        one.refused(ErrorKind::Overloaded);
        one.peer_message_refused("it has no term");
        one.state_replaced(ShardId(3));
        one.mark_skipped(ShardId(3));
        one.peer_refused("REFUSAL_REASON_WIPED");
        one.log_synced(Duration::from_micros(700), 4, 4096);
        let text = one.render(&Report { log_written_bytes: 9_000, ..Report::default() });
        assert!(text.contains("kv_turns_total 1"), "{text}");
        assert!(text.contains("kv_shard_states_replaced_total{shard=\"3\"} 1"), "{text}");
        assert!(text.contains("kv_shard_marks_skipped_total{shard=\"3\"} 1"), "{text}");
        assert!(text.contains("kv_requests_failed_total{kind=\"Overloaded\"} 1"), "{text}");
        assert!(text.contains("kv_log_sync_seconds_bucket{le=\"0.001\"} 1"), "{text}");
        assert!(text.contains("kv_log_bytes 4096"), "{text}");
        assert!(text.contains("kv_peer_messages_refused_total{reason=\"it has no term\"} 1"), "{text}");
        assert!(text.contains("kv_peers_refused_total{reason=\"REFUSAL_REASON_WIPED\"} 1"), "{text}");
        assert!(
            text.contains("# TYPE kv_log_written_bytes_total counter\nkv_log_written_bytes_total 9000\n"),
            "{text}"
        );
        #[cfg(target_os = "linux")]
        for total in ["process_cpu_seconds_total", "process_voluntary_context_switches_total"] {
            assert!(text.contains(&format!("# TYPE {total} counter\n{total} ")), "{text}");
        }
        assert!(cpu_seconds(2_000_034).contains("process_cpu_seconds_total 2.000034\n"));
        assert!(!other.render(&Report::default()).contains("kv_turns_total 1"));
    }
}
