//! The figures as one page for people: HTML with its plots inside, which needs nothing but a browser.

mod cost;
mod curves;
mod distribution;
mod plot;

use crate::{
    report::FIGURES,
    systems::Kind,
    workload::{Tier, Workload},
};

use kv_tests::report::svg::escaped;
use plot::Plot;

/// A system under a workload: medians of its turns, and the latencies of all of them.
#[derive(Debug)]
pub(crate) struct Row {
    /// What was asked.
    pub(crate) workload: &'static Workload,
    /// Of whom.
    pub(crate) kind: Kind,
    /// As in [`FIGURES`].
    pub(crate) figures: [f64; FIGURES.len()],
    /// Milliseconds, ascending, and how many operations took about so long.
    pub(crate) latencies: Vec<(f64, u64)>,
}

impl Row {
    fn per_second(&self) -> f64 {
        self.figures[0]
    }

    fn p50_ms(&self) -> f64 {
        self.figures[1]
    }

    fn p99_ms(&self) -> f64 {
        self.figures[2]
    }

    fn cpu_micros(&self) -> f64 {
        self.figures[3]
    }
}

/// What else the page tells.
#[derive(Debug)]
pub(crate) struct About<'a> {
    /// The systems, in words.
    pub(crate) systems: &'a [String],
    /// What the disk does by itself.
    pub(crate) disk: &'a str,
    /// The machine's cores.
    pub(crate) cores: usize,
    /// What repeats the run.
    pub(crate) command: &'a str,
}

/// The page.
pub(crate) fn html(rows: &[Row], about: &About<'_>) -> String {
    let mut body = String::from("<h1>kv and its peers, on one machine</h1>\n");
    let cores = about.cores;
    body += &format!(
        "<p class=\"lead\">The same load on each system in turn, {cores} cores for load and servers together. Medians of all \
         turns.</p>\n"
    );
    body += &legend(rows);
    body += "<h2>Throughput against latency</h2>\n<p>A line for each system, a point for each number of operations \
             outstanding: further right is more, lower is sooner. The dot is the median; the hair above it reaches to \
             the 99th percentile.</p>\n<div class=\"plots\">\n";
    for tier in [Tier::QuorumDisk, Tier::Read, Tier::LeaderMemory] {
        body += &inline(curves::plot(tier, rows));
    }
    body += "</div>\n<h2>CPU for one operation</h2>\n<p>Of the servers alone, all nodes together. Further left is \
             cheaper.</p>\n<div class=\"plots\">\n";
    body += &inline(cost::plot(rows));
    body += "</div>\n<h2>How latencies are spread</h2>\n<p>The higher the hill, the more operations took about so long; \
             the marks are the median and the 99th percentile.</p>\n<div class=\"plots\">\n";
    for workload in crate::workload::ALL {
        body += &inline(distribution::plot(workload, rows));
    }
    body += "</div>\n<h2>All figures</h2>\n";
    body += &table(rows);
    body += "<h2>What was run</h2>\n<ul>\n";
    for system in about.systems {
        body += &format!("<li>{}</li>\n", escaped(system));
    }
    body += &format!("<li>the disk alone: {}</li>\n</ul>\n", escaped(about.disk));
    body += "<p>Load and servers share the machine, which all systems meet alike. Only systems that promise the same stand \
             in one plot; Redis is not linearizable in any of its settings. The echo keeps nothing and promises \
             nothing: it is what client, gRPC and sockets can do at most.</p>\n";
    body += &format!("<pre>{}</pre>\n", escaped(about.command));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>kv and its peers</title>\n<style>{STYLE}</style></head>\n<body><main>\n{body}</main></body></html>\n"
    )
}

fn inline(plot: Option<Plot>) -> String {
    plot.map(|plot| plot.inline()).unwrap_or_default()
}

