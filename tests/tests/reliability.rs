//! RELIABILITY.md says what the books say. `KV_REGENERATE=1 cargo test -p kv-tests --test reliability` writes its tables anew.
#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::{fs, path::Path};

use kv_tests::books::{
    chaos, matrix,
    page::{Books, filled},
};

#[test]
fn its_tables_are_those_of_the_books() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let [simulated, chaos, mutants, proofs] = ["simulated.txt", "chaos.jsonl", "mutants.md", "proofs.jsonl"].map(read);
    let books = Books { simulated: &simulated, chaos: &chaos, mutants: &mutants, proofs: &proofs };
    let page = read("../RELIABILITY.md");
    for name in ["simulated", "chaos", "failover", "mutants", "proofs", "matrix"] {
        assert!(page.contains(&format!("<!-- books: {name} -->")), "{name} is not shown");
    }
    let now = filled(&page, &books).unwrap();
    if std::env::var_os("KV_REGENERATE").is_some() {
        fs::write(root.join("../RELIABILITY.md"), now).unwrap();
    } else {
        assert!(page == now, "the books say something else now: KV_REGENERATE=1 writes it");
    }
}

/// No fault that was made on real processes is missing in the matrix.
#[test]
fn every_nemesis_of_the_books_stands_in_the_matrix() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("chaos.jsonl")).unwrap();
    let sum = chaos::Sum::of(&chaos::read_all(&text).unwrap());
    assert!(sum.faults.len() > 10, "{:?}", sum.faults);
    for kind in sum.faults.keys() {
        assert_eq!(matrix::ROWS.iter().filter(|row| row.real.contains(&kind.as_str())).count(), 1, "{kind}");
    }
}
