//! What happened, as a number always and as text if asked for.
//!
//! Two runs of one seed must do the same: a hash runs over every event and over what nodes send, write and answer. A text
//! tells the same in words, one line each; it costs nothing unless somebody reads it, and changes nothing about the run.

use std::{fmt, io::Write};

use super::timeline::Entry;

/// The running hash, and perhaps the text and the timeline.
pub struct Trace {
    hash: u64,
    text: Option<Box<dyn Write>>,
    timeline: Option<Vec<Entry>>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({:016x})", self.hash)
    }
}

impl Trace {
    /// A trace that begins; with a text if there is somewhere to write it.
    #[must_use]
    pub fn new(text: Option<Box<dyn Write>>) -> Self {
        Self { hash: 0x9e37_79b9_7f4a_7c15, text, timeline: None }
    }

    /// Keeps a timeline too.
    #[must_use]
    pub fn with_timeline(mut self) -> Self {
        self.timeline = Some(Vec::new());
        self
    }

    /// Marks the timeline, if one is kept: something that happened to one node, or to all.
    pub fn mark(&mut self, at: u64, node: Option<usize>, what: impl FnOnce() -> String) {
        if let Some(timeline) = &mut self.timeline {
            timeline.push(Entry { at, node, what: what() });
        }
    }

    /// The timeline, if one was kept.
    pub fn take_timeline(&mut self) -> Vec<Entry> {
        self.timeline.take().unwrap_or_default()
    }

    /// Takes numbers into the hash.
    pub fn note<const N: usize>(&mut self, numbers: [u64; N]) {
        for number in numbers {
            self.hash = (self.hash ^ number).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
        }
    }

    /// Tells a line, made only if somebody reads it.
    pub fn tell(&mut self, at: u64, line: impl FnOnce() -> String) {
        if let Some(text) = &mut self.text {
            // A reader that went away (`| head`) must not end the run: the verdict is still of use.
            let _ = writeln!(text, "{:>11.6} {}", at as f64 / 1e6, line());
        }
    }

    /// Whether lines are told.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.text.is_some()
    }

    /// The hash of all so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}