/// The plots of throughput and CPU by themselves: the names of files and what is in them.
pub(crate) fn files(rows: &[Row]) -> Vec<(&'static str, String)> {
    let plots = [
        ("puts.svg", curves::plot(Tier::QuorumDisk, rows)),
        ("gets.svg", curves::plot(Tier::Read, rows)),
        ("async-puts.svg", curves::plot(Tier::LeaderMemory, rows)),
        ("cpu.svg", cost::plot(rows)),
    ];
    let kinds: Vec<_> = used(rows).collect();
    plots.into_iter().filter_map(|(name, plot)| Some((name, plot?.file(&kinds)))).collect()
}

/// The name that a system's colour has.
fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Kv => "kv",
        Kind::KvRedb => "kv-redb",
        Kind::KvUnary => "kv-unary",
        Kind::KvAsync => "kv-async",
        Kind::Etcd => "etcd",
        Kind::RedisWait => "redis-wait",
        Kind::Redis => "redis",
        Kind::Echo => "echo",
    }
}

/// The systems that were measured.
fn used(rows: &[Row]) -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| rows.iter().any(|row| row.kind == *kind))
}

fn legend(rows: &[Row]) -> String {
    let entry = |kind: Kind| format!("<span class=\"key\"><i class=\"{}\"></i>{}</span>", class(kind), kind.name());
    format!("<p class=\"legend\">{}</p>\n", used(rows).map(entry).collect::<String>())
}

/// A workload, short enough for a plot.
fn short_name(workload: &Workload) -> String {
    let size = match workload.value_bytes {
        bytes if bytes >= 1_024 => format!("{} KiB", bytes / 1_024),
        bytes => format!("{bytes} B"),
    };
    let what = match workload.tier {
        Tier::Read => "get",
        _ if workload.is_new => "put, new keys",
        _ => "put",
    };
    let when = if workload.tier == Tier::LeaderMemory { "async " } else { "" };
    format!("{when}{what}, {} out, {size}", workload.out)
}

fn table(rows: &[Row]) -> String {
    let heads: String = FIGURES.iter().map(|(name, ..)| format!("<th>{}</th>", escaped(name))).collect();
    let mut lines = format!("<div class=\"wide\"><table><tr><th></th><th></th>{heads}</tr>\n");
    let mut last = "";
    for row in rows {
        let (name, begins) = (row.workload.name, row.workload.name != last);
        last = name;
        let cells = FIGURES.iter().zip(row.figures);
        let cells: String = cells.map(|((_, digits, _), value)| format!("<td>{value:.digits$}</td>")).collect();
        lines += &format!(
            "<tr{}><th>{}</th><th><i class=\"{}\"></i>{}</th>{cells}</tr>\n",
            if begins { " class=\"begins\"" } else { "" },
            if begins { name } else { "" },
            class(row.kind),
            row.kind.name()
        );
    }
    lines + "</table></div>\n"
}

