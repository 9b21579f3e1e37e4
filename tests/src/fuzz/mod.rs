//! Fuzzing: whatever bytes come from a disk, a peer or a client, nothing panics and nothing takes much memory.
//!
//! A target is a plain function from bytes to a sentence about what it made of them. Two engines drive it:
//!
//! - In `cargo test`, one of our own: the files of `tests/corpus/NAME`, then a number of inputs made from them and from
//!   valid encodings by [`mutate()`], the same in every run. What makes the target say something new, or comes to a named point
//!   of the core, is kept and mutated further. `KV_FUZZ_RUNS` says how many, `KV_FUZZ_SEED` from which seed, and
//!   `KV_FUZZ_KEEP=1` writes what was new into the corpus. At the end a line tells runs, seconds of CPU, corpus and verdict.
//!   `KV_FUZZ_INPUT=FILE` runs that one input instead and shows what the target says of it.
//! - Built with `--cfg fuzzing`, bolero with the engine of that build, such as libFuzzer, which is guided by coverage.
//!   bolero's own random engine is not used: it draws its seeds from the system and stops by the clock, so that no two runs
//!   are the same.
//!
//! An input on which a target panics is made smaller and written to `target/fuzz/`. Once mended it is kept in the corpus
//! under a name that says what it found.
//!
//! *Caveat*: our own engine sees only what targets say and which named points of the core they reach, not which code they run.
//! Checksums and hashes would hold it off: targets set them right in some of their inputs.

mod mutate;

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
};

use kv_core::points::{self, Counts, Point};
use xxhash_rust::xxh3::xxh3_64;

pub use mutate::mutate;

/// What is to be fuzzed.
pub struct Target<'a> {
    /// Its name, which is that of its directory in `tests/corpus`.
    pub name: &'a str,
    /// How many inputs are made in `cargo test`.
    pub runs: u64,
    /// Inputs are cut to this many bytes.
    pub bytes_max: usize,
    /// Valid inputs to begin with, beside the corpus.
    pub seeds: Vec<Vec<u8>>,
}

/// Most inputs that are kept for saying something new; later ones are not.
const KEPT_MAX: usize = 4_096;
/// Most inputs that are written into the corpus by one run.
const WRITTEN_MAX: usize = 48;
/// How many times a failing input is tried smaller.
const SHRINK_MAX: usize = 2_000;
/// A target that takes longer for an input says so in its line: most take some microseconds.
const SLOW_MICROS: f64 = 50.0;

impl Target<'_> {
    /// Gives the corpus and made-up inputs to `test`, which tells what it made of each, in one line or several. An input that
    /// says a line that differs from all before in more than its digits is kept, and one that comes to a named point of the
    /// core for the first time, or twice as often as any before.
    ///
    /// # Panics
    /// If `test` does.
    #[cfg(not(fuzzing))]
    pub fn run(self, test: impl Fn(&[u8]) -> String) {
        if let Some(path) = std::env::var_os("KV_FUZZ_INPUT") {
            let input = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            return println!("{}: {}", self.name, test(&input));
        }
        let began = cpu_seconds();
        let files = self.corpus();
        let mut kept = self.seeds.clone();
        kept.extend(files.iter().map(|(_, bytes)| bytes.clone()));
        let mut seen = Seen::default();
        for (number, input) in kept.iter().enumerate() {
            let name = number.checked_sub(self.seeds.len()).map(|file| files[file].0.as_str());
            let said = self.check(&test, input, name.unwrap_or("a valid encoding"), 0);
            seen.news(&said, &points::take());
        }
        let runs = number_of("KV_FUZZ_RUNS").unwrap_or(self.runs);
        let seed = number_of("KV_FUZZ_SEED").unwrap_or(1);
        let mut random = fastrand::Rng::with_seed(seed ^ xxh3_64(self.name.as_bytes()));
        let mut written = 0;
        for run in 0..runs {
            let input = mutate(&kept, self.bytes_max, &mut random);
            let said = self.check(&test, &input, "a made-up input", run);
            if kept.len() < KEPT_MAX
                && let Some(news) = seen.news(&said, &points::take())
            {
                if written < WRITTEN_MAX {
                    written += 1;
                    self.keep(&input, &news);
                }
                kept.push(input);
            }
        }
        let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        let seconds = cpu_seconds() - began;
        let micros = 1e6 * seconds / (runs as f64 + files.len() as f64 + self.seeds.len() as f64);
        println!(
            "fuzzed {}: {runs} runs in {seconds:.1} s of CPU, {micros:.1} us each{}; corpus {} files of {bytes} bytes; {} sentences and \
             {} counts of points: ok",
            self.name,
            if micros > SLOW_MICROS { " (a slow one)" } else { "" },
            files.len(),
            seen.sentences.len(),
            seen.points.len()
        );
        assert!(seen.sentences.len() > 1, "every input of {} comes to the same: the target tests nothing", self.name);
    }

    /// Lets bolero's engine make the inputs, for as long as it likes.
    #[cfg(fuzzing)]
    pub fn run(self, test: impl Fn(&[u8]) -> String) {
        let location = bolero::TargetLocation {
            package_name: env!("CARGO_PKG_NAME"),
            manifest_dir: env!("CARGO_MANIFEST_DIR"),
            module_path: module_path!(),
            file: file!(),
            line: line!(),
            item_path: module_path!(),
            test_name: Some(self.name.to_owned()),
        };
        if std::env::var_os("KV_FUZZ_KEEP").is_some() {
            // The engine reads its first inputs from files.
            for seed in &self.seeds {
                self.keep(seed, "a valid encoding");
            }
        }
        let test = AssertUnwindSafe(test);
        bolero::test(location).for_each(move |input: &[u8]| {
            let input = &input[..input.len().min(self.bytes_max)];
            let _said = test(input);
        });
    }

    /// The files of the corpus with their names.
    fn corpus(&self) -> Vec<(String, Vec<u8>)> {
        let Ok(directory) = fs::read_dir(self.directory()) else { return Vec::new() };
        let mut files: Vec<_> = directory
            .filter_map(|file| {
                let file = file.ok()?;
                Some((file.file_name().into_string().ok()?, fs::read(file.path()).ok()?))
            })
            .collect();
        files.sort();
        files
    }

    fn directory(&self) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(self.name)
    }

    fn check(&self, test: &impl Fn(&[u8]) -> String, input: &[u8], what: &str, run: u64) -> String {
        // The target's own preparations are no news.
        let _ = points::take();
        let tried = |input: &[u8]| catch_unwind(AssertUnwindSafe(|| test(input)));
        tried(input).unwrap_or_else(|panic| {
            let small = shrink(input.to_vec(), |input| tried(input).is_err());
            let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/fuzz"));
            let path = directory.join(format!("{}-{:016x}", self.name, xxh3_64(&small)));
            let written = fs::create_dir_all(&directory).and_then(|()| fs::write(&path, &small));
            println!(
                "fuzzed {}: FAILED after {run} runs on {what} of {} bytes; made smaller, {} bytes: {written:?} {}",
                self.name,
                input.len(),
                small.len(),
                path.display()
            );
            resume_unwind(panic)
        })
    }

    fn keep(&self, input: &[u8], news: &str) {
        if std::env::var_os("KV_FUZZ_KEEP").is_none() {
            return;
        }
        let words: String = news.chars().map(|c| if c.is_ascii_alphabetic() { c } else { ' ' }).collect();
        let words: Vec<_> = words.split_whitespace().take(8).collect();
        let name = format!("{}-{:08x}", words.join("-"), xxh3_64(input) as u32);
        let written = fs::create_dir_all(self.directory()).and_then(|()| fs::write(self.directory().join(name), input));
        written.expect("the corpus can be written to");
    }
}

