//! Runs that add up: a file of JSON lines, one a run, which says what was run with which verdict.
//!
//! Lines are only ever added, so that the file of two branches merges.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use kv_tests::books::chaos::{Line, Sum, read_all};

/// Adds a run to the file.
pub(crate) fn add(path: &Path, line: &Line) -> Result<(), String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = serde_json::to_string(line).map_err(|error| error.to_string())?;
    let mut file = File::options().create(true).append(true).open(path).map_err(named)?;
    file.write_all(format!("{text}\n").as_bytes()).map_err(named)
}

/// What the whole file adds up to, in a line for people.
pub(crate) fn sum(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let sum = Sum::of(&read_all(&text).map_err(|error| format!("{}: {error}", path.display()))?);
    let of_kinds: Vec<_> = sum.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
    Ok(format!(
        "{} runs, {} minutes, {} operations, {} faults ({}), {} runs with violations",
        sum.runs,
        sum.secs / 60,
        sum.operations,
        sum.faults_of_all_kinds(),
        of_kinds.join(", "),
        sum.violated
    ))
}

/// Now, in the form of RFC 3339, in UTC.
pub(crate) fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, of_month) = date(day);
    format!("{year:04}-{month:02}-{of_month:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant's civil_from_days, for days that are not negative).
fn date(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, of_month)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn days_have_dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(20_778), (2026, 11, 21));
    }

    #[test]
    fn runs_add_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("campaign.jsonl");
        let faults = BTreeMap::from([("kill".to_owned(), 3)]);
        let line = Line { secs: 120, operations: 10, faults, ..Line::default() };
        add(&path, &line).unwrap();
        add(&path, &Line { violations: vec!["lost".to_owned()], ..line }).unwrap();
        let sum = sum(&path).unwrap();
        assert_eq!(sum, "2 runs, 4 minutes, 20 operations, 6 faults (6 kill), 1 runs with violations");
    }
}
