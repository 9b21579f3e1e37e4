//! The books: files that are committed and say how much was ever run, and what RELIABILITY.md makes of them.
//!
//! | File | Written by | A line is |
//! |---|---|---|
//! | `tests/simulated.txt` | `sim --campaign` | a campaign of seeds |
//! | `tests/chaos.jsonl` | `chaos --campaign` | a run of real processes |
//! | `tests/mutants.md` | `sim --mutants` | a planted bug |
//! | `tests/proofs.jsonl` | whoever runs one of the long commands | a command, and the last that it said |
//!
//! Lines are added and never changed, but for the mutants, which are run as a whole. What RELIABILITY.md shows of them is held equal by
//! a test, and written by that test with `KV_REGENERATE=1`.

pub mod chaos;
pub mod matrix;
pub mod page;
pub mod proofs;
pub mod simulated;

/// A number with commas between its thousands.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_stand_apart() {
        let shown = [0, 999, 1_000, 65_536, 1_234_567].map(super::grouped);
        assert_eq!(shown, ["0", "999", "1,000", "65,536", "1,234,567"]);
    }
}
