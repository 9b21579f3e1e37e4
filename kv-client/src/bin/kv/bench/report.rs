//! What a benchmark has to say, with all that a reader needs to run it again.

use std::time::Duration;

use kv_client::{ClusterStatus, load::Side};
use serde_json::{Value, json};

use super::{Measured, Options, usage::ProcessDelta};
use crate::{
    args::{Common, Format},
    exit::Exit,
    output::{Output, table},
};

const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Above this share of a core, what limits may be the one thread of the callers.
const CLIENT_CORES_MAX: f64 = 0.7;

/// Writes the report. At least one measurement is there.
pub(super) fn write(
    options: &Options,
    common: &Common,
    measured: &[Measured],
    status: &ClusterStatus,
    output: &Output,
) -> Result<(), Exit> {
    let median = median(measured);
    match output.format {
        Format::Json => {
            let mut report = measured_json(&measured[median]);
            report["repetitions"] = measured.iter().map(measured_json).collect();
            report["median"] = json!(median);
            report["command"] = json!(options.command(common));
            report["client_version"] = json!(env!("CARGO_PKG_VERSION"));
            report["cluster"] = json!({
                "id": status.cluster.to_string(),
                "nodes": status.nodes.len(),
                "shards": status.shards.len().saturating_sub(1),
            });
            output.line(report)
        }
        Format::Table | Format::Raw => {
            if measured.len() > 1 {
                output.line(repetitions(measured, median))?;
            }
            output.line(as_text(&measured[median]))?;
            output.line(format!("\nrepeat with: {}", options.command(common)))?;
            output.line(format!(
                "client {} on {} threads of this machine (it uses one); cluster {} of {} nodes, {} shards",
                env!("CARGO_PKG_VERSION"),
                std::thread::available_parallelism().map_or(0, usize::from),
                status.cluster,
                status.nodes.len(),
                status.shards.len().saturating_sub(1),
            ))
        }
    }
}

/// The measurement whose throughput is the median; of an even number, the lower of the two in the middle.
fn median(measured: &[Measured]) -> usize {
    let mut order: Vec<_> = (0..measured.len()).collect();
    order.sort_by(|a, b| measured[*a].window.per_second().total_cmp(&measured[*b].window.per_second()));
    order[(order.len() - 1) / 2]
}

fn repetitions(measured: &[Measured], median: usize) -> String {
    let rows = measured.iter().enumerate().map(|(index, one)| {
        let p99 = [&one.window.record.puts, &one.window.record.gets].map(|side| side.latency.value_at_quantile(0.99));
        [
            format!("{}{}", index + 1, if index == median { " (median)" } else { "" }),
            format!("{:.0}", one.window.per_second()),
            ms(p99[0].max(p99[1]) as f64),
            one.usage.processes.as_ref().map_or_else(
                || "-".to_owned(),
                |all| micros_each(all.iter().map(|one| one.cpu).sum(), one.window.operations()),
            ),
            one.window.record.failures().to_string(),
        ]
    });
    table(["REPETITION", "PER SECOND", "P99 ms", "SERVERS' CPU us", "ERRORS"], rows.collect()) + "\n"
}

fn as_text(measured: &Measured) -> String {
    let (window, record) = (&measured.window, &measured.window.record);
    let mut rows = Vec::new();
    for (name, side) in [("put", &record.puts), ("get", &record.gets)] {
        if !side.latency.is_empty() {
            rows.push(row(name, side, window.elapsed));
        }
    }
    let header = ["", "COUNT", "PER SECOND", "MEAN ms", "P50", "P90", "P99", "P99.9", "MAX"];
    let mut text = table(header, rows);
    let (total, seconds) = (window.operations(), window.elapsed.as_secs_f64());
    text += &format!("\n\ntotal {total} in {seconds:.2} s, {:.0} per second\n", window.per_second());
    if window.waiting > 0 {
        text += &format!("{} operations were due and had to wait for others to end\n", window.waiting);
    }
    if !record.gets.latency.is_empty() {
        let found = 100.0 * record.gets.found as f64 / record.gets.latency.len() as f64;
        text += &format!("gets that found their key: {found:.1} %\n");
    }
    text += &format!("errors: {}\n", record.failures());
    for (name, count) in &record.errors {
        text += &format!("  {count}  {name}\n");
    }
    text + "\n" + &cost_text(measured)
}

/// What an operation cost, by process.
fn cost_text(measured: &Measured) -> String {
    let operations = measured.window.operations();
    let each = |amount: u64, digits: usize| format!("{:.digits$}", amount as f64 / operations.max(1) as f64);
    let mut rows = Vec::new();
    let processes = measured.usage.processes.as_deref().unwrap_or_default();
    for process in processes {
        let nodes: Vec<_> = process.nodes.iter().map(ToString::to_string).collect();
        rows.push([
            format!("node {}", nodes.join(",")),
            micros_each(process.cpu, operations),
            each(process.log_syncs, 4),
            each(process.log_written_bytes, 0),
            each(process.voluntary_switches, 3),
            format!("{} MiB", process.resident_bytes >> 20),
        ]);
    }
    let mut text = table(["PER OPERATION", "CPU us", "LOG SYNCS", "LOG BYTES", "WAITS", "MEMORY"], rows);
    if processes.is_empty() {
        text = "servers: not every node told what it used throughout".to_owned();
    } else {
        let cpu: Duration = processes.iter().map(|process| process.cpu).sum();
        text += &format!(
            "\nservers {} us of CPU per operation: {:.0} operations per CPU-second",
            micros_each(cpu, operations),
            operations as f64 / cpu.as_secs_f64().max(1e-9)
        );
    }
    let cores = client_cores(measured);
    text += &format!("\nclient {} us of CPU per operation", micros_each(measured.usage.client_cpu, operations));
    if cores > CLIENT_CORES_MAX {
        text += &format!("; it used {cores:.2} of a core, so that it may be what limits");
    }
    text
}