/// Colours that people with any eyes can tell apart (Okabe and Ito's), on light and on dark.
const STYLE: &str = "
:root{--paper:#fff;--ink:#1c2733;--faint:#68778a;--grid:#e6eaef;--card:#fafbfc;
--kv:#0072b2;--kv-async:#56b4e9;--kv-unary:#009e73;--kv-redb:#7a4fb5;--etcd:#e69f00;--redis-wait:#d55e00;--redis:#cc79a7;--echo:#8a97a6}
@media(prefers-color-scheme:dark){:root{--paper:#11161c;--ink:#e4eaf1;--faint:#93a1b2;--grid:#262f3a;--card:#171d25;
--kv:#4aa8e0;--kv-async:#8fd0f5;--kv-unary:#3fc79a;--kv-redb:#b79ae0;--etcd:#f0b840;--redis-wait:#f0803c;--redis:#e29cc4;--echo:#8a97a6}}
body{background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif;margin:0}
main{max-width:1080px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:28px;margin:0 0 4px}h2{font-size:19px;margin:40px 0 4px}p{margin:4px 0 12px;color:var(--faint)}
.lead{font-size:16px}.legend{position:sticky;top:0;background:var(--paper);padding:10px 0;margin:0;
border-bottom:1px solid var(--grid)}
.key{margin-right:20px;color:var(--ink);white-space:nowrap}
i{display:inline-block;width:11px;height:11px;border-radius:50%;margin-right:7px;background:var(--c)}
.plots{display:flex;flex-wrap:wrap;gap:16px}
svg{background:var(--card);border:1px solid var(--grid);border-radius:8px;max-width:100%;height:auto}
.kv{--c:var(--kv)}.kv-async{--c:var(--kv-async)}.kv-unary{--c:var(--kv-unary)}.kv-redb{--c:var(--kv-redb)}.etcd{--c:var(--etcd)}.redis-wait{--c:var(--redis-wait)}
.redis{--c:var(--redis)}.echo{--c:var(--echo)}
text{font:12px system-ui,sans-serif;fill:var(--faint)}.title{font-size:14px;font-weight:600;fill:var(--ink)}
.name{fill:var(--ink)}.grid{stroke:var(--grid)}.row{stroke:var(--grid)}
circle{fill:var(--c);stroke:var(--card);stroke-width:1.5}.curve{fill:none;stroke:var(--c);stroke-width:2}
.echo.curve{stroke-dasharray:5 4}.hair{stroke:var(--c);stroke-width:1.5;opacity:.55}
.hill{fill:var(--c);fill-opacity:.28;stroke:var(--c);stroke-width:1.5;stroke-linejoin:round}
.mark{stroke:var(--c);stroke-width:2}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:500;padding:3px 12px 3px 0}td{text-align:right;padding:3px 0 3px 16px}
tr.begins>*{border-top:1px solid var(--grid);padding-top:7px}
pre{background:var(--card);border:1px solid var(--grid);border-radius:8px;padding:12px;overflow-x:auto}
";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A row with made-up figures.
    pub(crate) fn row(name: &str, kind: Kind, per_second: f64, p50_ms: f64, cpu_micros: f64) -> Row {
        let workload = crate::workload::ALL.iter().find(|workload| workload.name == name).unwrap();
        let latencies = [(p50_ms / 2.0, 10), (p50_ms, 80), (p50_ms * 2.0, 9), (p50_ms * 5.0, 1)].to_vec();
        let figures = [per_second, p50_ms, p50_ms * 3.0, cpu_micros, 1e6 / cpu_micros, 0.1, 0.0];
        Row { workload, kind, figures, latencies }
    }

    #[test]
    fn the_page_shows_every_system_and_loads_nothing() {
        let rows = [
            row("put-1", Kind::Kv, 2_000.0, 0.5, 515.0),
            row("put-64", Kind::Kv, 36_000.0, 1.7, 41.0),
            row("put-64", Kind::Etcd, 6_600.0, 9.0, 140.0),
            row("put-64", Kind::Echo, 300_000.0, 0.2, 3.0),
            row("get-64", Kind::Redis, 300_000.0, 0.2, 1.0),
        ];
        let systems = ["kv: <1.0>".to_owned()];
        let about = About { systems: &systems, disk: "4000 a second", cores: 2, command: "peers --html a.html" };
        let page = html(&rows, &about);
        for kind in [Kind::Kv, Kind::Etcd, Kind::Echo, Kind::Redis] {
            assert!(page.contains(&format!("class=\"{}\"></i>{}", class(kind), kind.name())), "{}", kind.name());
        }
        assert!(!page.contains("etcd</i>Redis always") && page.contains("kv: &lt;1.0&gt;"));
        assert!(!page.contains("http"), "nothing is fetched");
        assert!(!page.contains("NaN") && !page.contains("inf\""), "every place is a number");
        // Two plots of throughput, one of CPU, three of latencies: no empty one.
        assert_eq!((page.matches("<svg").count(), page.matches("</svg>").count()), (6, 6));
        assert_eq!(page.matches(" hill\"").count(), rows.len());
        let files = files(&rows);
        assert_eq!(files.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["puts.svg", "gets.svg", "cpu.svg"]);
        for (name, svg) in &files {
            assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n") && svg.contains("<style>"), "{name}");
            assert!(svg.contains(&format!("class=\"name\">{}", Kind::Etcd.name())), "{name} has a legend");
            assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{name}");
        }
    }
}
