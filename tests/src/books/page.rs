//! What RELIABILITY.md shows of the books: tables that stand between two marks each.
//!
//! `<!-- books: NAME -->` and `<!-- end -->` enclose what [`filled`] writes there; whatever stands outside of them is left alone.

use std::{collections::BTreeMap, fmt::Write};

use super::{chaos, grouped, matrix, proofs, simulated::Campaign};

/// The texts of all books.
#[derive(Clone, Copy, Debug)]
pub struct Books<'a> {
    /// `tests/simulated.txt`.
    pub simulated: &'a str,
    /// `tests/chaos.jsonl`.
    pub chaos: &'a str,
    /// `tests/mutants.md`.
    pub mutants: &'a str,
    /// `tests/proofs.jsonl`.
    pub proofs: &'a str,
}

/// The page with what the books say.
///
/// # Errors
/// A book that can't be read, a mark of a table that there is none of, or one without an end.
pub fn filled(page: &str, books: &Books<'_>) -> Result<String, String> {
    let mut filled = String::with_capacity(page.len());
    let mut rest = page;
    while let Some((before, marked)) = rest.split_once("<!-- books: ") {
        let (name, after) = marked.split_once(" -->\n").ok_or("a mark has no end")?;
        let (_, after) = after.split_once("<!-- end -->").ok_or_else(|| format!("{name} has no end"))?;
        let table = table(name, books)?;
        write!(filled, "{before}<!-- books: {name} -->\n{table}<!-- end -->").expect("a string takes all");
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn table(name: &str, books: &Books<'_>) -> Result<String, String> {
    let named = |what: String| format!("{name}: {what}");
    match name {
        "simulated" => Ok(simulated(&Campaign::sum(&Campaign::read_all(books.simulated).map_err(named)?))),
        "chaos" => Ok(chaos(&chaos::read_all(books.chaos).map_err(named)?)),
        "matrix" => {
            let made = Campaign::sum(&Campaign::read_all(books.simulated).map_err(named)?).faults;
            let real = chaos::Sum::of(&chaos::read_all(books.chaos).map_err(named)?).faults;
            Ok(matrix::table(&made, &real))
        }
        "failover" => Ok(failover(&chaos::read_all(books.chaos).map_err(named)?)),
        "mutants" => mutants(books.mutants).map_err(named),
        "proofs" => Ok(proofs(&proofs::read_all(books.proofs).map_err(named)?)),
        _ => Err(named("there is no such table".to_owned())),
    }
}

fn simulated(sum: &Campaign) -> String {
    let faults: u64 = sum.faults.values().sum();
    let mut kinds: Vec<_> = sum.faults.iter().map(|(kind, count)| (*count, kind)).collect();
    kinds.sort_unstable_by(|a, b| b.cmp(a));
    let kinds: Vec<_> = kinds.into_iter().map(|(count, kind)| format!("{kind} {}", grouped(count))).collect();
    format!(
        "{:.1} simulated days, seeds {} to {}, {} faults; {} seeds failed when they were run.\n\n{}.\n",
        sum.hours / 24.0,
        grouped(sum.first),
        grouped(sum.last),
        grouped(faults),
        sum.failed.len(),
        kinds.join(", ")
    )
}

fn chaos(lines: &[chaos::Line]) -> String {
    let sum = chaos::Sum::of(lines);
    let mut table = format!(
        "{} runs, {} minutes, {} operations, {} faults; {} of the runs broke a promise.\n\n\
         | faults | runs | minutes | operations | faults made | runs that broke a promise |\n|---|---:|---:|---:|---:|---:|\n",
        sum.runs,
        sum.secs / 60,
        grouped(sum.operations),
        grouped(sum.faults_of_all_kinds()),
        sum.violated
    );
    let mut by_nemesis: BTreeMap<String, Vec<&chaos::Line>> = BTreeMap::new();
    for line in lines {
        let name = match line.nemeses.as_slice() {
            [one] => format!("`{one}`"),
            [] => "none".to_owned(),
            several => format!("{} kinds together, {} nodes", several.len(), line.nodes),
        };
        by_nemesis.entry(name).or_default().push(line);
    }
    for (name, lines) in by_nemesis {
        let sum = chaos::Sum::of(lines.iter().copied());
        let _ = writeln!(
            table,
            "| {name} | {} | {:.1} | {} | {} | {} |",
            sum.runs,
            sum.secs as f64 / 60.0,
            grouped(sum.operations),
            grouped(sum.faults_of_all_kinds()),
            sum.violated
        );
    }
    table
}

fn failover(lines: &[chaos::Line]) -> String {
    let mut all: Vec<u64> = lines.iter().flat_map(|line| line.failover_ms.iter().copied()).collect();
    all.sort_unstable();
    let quantile =
        |of_100: usize| all.get((all.len() * of_100 / 100).min(all.len().saturating_sub(1))).copied().unwrap_or(0);
    format!(
        "{} shards lost their leader to a kill of the busiest node; the first write to each of them succeeded after {} ms (p50), {} ms \
         (p99), {} ms (worst).\n",
        grouped(all.len() as u64),
        grouped(quantile(50)),
        grouped(quantile(99)),
        grouped(quantile(100))
    )
}

/// The table as it was printed, without the blanks that line it up.
fn mutants(printed: &str) -> Result<String, String> {
    let mut table = String::new();
    for line in printed.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    }
    let sum = printed.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if table.is_empty() || sum.starts_with('|') {
        return Err("the table has no rows, or no sum below it".to_owned());
    }
    Ok(format!("{sum}.\n\n{table}"))
}

fn proofs(proofs: &[proofs::Proof]) -> String {
    let mut table = "| what | run with | it said | on |\n|---|---|---|---|\n".to_owned();
    for proof in proofs {
        let said = proof.said.replace('|', "\\|");
        let _ = writeln!(table, "| {} | `{}` | {said} | {} |", proof.what, proof.command, proof.date);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKS: Books<'_> = Books {
        simulated: "seeds 1..9 hours 48.00 failed 1 (3) crash 5 kill 2000\n",
        chaos: "{\"nemeses\":[\"kill\"],\"secs\":90,\"operations\":1500,\"faults\":{\"kill\":3},\"failover_ms\":[700,500,900]}\n\
                {\"nemeses\":[\"kill\"],\"secs\":30,\"violations\":[\"lost\"]}\n\
                {\"nemeses\":[\"kill\",\"pause\"],\"nodes\":5,\"secs\":60}\n",
        mutants: "| bug | found   |\n| --- | --- |\n| B1  | yes |\n\n1 bugs looked for, 0 failed, 0 left out\n",
        proofs: "{\"date\":\"2026-11-22\",\"command\":\"sim --networks\",\"what\":\"networks\",\"said\":\"none unsafe\"}\n",
    };

    #[test]
    fn what_stands_between_the_marks_is_what_the_books_say() {
        let page = "a\n<!-- books: simulated -->\nold\n<!-- end -->\nb\n<!-- books: failover -->\n<!-- end -->\n";
        let once = filled(page, &BOOKS).unwrap();
        assert!(once.starts_with(
            "a\n<!-- books: simulated -->\n2.0 simulated days, seeds 1 to 9, 2,005 faults; 1 seeds failed"
        ));
        assert!(once.contains("kill 2,000, crash 5.\n<!-- end -->\nb\n<!-- books: failover -->\n3 shards"));
        assert!(once.contains("after 700 ms (p50), 900 ms (p99), 900 ms (worst).\n<!-- end -->\n"));
        assert_eq!(filled(&once, &BOOKS).unwrap(), once);
    }

    #[test]
    fn tables_have_a_row_for_each() {
        let page = |name| filled(&format!("<!-- books: {name} -->\n<!-- end -->"), &BOOKS).unwrap();
        assert!(page("chaos").contains("| `kill` | 2 | 2.0 | 1,500 | 3 | 1 |\n"), "{}", page("chaos"));
        assert!(page("chaos").contains("| 2 kinds together, 5 nodes | 1 | 1.0 | 0 | 0 | 0 |\n"));
        assert!(page("mutants").contains("0 left out.\n\n| bug | found |\n| --- | --- |\n| B1 | yes |\n"));
        assert!(page("proofs").contains("| networks | `sim --networks` | none unsafe | 2026-11-22 |\n"));
    }

    #[test]
    fn what_can_not_be_filled_is_told() {
        for (page, why) in [
            ("<!-- books: other -->\n<!-- end -->", "other: there is no such table"),
            ("<!-- books: chaos -->\n", "chaos has no end"),
            ("<!-- books: chaos", "a mark has no end"),
        ] {
            assert_eq!(filled(page, &BOOKS), Err(why.to_owned()));
        }
        let broken = Books { mutants: "| a |\n", ..BOOKS };
        assert!(filled("<!-- books: mutants -->\n<!-- end -->", &broken).is_err());
    }
}
