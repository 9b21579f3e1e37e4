//! What broke a promise: the operations that show it, each as a bar from its call to its answer.
//!
//! Between the first and the last of them may lie a minute, and each may take a millisecond: so moments stand in their order at equal
//! distances, each with its time. Where two bars overlap, the operations did.

use super::{
    axis::WIDTH,
    svg::{escaped, line, rect, text},
};
use crate::{
    history::{Call, Operation},
    verdict::{Promise, Violated, words},
};

const LEFT: f64 = 24.0;
const END: f64 = WIDTH - 24.0;
const TOP: f64 = 30.0;
const ROW: f64 = 46.0;
const BAR: f64 = 16.0;
/// So many operations are drawn; a larger core is no picture any more, and stands in the terminal's report.
const SHOWN_MAX: usize = 24;

/// The section of one violation.
pub(super) fn section(promise: Promise, violated: &Violated) -> String {
    let key = violated.key.as_ref().map(|key| format!("Key <b>{}</b>: ", escaped(key.as_str()))).unwrap_or_default();
    let few = words::number(violated.operations.len());
    format!(
        "<div class=\"broken\"><h2>Broken: {}</h2>\n<p>{key}{}. These {few} of {} operations are enough to see it; each bar goes from the \
         call to its answer, and moments stand in their order, not to scale.</p>\n{}</div>\n",
        escaped(promise.words()),
        escaped(&violated.why),
        words::number(violated.among),
        picture(&violated.operations[..violated.operations.len().min(SHOWN_MAX)])
    )
}

fn picture(operations: &[Operation]) -> String {
    let answered = operations.iter().filter_map(|operation| operation.completed.as_ref().map(|(at, _)| *at));
    let mut moments: Vec<_> = operations.iter().map(|operation| operation.invoked).chain(answered).collect();
    moments.sort_unstable();
    moments.dedup();
    let height = TOP + ROW * operations.len() as f64 + 34.0;
    let step = (END - LEFT) / moments.len().max(1) as f64;
    let x = |place: usize| LEFT + step * (place as f64 + 0.5);
    let place = |at| moments.binary_search(&at).unwrap_or_default();
    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">"#);
    for (number, moment) in moments.iter().enumerate() {
        svg += &line("moment", (x(number), TOP - 8.0), (x(number), height - 28.0));
        // Where there are many, every second label would lie on its neighbours.
        if moments.len() <= 12 || number.is_multiple_of(moments.len() / 8) {
            let at = format!("{:.6} s", moment.micros as f64 / 1e6);
            svg += &text(x(number), height - 12.0, "middle", "tick", &at);
        }
    }
    let last =
        operations.iter().max_by_key(|operation| operation.completed.as_ref().map(|(at, _)| *at)).map(|last| last.id);
    for (row, operation) in operations.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let from = x(place(operation.invoked));
        let to = operation.completed.as_ref().map_or(END, |(at, _)| x(place(*at)));
        let kind = if matches!(operation.call, Call::Write { .. }) { " write" } else { "" };
        let last = if Some(operation.id) == last { " last" } else { "" };
        let open = if operation.completed.is_none() || operation.is_open_write() { " open" } else { "" };
        svg += &rect(&format!("bar{kind}{last}{open}"), (from, y + 20.0), ((to - from).max(3.0), BAR), "");
        let says = format!(
            "client {}: {}  \u{2192} {}",
            operation.client,
            words::call(&operation.call),
            words::answer(operation)
        );
        // Text of a late operation begins where it still fits.
        let room = 6.6 * says.chars().count() as f64;
        svg += &text(from.min(END - room).max(LEFT), y + 14.0, "start", "name", &says);
    }
    svg + "</svg>\n"
}
