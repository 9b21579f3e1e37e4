//! What a benchmark has to say, with all that a reader needs to run it again.

use std::time::Duration;

use kv_client::ClusterStatus;
use serde_json::{Value, json};

use super::record::{Record, Side};
use crate::{
    args::{Bench, Common, Format, consistency_text},
    exit::Exit,
    output::{Output, table},
};

const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Writes the report.
pub(super) fn write(
    bench: &Bench,
    common: &Common,
    record: &Record,
    elapsed: Duration,
    status: &ClusterStatus,
    output: &Output,
) -> Result<(), Exit> {
    let errors: u64 = record.errors.values().sum();
    let repeat = command(bench, common);
    let shards = status.shards.len().saturating_sub(1);
    match output.format {
        Format::Json => output.line(json!({
            "elapsed_seconds": elapsed.as_secs_f64(),
            "operations_per_second": rate(record.puts.latency.len() + record.gets.latency.len(), elapsed),
            "put": side_json(&record.puts, elapsed),
            "get": side_json(&record.gets, elapsed),
            "errors": record.errors,
            "command": repeat,
            "client": env!("CARGO_PKG_VERSION"),
            "cluster": { "id": status.cluster.to_string(), "nodes": status.nodes.len(), "shards": shards },
        })),
        Format::Table | Format::Raw => {
            let mut rows = Vec::new();
            let total = record.puts.latency.len() + record.gets.latency.len();
            for (name, side) in [("put", &record.puts), ("get", &record.gets)] {
                if !side.latency.is_empty() {
                    rows.push(row(name, side, elapsed));
                }
            }
            let header = ["", "COUNT", "PER SECOND", "MEAN ms", "P50", "P90", "P99", "P99.9", "MAX"];
            output.line(table(header, rows))?;
            let per_second = rate(total, elapsed);
            output.line(format!("\ntotal {total} in {:.2} s, {per_second:.0} per second", elapsed.as_secs_f64()))?;
            if !record.gets.latency.is_empty() {
                let found = 100.0 * record.gets.found as f64 / record.gets.latency.len() as f64;
                output.line(format!("gets that found their key: {found:.1} %"))?;
            }
            output.line(format!("errors: {errors}"))?;
            for (name, count) in &record.errors {
                output.line(format!("  {count}  {name}"))?;
            }
            output.line(format!("\nrepeat with: {repeat}"))?;
            output.line(format!(
                "client {} on {} threads of this machine (it uses one); cluster {} of {} nodes, {shards} shards",
                env!("CARGO_PKG_VERSION"),
                std::thread::available_parallelism().map_or(0, usize::from),
                status.cluster,
                status.nodes.len(),
            ))
        }
    }
}

fn row(name: &str, side: &Side, elapsed: Duration) -> [String; 9] {
    let count = side.latency.len();
    let [p50, p90, p99, p999, max] = QUANTILES.map(|(_, quantile)| ms(side.latency.value_at_quantile(quantile) as f64));
    let rate = format!("{:.0}", rate(count, elapsed));
    [name.to_owned(), count.to_string(), rate, ms(side.latency.mean()), p50, p90, p99, p999, max]
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

/// The whole command, defaults included.
fn command(bench: &Bench, common: &Common) -> String {
    let put = bench.mix.put_percent;
    let length = match bench.count {
        Some(count) => format!("--count {count}"),
        None => format!("--duration {}", humantime::format_duration(bench.duration).to_string().replace(' ', "")),
    };
    format!(
        "kv --endpoints {} --timeout {} bench --mix put={put},get={} --out {} --keys {} --prefix {} --value-bytes {} \
         {length} --consistency {} --seed {}{}{}",
        common.endpoints,
        humantime::format_duration(common.timeout).to_string().replace(' ', ""),
        100 - put,
        bench.out,
        bench.keys,
        bench.prefix,
        bench.value_bytes,
        consistency_text(bench.consistency),
        bench.seed,
        if bench.fill { " --fill" } else { "" },
        if bench.is_async { " --async" } else { "" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    #[test]
    fn the_command_to_repeat_is_the_command() {
        let given = ["kv", "--endpoints", "a:1,b:2", "bench", "--mix", "get", "--count", "5", "--async", "--fill"];
        let args = Args::parse_from(given);
        let Command::Bench(bench) = &args.command else { panic!("a bench") };
        let text = command(bench, &args.common);
        let again = Args::parse_from(text.split(' '));
        assert_eq!(format!("{again:?}"), format!("{args:?}"));
        assert_eq!(
            text,
            "kv --endpoints a:1,b:2 --timeout 5s bench --mix put=0,get=100 --out 64 --keys 10000 --prefix bench/ \
             --value-bytes 100 --count 5 --consistency linearizable --seed 1 --fill --async"
        );
    }
}
