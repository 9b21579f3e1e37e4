//! The figures: medians in a table for people, everything as JSON; what the page shows is gathered here too.

use std::collections::BTreeMap;

use kv_client::load::Window;
use serde_json::{Value, json};

use crate::{
    measure::Usage,
    page::{self, About, Row},
    systems::Kind,
    workload::{self, Workload},
};

/// One turn of one system.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) window: Window,
    pub(crate) used: Usage,
}

impl Cell {
    fn latency_micros(&self, quantile: f64) -> u64 {
        let record = &self.window.record;
        record.puts.latency.value_at_quantile(quantile).max(record.gets.latency.value_at_quantile(quantile))
    }

    fn cpu_micros(&self) -> f64 {
        self.used.cpu.as_secs_f64() * 1e6 / self.window.operations().max(1) as f64
    }

    fn switches(&self) -> f64 {
        self.used.voluntary_switches as f64 / self.window.operations().max(1) as f64
    }
}

/// All turns.
#[derive(Debug)]
pub(crate) struct Report {
    systems: Vec<String>,
    cells: BTreeMap<&'static str, BTreeMap<Kind, Vec<Cell>>>,
    /// What the disk does by itself.
    pub(crate) disk: Option<String>,
}

/// What is told of a system: a name, its digits, and where it is found.
pub(crate) type Figure = (&'static str, usize, fn(&Cell) -> f64);

pub(crate) const FIGURES: [Figure; 7] = [
    ("PER SECOND", 0, |cell| cell.window.per_second()),
    ("P50 ms", 3, |cell| cell.latency_micros(0.5) as f64 / 1e3),
    ("P99 ms", 3, |cell| cell.latency_micros(0.99) as f64 / 1e3),
    ("CPU us/op", 2, Cell::cpu_micros),
    ("OPS/CPU-s", 0, |cell| 1e6 / cell.cpu_micros().max(1e-9)),
    ("WAITS/op", 3, Cell::switches),
    ("ERRORS", 0, |cell| cell.window.record.failures() as f64),
];

impl Report {
    /// Of these systems, in words.
    pub(crate) fn new(systems: Vec<String>) -> Self {
        Self { systems, cells: BTreeMap::new(), disk: None }
    }

    /// A turn is over.
    pub(crate) fn add(&mut self, workload: &Workload, kind: Kind, cell: Cell) {
        self.cells.entry(workload.name).or_default().entry(kind).or_default().push(cell);
    }

    /// A workload's medians, and ours against each other system's.
    pub(crate) fn table(&self, workload: &Workload) -> String {
        let mut text = format!("{}: {}\n{:24}", workload.name, workload.describe(), "");
        for (name, ..) in FIGURES {
            text += &format!("{name:>12}");
        }
        text += "   kv against it: THROUGHPUT   PER CPU   P99\n";
        let systems = self.cells.get(workload.name);
        let ours =
            systems.and_then(|systems| systems.iter().find(|(kind, _)| matches!(kind, Kind::Kv | Kind::KvAsync)));
        for (kind, cells) in systems.into_iter().flatten() {
            text += &format!("{:24}", kind.name());
            for (_, digits, figure) in FIGURES {
                text += &format!("{:12.digits$}", median(cells, figure));
            }
            if let Some((_, ours)) = ours.filter(|(us, _)| *us != kind) {
                let ratio = |index: usize| median(ours, FIGURES[index].2) / median(cells, FIGURES[index].2).max(1e-9);
                text += &format!("{:>29.2}{:10.2}{:6.2}", ratio(0), ratio(4), ratio(2));
            }
            text += "\n";
        }
        text
    }

    /// Plots as files of their own.
    pub(crate) fn plots(&self) -> Vec<(&'static str, String)> {
        page::files(&self.all_rows())
    }

    /// A page of plots.
    pub(crate) fn html(&self, command: &str) -> String {
        let rows = self.all_rows();
        let disk = self.disk.as_deref().unwrap_or("not measured");
        page::html(&rows, &About { systems: &self.systems, disk, cores: cores(), command })
    }

    fn all_rows(&self) -> Vec<Row> {
        workload::ALL.iter().flat_map(|workload| self.rows(workload)).collect()
    }

    fn rows(&self, workload: &'static Workload) -> impl Iterator<Item = Row> {
        self.cells.get(workload.name).into_iter().flatten().map(move |(kind, cells)| Row {
            workload,
            kind: *kind,
            figures: FIGURES.map(|(_, _, figure)| median(cells, figure)),
            latencies: latencies(cells),
        })
    }

    /// Everything.
    pub(crate) fn json(&self, command: &str) -> String {
        let workloads = self.cells.iter().map(|(name, systems)| {
            let systems = systems.iter().map(|(kind, cells)| {
                let turns: Vec<_> = cells.iter().map(turn_json).collect();
                let medians =
                    FIGURES.iter().map(|(name, _, figure)| ((*name).to_owned(), json!(median(cells, *figure))));
                json!({ "system": kind.name(), "median": Value::Object(medians.collect()), "turns": turns })
            });
            json!({ "workload": name, "systems": systems.collect::<Vec<_>>() })
        });
        json!({
            "command": command,
            "systems": self.systems,
            "disk": self.disk,
            "cores": cores(),
            "workloads": workloads.collect::<Vec<_>>(),
        })
        .to_string()
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// Milliseconds with how many operations took about so long, ascending, of all turns together.
fn latencies(cells: &[Cell]) -> Vec<(f64, u64)> {
    let mut counts = BTreeMap::<u64, u64>::new();
    for side in cells.iter().flat_map(|cell| [&cell.window.record.puts, &cell.window.record.gets]) {
        for step in side.latency.iter_recorded() {
            *counts.entry(step.value_iterated_to()).or_default() += step.count_at_value();
        }
    }
    counts.into_iter().map(|(micros, count)| (micros as f64 / 1e3, count)).collect()
}

fn turn_json(cell: &Cell) -> Value {
    let figures = FIGURES.iter().map(|(name, _, figure)| ((*name).to_owned(), json!(figure(cell))));
    let mut turn = Value::Object(figures.collect());
    turn["resident_bytes"] = json!(cell.used.resident_bytes);
    turn["errors"] = json!(cell.window.record.errors);
    turn
}

/// The median; of an even number, the lower of the two in the middle.
fn median(cells: &[Cell], figure: fn(&Cell) -> f64) -> f64 {
    let mut values: Vec<_> = cells.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_client::load::{Kind as Operation, Record};
    use std::time::Duration;

    fn cell(operations: u64) -> Cell {
        let mut record = Record::default();
        for _ in 0..operations {
            record.add(Operation::Put, Duration::from_millis(2), Ok(true));
        }
        let used = Usage { cpu: Duration::from_millis(10), voluntary_switches: operations, resident_bytes: 1 };
        Cell { window: Window { elapsed: Duration::from_secs(1), record, waiting: 0 }, used }
    }

    #[test]
    fn medians_are_compared() {
        let workload = &workload::ALL[0];
        let mut report = Report::new(Vec::new());
        for operations in [900, 1_000, 5_000] {
            report.add(workload, Kind::Kv, cell(operations));
        }
        report.add(workload, Kind::Etcd, cell(100));
        let table = report.table(workload);
        let etcd = table.lines().find(|line| line.starts_with("etcd")).unwrap();
        assert!(etcd.contains("10.00") && table.contains("100000"), "{table}");
        assert!(report.html("peers").contains("10.00"), "medians are on the page too");
        let spread = latencies(&[cell(3), cell(2)]);
        assert!(spread.len() == 1 && spread[0].1 == 5 && (1.99..2.01).contains(&spread[0].0), "{spread:?}");
        assert_eq!(median(&[cell(3), cell(1), cell(2), cell(4)], |cell| cell.window.operations() as f64), 2.0);
    }
}
