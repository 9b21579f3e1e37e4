//! The little of SVG that plots need: scales, and text that can't break the page.

/// A logarithmic scale from values to places on the page.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// A scale on which all these values lie, with some room beyond them, between two places. Without values it spans one decade.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>, from: f64, to: f64) -> Self {
        let values: Vec<_> = values.into_iter().filter(|value| value.is_finite() && *value > 0.0).collect();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        let (least, most) = if values.is_empty() { (1.0, 10.0) } else { (least / 1.3, most * 1.3) };
        Self { least, most, from, to }
    }

    /// Where a value lies; what is not positive lies at the beginning.
    #[must_use]
    pub fn at(&self, value: f64) -> f64 {
        let share = (value.max(self.least) / self.least).ln() / (self.most / self.least).ln();
        self.from + share.min(1.0) * (self.to - self.from)
    }

    /// Round values on it: 1, 2 and 5 of each decade, or only 1 if it spans more than three.
    #[must_use]
    pub fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.most / self.least > 1_000.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let decades = self.least.log10().floor() as i32..=self.most.log10().ceil() as i32;
        let all = decades.flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
        all.filter(|tick| (self.least..=self.most).contains(tick)).collect()
    }
}

/// A number as people write it: 250, 12k, 0.05.
#[must_use]
pub fn short(value: f64) -> String {
    let with_unit = |value: f64, unit: &str| {
        let digits = usize::from(value < 10.0 && (value - value.round()).abs() > 0.049);
        format!("{value:.digits$}{unit}")
    };
    match value {
        value if value >= 999_500.0 => with_unit(value / 1e6, "M"),
        value if value >= 1_000.0 => with_unit(value / 1e3, "k"),
        value if value >= 10.0 => format!("{value:.0}"),
        value if value >= 1.0 => with_unit(value, ""),
        value if value >= 0.1 => format!("{value:.2}").trim_end_matches('0').to_owned(),
        value => format!("{value:.3}").trim_end_matches('0').to_owned(),
    }
}

/// Text that is safe between tags and in attributes.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A rectangle, with what it says when it is pointed at, if anything.
#[must_use]
pub fn rect(class: &str, (x, y): (f64, f64), (width, height): (f64, f64), says: &str) -> String {
    let width = width.max(0.0);
    let title = if says.is_empty() { String::new() } else { format!("<title>{}</title>", escaped(says)) };
    format!(r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}">{title}</rect>"#)
}

/// A line of text; `anchor` is start, middle or end.
#[must_use]
pub fn text(x: f64, y: f64, anchor: &str, class: &str, words: &str) -> String {
    format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{}</text>"#, escaped(words))
}

/// A straight line.
#[must_use]
pub fn line(class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> String {
    format!(r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#)
}

/// A dot, with what it says when it is pointed at.
#[must_use]
pub fn dot(class: &str, x: f64, y: f64, says: &str) -> String {
    format!(r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="4.5"><title>{}</title></circle>"#, escaped(says))
}

/// Vertical lines of a scale over a height, each with its value below.
#[must_use]
pub fn across(scale: &Scale, top: f64, bottom: f64) -> String {
    let tick = |value: f64| {
        let x = scale.at(value);
        line("grid", (x, top), (x, bottom)) + &text(x, bottom + 16.0, "middle", "tick", &short(value))
    };
    scale.ticks().into_iter().map(tick).collect()
}

/// Horizontal lines of a scale over a width, each with its value to the left.
#[must_use]
pub fn along(scale: &Scale, left: f64, right: f64) -> String {
    let tick = |value: f64| {
        let y = scale.at(value);
        line("grid", (left, y), (right, y)) + &text(left - 8.0, y + 4.0, "end", "tick", &short(value))
    };
    scale.ticks().into_iter().map(tick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_in_order_and_within() {
        let scale = Scale::of([20.0, 3_000.0, f64::NAN, 0.0], 50.0, 450.0);
        let places = [20.0, 100.0, 3_000.0].map(|value| scale.at(value));
        assert!(50.0 < places[0] && places[0] < places[1] && places[1] < places[2] && places[2] < 450.0, "{places:?}");
        assert_eq!((scale.at(0.0), scale.at(1e12)), (50.0, 450.0));
        assert_eq!(scale.ticks(), [20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0]);
        assert_eq!(Scale::of([1.0, 1e5], 0.0, 1.0).ticks(), [1.0, 10.0, 100.0, 1e3, 1e4, 1e5]);
        assert_eq!(Scale::of([], 0.0, 1.0).ticks().first(), Some(&1.0));
    }

    #[test]
    fn numbers_are_short() {
        let written = [0.05, 0.5, 1.0, 2.5, 12.0, 999.0, 1_000.0, 2_500.0, 36_512.0, 206_000.0, 1_500_000.0].map(short);
        assert_eq!(written, ["0.05", "0.5", "1", "2.5", "12", "999", "1k", "2.5k", "37k", "206k", "1.5M"]);
        assert_eq!(escaped("a<b & \"c\""), "a&lt;b &amp; &quot;c&quot;");
    }
}
