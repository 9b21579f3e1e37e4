//! Tells the compiler which commit is built: `KV_COMMIT` if whoever builds says so, else what git says of this checkout, else
//! nothing. A build needs neither git nor a checkout.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KV_COMMIT");
    if env::var_os("KV_COMMIT").is_none()
        && let Some(commit) = commit_of_checkout()
    {
        println!("cargo::rustc-env=KV_COMMIT={commit}");
    }
}

/// The commit that is checked out; `None` without git, outside a checkout, or where this is a copy within somebody else's.
fn commit_of_checkout() -> Option<String> {
    let workspace = Path::new(&env::var_os("CARGO_MANIFEST_DIR")?).parent()?.canonicalize().ok()?;
    let top = Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if top != workspace {
        return None;
    }
    // The log of HEAD grows with each commit and checkout; HEAD alone names a branch and stays. A path that is not there would
    // mean a rebuild every time.
    for path in ["HEAD", "logs/HEAD"].into_iter().filter_map(|name| git(&["rev-parse", "--git-path", name])) {
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=10", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
