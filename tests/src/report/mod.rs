//! A run as one page for people: HTML with its pictures inside, which needs nothing but a browser.
//!
//! The verdict stands on top, with what broke it if anything did. Below, one above the other and on one axis of time: what was done to
//! the cluster, operations by how they ended, latency, and who led which shard. What happened while a node was away can be read
//! downwards. Everything is drawn from the run alone.

pub mod svg;

mod axis;
mod clash;
mod lanes;
mod rates;
mod slices;

use crate::{
    history::run::{Run, What},
    verdict::{Judged, Status, Verdict, text, words},
};

use axis::Axis;
use slices::Slices;
use svg::escaped;

/// The page of a run and what came of judging it. `command` is what repeats the judging, or the run.
#[must_use]
pub fn html(run: &Run, judged: &Judged, command: &str) -> String {
    let axis = Axis::of(run.until_micros());
    let slices = Slices::of(run.history.operations(), &axis);
    let title = if run.about.workload.is_empty() { "A history".to_owned() } else { run.about.workload.clone() };
    let mut body = banner(judged);
    body +=
        &format!("<h1>{}</h1>\n<p class=\"lead\">{}</p>\n", escaped(&heading(run)), escaped(&text::about(run)[0].1));
    body += &tiles(run, &slices);
    for (promise, violated) in judged.violations() {
        body += &clash::section(promise, violated);
    }
    body += "<h2>What happened</h2>\n<p>All on one axis of time. Point at a picture for its figures; shaded is when something was \
             being done to the cluster.</p>\n<div class=\"stack\">\n";
    body += &lanes::faults(run, &axis);
    body += &rates::operations(run, &slices, &axis);
    body += &rates::latency(run, &slices, &axis);
    body += &lanes::leaders(run, &axis);
    body += "</div>\n<h2>What was promised</h2>\n";
    body += &promises(judged);
    body += "<h2>The run</h2>\n";
    body += &settings(run);
    body += &format!("<pre>{}</pre>\n", escaped(command));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}: {}</title>\n<style>{STYLE}</style></head>\n<body><main>\n{body}</main></body></html>\n",
        escaped(&title),
        word(judged.verdict()),
    )
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Violated => "violated",
        Verdict::Undecided => "undecided",
    }
}

fn banner(judged: &Judged) -> String {
    let (sign, words) = match judged.verdict() {
        Verdict::Ok => ("&#10003;", "Every promise was held"),
        Verdict::Violated => ("&#10007;", "A promise was broken"),
        Verdict::Undecided => ("?", "Not everything can be told"),
    };
    let line = text::headline(judged);
    let line = line.split_once(": ").map_or(line.as_str(), |(_, rest)| rest);
    format!(
        "<div class=\"banner {}\"><b>{sign}</b><div><strong>{words}</strong><span>{}</span></div></div>\n",
        word(judged.verdict()),
        escaped(line)
    )
}

fn heading(run: &Run) -> String {
    let faults: std::collections::BTreeSet<_> = run
        .events
        .iter()
        .filter_map(|event| if let What::Fault { name, .. } = &event.what { Some(name.as_str()) } else { None })
        .collect();
    let span = words::span(run.until_micros());
    match faults.len() {
        0 => format!("{span} without faults"),
        1..=6 => format!("{span} with {}", faults.into_iter().collect::<Vec<_>>().join(", ")),
        count => format!("{span} with {count} kinds of faults"),
    }
}

fn tiles(run: &Run, slices: &Slices) -> String {
    let counts = text::Counts::of(run.history.operations());
    let seconds = (run.until_micros() as f64 / 1e6).max(1e-6);
    let faults = run.events.iter().filter(|event| matches!(event.what, What::Fault { .. })).count();
    let tile = |figure: &str, what: &str| format!("<div><b>{figure}</b><span>{what}</span></div>");
    let latency = |share: f64| slices.quantile(share).map_or("-".to_owned(), words::span);
    let tiles = [
        tile(&words::number(counts.operations), "operations"),
        tile(&svg::short(counts.ok as f64 / seconds), "done a second"),
        tile(&words::number(counts.fail), "refused"),
        tile(&words::number(counts.unknown), "outcome unknown"),
        tile(&latency(0.5), "median latency"),
        tile(&latency(0.99), "99th percentile"),
        tile(&words::number(faults), "faults"),
        tile(&words::span(slices.longest_silence_micros()), "longest without an answer"),
    ];
    format!("<div class=\"tiles\">{}</div>\n", tiles.concat())
}

fn promises(judged: &Judged) -> String {
    let mut rows = String::new();
    for finding in &judged.findings {
        let (class, sign, detail) = match &finding.status {
            Status::Held(judged) => ("ok", "&#10003;", judged.clone()),
            Status::NotAsked(why) => ("none", "&#8211;", format!("not asked for: {why}")),
            Status::Undecided(why) => ("undecided", "?", why.clone()),
            Status::Violated(violated) => ("violated", "&#10007;", violated.why.clone()),
        };
        let (words, detail) = (escaped(finding.promise.words()), escaped(&detail));
        rows += &format!("<tr class=\"{class}\"><td>{sign}</td><td>{words}</td><td>{detail}</td></tr>\n");
    }
    format!("<div class=\"wide\"><table>{rows}</table></div>\n")
}