fn client_cores(measured: &Measured) -> f64 {
    measured.usage.client_cpu.as_secs_f64() / measured.window.elapsed.as_secs_f64().max(1e-9)
}

fn micros_each(cpu: Duration, operations: u64) -> String {
    format!("{:.2}", micros(cpu, operations))
}

fn micros(cpu: Duration, operations: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / operations.max(1) as f64
}

fn row(name: &str, side: &Side, elapsed: Duration) -> [String; 9] {
    let count = side.latency.len();
    let [p50, p90, p99, p999, max] = QUANTILES.map(|(_, quantile)| ms(side.latency.value_at_quantile(quantile) as f64));
    let rate = format!("{:.0}", rate(count, elapsed));
    [name.to_owned(), count.to_string(), rate, ms(side.latency.mean()), p50, p90, p99, p999, max]
}

fn measured_json(measured: &Measured) -> Value {
    let (window, operations) = (&measured.window, measured.window.operations());
    let servers = measured.usage.processes.as_deref().map(|all| servers_json(all, operations));
    json!({
        "elapsed_seconds": window.elapsed.as_secs_f64(),
        "operations": operations,
        "operations_per_second": window.per_second(),
        "waiting": window.waiting,
        "put": side_json(&window.record.puts, window.elapsed),
        "get": side_json(&window.record.gets, window.elapsed),
        "errors": window.record.errors,
        "client": {
            "cpu_micros_per_operation": micros(measured.usage.client_cpu, operations),
            "cores": client_cores(measured),
        },
        "servers": servers,
    })
}

/// The sum over all processes, and each by itself.
fn servers_json(processes: &[ProcessDelta], operations: u64) -> Value {
    let each = |amount: u64| amount as f64 / operations.max(1) as f64;
    let one = |processes: &[ProcessDelta]| {
        let sum = |field: fn(&ProcessDelta) -> u64| processes.iter().map(field).sum::<u64>();
        let cpu: Duration = processes.iter().map(|process| process.cpu).sum();
        let nodes = processes.iter().flat_map(|process| process.nodes.iter().map(|node| node.0));
        json!({
            "nodes": nodes.collect::<Vec<_>>(),
            "cpu_micros_per_operation": micros(cpu, operations),
            "log_syncs_per_operation": each(sum(|process| process.log_syncs)),
            "log_written_bytes_per_operation": each(sum(|process| process.log_written_bytes)),
            "voluntary_switches_per_operation": each(sum(|process| process.voluntary_switches)),
            "resident_bytes": sum(|process| process.resident_bytes),
        })
    };
    let mut all = one(processes);
    all["processes"] = processes.iter().map(|process| one(std::slice::from_ref(process))).collect();
    all
}

fn side_json(side: &Side, elapsed: Duration) -> Value {
    let mut latency = json!({ "mean": side.latency.mean() });
    for (name, quantile) in QUANTILES {
        latency[name] = json!(side.latency.value_at_quantile(quantile));
    }
    json!({
        "count": side.latency.len(),
        "found": side.found,
        "per_second": rate(side.latency.len(), elapsed),
        "latency_micros": latency,
    })
}

fn rate(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

fn ms(micros: f64) -> String {
    format!("{:.3}", micros / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::usage::Usage;
    use kv_client::{
        NodeId,
        load::{Kind, Record, Window},
    };

    fn measured(operations: u64) -> Measured {
        let mut record = Record::default();
        for _ in 0..operations {
            record.add(Kind::Put, Duration::from_micros(1_500), Ok(true));
        }
        record.add(Kind::Get, Duration::ZERO, Err("Timeout, outcome unknown".to_owned()));
        let process = |node: u64| ProcessDelta {
            nodes: vec![NodeId(node)],
            log_syncs: operations / 10,
            log_written_bytes: operations * 200,
            cpu: Duration::from_micros(operations * 5),
            voluntary_switches: operations / 2,
            resident_bytes: 64 << 20,
        };
        Measured {
            window: Window { elapsed: Duration::from_secs(1), record, waiting: 3 },
            usage: Usage { client_cpu: Duration::from_millis(800), processes: Some(vec![process(1), process(2)]) },
        }
    }

    #[test]
    fn the_median_is_by_throughput() {
        assert_eq!(median(&[measured(30), measured(10), measured(20)]), 2);
        assert_eq!(median(&[measured(30), measured(10)]), 1);
        assert_eq!(median(&[measured(30)]), 0);
    }

    #[test]
    fn what_an_operation_cost_is_told_by_process_and_in_all() {
        let text = as_text(&measured(1_000));
        for part in [
            "put  1000",
            "3 operations were due",
            "errors: 1\n  1  Timeout, outcome unknown",
            "node 1         5.00    0.1000     200        0.500  64 MiB",
            "servers 10.00 us of CPU per operation: 100000 operations per CPU-second",
            "client 800.00 us of CPU per operation; it used 0.80 of a core",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let json = measured_json(&measured(1_000));
        assert_eq!(json["servers"]["cpu_micros_per_operation"], 10.0);
        assert_eq!(json["servers"]["processes"][1]["nodes"], json!([2]));
        assert_eq!(json["servers"]["log_syncs_per_operation"], 0.2);
        let mut silent = measured(1);
        silent.usage.processes = None;
        assert!(as_text(&silent).contains("not every node told"));
        assert_eq!(measured_json(&silent)["servers"], Value::Null);
    }
}
