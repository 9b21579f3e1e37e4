//! Which points of the core ([`kv_core::points`]) runs came to, and which of them they must come to.
//!
//! A point that no run comes to is a rule that no run tests: either the seeds are too tame, or nothing leads there any more.
//! So a long run fails for each. Three kinds are told apart here, and none is let off:
//!
//! - what every simulated day comes to again and again: [`Required::Day`] asks for these;
//! - what is [`RARE`]: a day may miss it, a campaign must not: [`Required::Runs`] asks for both;
//! - what is reached [`ELSEWHERE`]: by a golden script, mostly because the bound behind it is too large for a run, or by another
//!   test. A test runs these scripts and fails if one does not come to its point; other tests assert that themselves.

use std::fmt;

use kv_core::points::{Counts, Point};

use super::report::Report;

/// What a simulated day comes to seldom or not at all, and a campaign of many days does.
pub const RARE: &[Point] = &[
    Point::AsyncWaitedForAFullSession,
    Point::AsyncWaitedForCommands,
    Point::AsyncWaitedForTwo,
    Point::DeltasMerged,
    Point::FileHereWasRotten,
    Point::HandOverLogFull,
    Point::LogKeptLongEnough,
    Point::LogWrittenToShrink,
    Point::MergeAbandoned,
    Point::OfferWhileInstalling,
    Point::PieceElsewhere,
    Point::RecordNotAdopted,
    Point::RefusedForLogFiles,
    Point::SegmentHalfMade,
    Point::SegmentOpenedAtStart,
    Point::StagingLeftTooLong,
    Point::StreamResumed,
    Point::StreamTooLong,
    Point::TimeoutWhileInstalling,
];

/// What no run comes to, and what does.
pub const ELSEWHERE: &[(Point, Elsewhere)] = &[
    (Point::CameTooLate, Elsewhere::Test("kv-core/src/node/tests/clock.rs")),
    (Point::CommandsCut, Elsewhere::Test("kv-core/src/node/tests/cut.rs")),
    (Point::ProposedTooMuch, Elsewhere::Script("refusal_too_much_undecided")),
    (Point::RefusedForArc, Elsewhere::Script("refusal_stale_epoch_and_wrong_arc")),
    (Point::RefusedForEpoch, Elsewhere::Script("refusal_stale_epoch_and_wrong_arc")),
    (Point::SessionFull, Elsewhere::Script("session_has_a_bound_of_open_writes")),
    (Point::TermFromEntries, Elsewhere::Test("kv-core/src/node/tests/lost_hard_state.rs")),
    (Point::TimeoutNowWhileInstalling, Elsewhere::Script("install_it_must_not_campaign")),
];

/// What comes to a point that no run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// The script of this name in `tests/scripts`.
    Script(&'static str),
    /// A test in this file of the workspace.
    Test(&'static str),
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Script(name) => write!(f, "script {name}"),
            Self::Test(path) => write!(f, "test {path}"),
        }
    }
}

/// Which points must have been reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Required {
    /// Those that each simulated day comes to.
    Day,
    /// All that runs come to.
    Runs,
}

impl Required {
    /// Whether it asks for this point.
    #[must_use]
    pub fn asks_for(self, point: Point) -> bool {
        match self {
            Self::Day => !RARE.contains(&point) && elsewhere(point).is_none(),
            Self::Runs => elsewhere(point).is_none(),
        }
    }
}

/// What comes to a point that no run does.
#[must_use]
pub fn elsewhere(point: Point) -> Option<Elsewhere> {
    ELSEWHERE.iter().find(|(other, _)| *other == point).map(|(_, elsewhere)| *elsewhere)
}

/// What was reached in some runs.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    runs: u64,
    times: Counts,
    /// In how many runs, and the seed of the first.
    seeds: Vec<(u64, u64)>,
}

impl Reach {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.times.add(&report.points);
        self.seeds.resize(Point::COUNT, (0, 0));
        for (point, (runs, first)) in Point::ALL.iter().zip(&mut self.seeds) {
            if report.points.of(*point) > 0 {
                *first = if *runs == 0 { report.plan.seed } else { *first };
                *runs += 1;
            }
        }
    }

    /// The points that are asked for and were never reached.
    #[must_use]
    pub fn missing(&self, required: Required) -> Vec<Point> {
        let never = |point: &&Point| self.times.of(**point) == 0 && required.asks_for(**point);
        Point::ALL.iter().filter(never).copied().collect()
    }
}

/// A table: those never reached at the top, then from the rarest on.
impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |point: Point| self.seeds.get(point as usize).copied().unwrap_or_default();
        let mut points = Point::ALL.to_vec();
        points.sort_by_key(|point| (of(*point).0, self.times.of(*point)));
        write!(
            f,
            "{:<26} {:>10} {:>6} {:>9}  what happened, in {} runs",
            "point", "times", "runs", "first", self.runs
        )?;
        for point in points {
            let (name, sentence, (runs, first)) = (point.name(), point.sentence(), of(point));
            match (self.times.of(point), elsewhere(point)) {
                (0, None) => write!(f, "\n{name:<26} {:>10} {:>6} {:>9}  {sentence}", "never", "", "")?,
                (0, Some(elsewhere)) => {
                    write!(f, "\n{name:<26} {:>10} {:>6} {:>9}  {sentence} ({elsewhere})", "-", "", "")?;
                }
                (times, _) => write!(f, "\n{name:<26} {times:>10} {runs:>6} {first:>9}  {sentence}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{
        plan::{Options, Plan},
        run,
        trace::Trace,
    };

    #[test]
    fn what_no_run_came_to_is_missing_and_told_first() {
        let plan = Plan::draw(1, Options { sim_secs: Some(5), light: true });
        let (report, _) = run(plan, Trace::new(None));
        let mut reach = Reach::default();
        reach.add(&report);
        reach.add(&report);
        assert!(reach.missing(Required::Day).contains(&Point::DamagedLogRefused), "nothing is damaged in a light run");
        let reached = Point::HandOverToOwner;
        let count = report.points.of(reached);
        assert_eq!(count > 0, !reach.missing(Required::Runs).contains(&reached));
        let table = reach.to_string();
        let rows: Vec<&str> = table.lines().skip(1).collect();
        assert_eq!(rows.len(), Point::COUNT);
        assert!(rows[0].contains("never") || rows[0].contains(" - "), "{}", rows[0]);
        for point in Point::ALL {
            let row = rows.iter().find(|row| row.split(' ').next() == Some(point.name())).unwrap();
            let told: Option<u64> = row.split_whitespace().nth(1).unwrap().parse().ok();
            assert_eq!(told.unwrap_or(0), 2 * report.points.of(*point), "{row}");
        }
    }
}