fn settings(run: &Run) -> String {
    let about = &run.about;
    let settings = &about.settings;
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    for (label, text) in text::about(run) {
        row(label, text);
    }
    row("nodes", about.nodes.join(", "));
    row("durability", format!("{:?}", settings.durability).to_lowercase());
    row("clock drift allowed", format!("{} ppm", settings.clock_drift_ppm));
    for (name, value) in &settings.others {
        row(name, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    let shown = rows.iter().filter(|(_, value)| !value.is_empty());
    let rows: String = shown
        .map(|(name, value)| format!("<tr><th>{}</th><td>{}</td></tr>\n", escaped(name), escaped(value)))
        .collect();
    format!("<div class=\"wide\"><table>{rows}</table></div>\n")
}

/// Colours that people with any eyes can tell apart (after Okabe and Ito), on light and on dark.
const STYLE: &str = "
:root{--paper:#fff;--ink:#1c2733;--faint:#68778a;--grid:#e6eaef;--card:#fafbfc;--band:#f0803c;--good:#0a7d55;--goodpaper:#e3f5ec;
--bad:#b3261e;--badpaper:#fdeaea;--doubt:#8a6100;--doubtpaper:#fff4d9;--ok:#56b4e9;--fail:#8a97a6;--unknown:#e69f00;--p50:#0072b2;--p99:#d55e00;
--n1:#0072b2;--n2:#e69f00;--n3:#009e73;--n4:#cc79a7;--n5:#56b4e9;--n6:#d55e00;--n7:#8a97a6}
@media(prefers-color-scheme:dark){:root{--paper:#11161c;--ink:#e4eaf1;--faint:#93a1b2;--grid:#262f3a;--card:#171d25;--band:#f0803c;
--good:#5fd3a4;--goodpaper:#12291f;--bad:#ff8a80;--badpaper:#331819;--doubt:#f0c35a;--doubtpaper:#2e2612;--ok:#3f8fc0;--fail:#6c7a8a;--unknown:#f0b840;
--p50:#6fbdf0;--p99:#f0905c;--n1:#4aa8e0;--n2:#f0b840;--n3:#3fc79a;--n4:#e29cc4;--n5:#8fd0f5;--n6:#f0803c;--n7:#8a97a6}}
body{background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif;margin:0}
main{max-width:1080px;margin:0 auto;padding:28px 24px 64px}
h1{font-size:26px;margin:22px 0 2px}h2{font-size:19px;margin:38px 0 4px}p{margin:4px 0 12px;color:var(--faint)}.lead{font-size:15px}
.banner{display:flex;align-items:center;gap:18px;border-radius:12px;padding:16px 22px}
.banner b{font-size:34px;line-height:1}.banner strong{display:block;font-size:21px}.banner span{opacity:.85}
.banner.ok{background:var(--goodpaper);color:var(--good)}.banner.violated{background:var(--badpaper);color:var(--bad)}
.banner.undecided{background:var(--doubtpaper);color:var(--doubt)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(118px,1fr));gap:10px;margin:14px 0}
.tiles div{background:var(--card);border:1px solid var(--grid);border-radius:8px;padding:9px 12px}
.tiles b{display:block;font-size:19px;font-variant-numeric:tabular-nums;white-space:nowrap}.tiles span{color:var(--faint);font-size:12.5px}
.stack{display:flex;flex-direction:column;gap:10px}
svg{background:var(--card);border:1px solid var(--grid);border-radius:8px;max-width:100%;height:auto;display:block}
text{font:12px system-ui,sans-serif;fill:var(--faint)}.title{font-size:14px;font-weight:600;fill:var(--ink)}.name{fill:var(--ink)}
.grid,.row{stroke:var(--grid)}.band{fill:var(--band);opacity:.11}.fault{fill:var(--band);opacity:.85}.note{fill:var(--faint)}
.end{stroke:var(--faint);stroke-dasharray:4 4}.sok{fill:var(--ok)}.sfail{fill:var(--fail)}.sunknown{fill:var(--unknown)}
.lp50,.lp99{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}.lp50{stroke:var(--p50)}.lp99{stroke:var(--p99)}.fp50{fill:var(--p50)}.fp99{fill:var(--p99)}
.point{fill:transparent}.point:hover{fill:var(--ink);opacity:.08}
.n1{fill:var(--n1)}.n2{fill:var(--n2)}.n3{fill:var(--n3)}.n4{fill:var(--n4)}.n5{fill:var(--n5)}.n6{fill:var(--n6)}.n7{fill:var(--n7)}
.on{fill:#fff;font-weight:600;font-size:11px}
.bar{fill:var(--ok);opacity:.9}.bar.write{fill:var(--n3)}.bar.last{fill:var(--bad)}.bar.open{opacity:.45}.moment{stroke:var(--grid);stroke-dasharray:2 4}
.broken h2{margin-top:6px}.broken{border-left:4px solid var(--bad);padding:2px 0 2px 18px;margin-top:26px}.broken p{color:var(--ink)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13.5px}td,th{text-align:left;padding:5px 18px 5px 0;vertical-align:top;font-weight:400}
th{color:var(--faint);white-space:nowrap}tr+tr>*{border-top:1px solid var(--grid)}
tr.ok td:first-child{color:var(--good)}tr.violated td{color:var(--bad)}tr.undecided td{color:var(--doubt)}tr.none td{color:var(--faint)}td:nth-child(3){color:var(--faint)}
pre{background:var(--card);border:1px solid var(--grid);border-radius:8px;padding:12px;overflow-x:auto}
";

#[cfg(test)]
mod tests;