/// What inputs have come to.
#[derive(Default)]
struct Seen {
    sentences: BTreeSet<u64>,
    /// Named points of the core, and about how often one input came there.
    points: BTreeSet<(Point, u32)>,
}

impl Seen {
    /// What of this is new: a line that was said, or a point of the core, reached for the first time or far more often.
    fn news(&mut self, said: &str, counts: &Counts) -> Option<String> {
        let mut news = None;
        for point in Point::ALL {
            let count = counts.of(*point);
            if count > 0 && self.points.insert((*point, count.ilog2())) {
                news = Some(point.name().to_owned());
            }
        }
        for line in said.lines() {
            if self.sentences.insert(kind(line)) {
                news = Some(line.to_owned());
            }
        }
        news
    }
}

/// Sentences that differ in their digits only are one kind.
fn kind(said: &str) -> u64 {
    let words: Vec<u8> = said.bytes().filter(|byte| !byte.is_ascii_digit()).collect();
    xxh3_64(&words)
}

/// What this thread has used of the CPU: a machine that does other things meanwhile makes no target look slow.
fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")))
}

/// Takes pieces out, ever smaller ones, as long as the input goes on failing.
fn shrink(mut input: Vec<u8>, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut piece = input.len() / 2;
    let mut tries = 0;
    while piece > 0 && tries < SHRINK_MAX {
        let mut at = 0;
        while at < input.len() && tries < SHRINK_MAX {
            let end = input.len().min(at + piece);
            let smaller = [&input[..at], &input[end..]].concat();
            tries += 1;
            if fails(&smaller) { input = smaller } else { at = end }
        }
        piece /= 2;
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_line_is_news_once() {
        let mut seen = Seen::default();
        let none = Counts::default();
        assert_eq!(seen.news("one\ntwo 1", &none).as_deref(), Some("two 1"));
        assert_eq!(seen.news("two 2", &none), None);
        assert_eq!(seen.news("two 2\nthree", &none).as_deref(), Some("three"));
    }

    #[test]
    fn a_bug_behind_three_bytes_is_found_and_made_small() {
        let test = |input: &[u8]| {
            let at = input.windows(3).position(|three| three == [0x80, 0x00, 0xff]);
            assert!(at.is_none(), "the bug");
            format!("{}", input.first().copied().unwrap_or_default() / 64)
        };
        let target = Target { name: "example", runs: 0, bytes_max: 100, seeds: vec![b"plain text".to_vec()] };
        let mut random = fastrand::Rng::with_seed(1);
        let mut kept = target.seeds.clone();
        let found = (0..2_000_000).find_map(|_| {
            let input = mutate(&kept, target.bytes_max, &mut random);
            if kept.len() < 100 {
                kept.push(input.clone());
            }
            catch_unwind(|| test(&input)).is_err().then_some(input)
        });
        let small = shrink(found.expect("it is found"), |input| catch_unwind(|| test(input)).is_err());
        assert_eq!(small, [0x80, 0x00, 0xff]);
    }

    #[test]
    fn what_differs_in_digits_is_one_kind() {
        assert_eq!(kind("byte 3 of 7"), kind("byte 44 of 8"));
        assert_ne!(kind("byte 3"), kind("bit 3"));
    }
}
