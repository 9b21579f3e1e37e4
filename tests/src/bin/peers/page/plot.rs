//! A plot, which stands in the page, or in a file of its own for pages that hold no HTML.

use kv_tests::report::svg::{dot, text};

use super::{STYLE, class};
use crate::systems::Kind;

/// Height of a line of the legend.
const LINE: f64 = 22.0;
/// Width of a system's name in the legend.
const NAME: f64 = 170.0;

/// Shapes on a sheet of this size.
#[derive(Debug)]
pub(super) struct Plot {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) shapes: String,
}

impl Plot {
    /// As part of the page, which has style and legend.
    pub(super) fn inline(&self) -> String {
        let Self { width, height, shapes } = self;
        format!("<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\">{shapes}</svg>\n")
    }

    /// With style and a legend of these systems: one SVG that needs nothing else.
    pub(super) fn file(&self, kinds: &[Kind]) -> String {
        let Self { width, height, shapes } = self;
        let in_line = ((width - 16.0) / NAME).floor().max(1.0);
        let mut legend = String::new();
        for (index, kind) in kinds.iter().enumerate() {
            let (x, y) = (16.0 + NAME * (index as f64 % in_line), height + LINE * (index as f64 / in_line).floor());
            legend += &dot(class(*kind), x + 6.0, y + 6.0, kind.name());
            legend += &text(x + 18.0, y + 10.0, "start", "name", kind.name());
        }
        let height = height + LINE * (kinds.len() as f64 / in_line).ceil() + 6.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             role=\"img\"><style>{STYLE}</style>{shapes}{legend}</svg>\n"
        )
    }
}
