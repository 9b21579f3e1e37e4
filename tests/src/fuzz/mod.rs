//! Fuzzing: whatever bytes come from a disk, a peer or a client, nothing panics and nothing takes much memory.
//!
//! A target is a plain function from bytes to a sentence about what it made of them. Two engines drive it:
//!
//! - In `cargo test`, one of our own: the files of `tests/corpus/NAME`, then a number of inputs made from them and from
//!   valid encodings by [`mutate()`], the same in every run. What makes the target say something new is kept and mutated
//!   further. `KV_FUZZ_RUNS` says how many, `KV_FUZZ_SEED` from which seed, and `KV_FUZZ_KEEP=1` writes what was new into the
//!   corpus.
//! - Built with `--cfg fuzzing`, bolero with the engine of that build, such as libFuzzer, which is guided by coverage.
//!   bolero's own random engine is not used: it draws its seeds from the system and stops by the clock, so that no two runs
//!   are the same.
//!
//! An input on which a target panics is made smaller and written to `target/fuzz/`. Once mended it is kept in the corpus
//! under a name that says what it found.
//!
//! *Caveat*: our own engine sees only what targets say, not which code they run. Checksums and hashes would hold it off:
//! targets set them right in some of their inputs.

mod mutate;

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
};

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

impl Target<'_> {
    /// Gives the corpus and made-up inputs to `test`, which tells what it made of each: sentences that differ in more than
    /// their digits are different kinds.
    ///
    /// # Panics
    /// If `test` does.
    #[cfg(not(fuzzing))]
    pub fn run(self, test: impl Fn(&[u8]) -> String) {
        let mut kept = self.seeds.clone();
        let files = self.corpus();
        kept.extend(files.iter().map(|(_, bytes)| bytes.clone()));
        let mut kinds = BTreeSet::new();
        for (number, input) in kept.iter().enumerate() {
            let name = number.checked_sub(self.seeds.len()).map(|file| files[file].0.as_str());
            kinds.insert(kind(&self.check(&test, input, name.unwrap_or("a valid encoding"))));
        }
        let runs = number_of("KV_FUZZ_RUNS").unwrap_or(self.runs);
        let seed = number_of("KV_FUZZ_SEED").unwrap_or(1);
        let mut random = fastrand::Rng::with_seed(seed ^ xxh3_64(self.name.as_bytes()));
        for run in 0..runs {
            let input = mutate(&kept, self.bytes_max, &mut random);
            let said = self.check(&test, &input, "a made-up input");
            if kept.len() < KEPT_MAX && kinds.insert(kind(&said)) {
                if kept.len() < self.seeds.len() + WRITTEN_MAX {
                    self.keep(&input, &said);
                }
                kept.push(input);
            }
            if run > 0 && run.is_multiple_of(1_000_000) {
                println!("{}: {run} runs, {} kinds of outcome", self.name, kinds.len());
            }
        }
        println!("{}: {runs} runs, {} kinds of outcome, {} inputs", self.name, kinds.len(), kept.len());
        assert!(kinds.len() > 1, "every input of {} comes to the same: the target tests nothing", self.name);
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

    fn check(&self, test: &impl Fn(&[u8]) -> String, input: &[u8], what: &str) -> String {
        let tried = |input: &[u8]| catch_unwind(AssertUnwindSafe(|| test(input)));
        tried(input).unwrap_or_else(|panic| {
            let small = shrink(input.to_vec(), |input| tried(input).is_err());
            let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/fuzz"));
            let path = directory.join(format!("{}-{:016x}", self.name, xxh3_64(&small)));
            let written = fs::create_dir_all(&directory).and_then(|()| fs::write(&path, &small));
            println!("{} failed on {what} of {} bytes; made smaller: {written:?} {path:?}", self.name, input.len());
            resume_unwind(panic)
        })
    }

    fn keep(&self, input: &[u8], said: &str) {
        if std::env::var_os("KV_FUZZ_KEEP").is_none() {
            return;
        }
        let words: String = said.chars().map(|c| if c.is_ascii_alphabetic() { c } else { ' ' }).collect();
        let words: Vec<_> = words.split_whitespace().take(8).collect();
        let name = format!("{}-{:08x}", words.join("-"), xxh3_64(input) as u32);
        let written = fs::create_dir_all(self.directory()).and_then(|()| fs::write(self.directory().join(name), input));
        written.expect("the corpus can be written to");
    }
}

/// Sentences that differ in their digits only are one kind.
fn kind(said: &str) -> u64 {
    let words: Vec<u8> = said.bytes().filter(|byte| !byte.is_ascii_digit()).collect();
    xxh3_64(&words)
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
