//! Finding the server's program, for those who run it as a process.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The server's program: the one given; or built now, if cargo runs this; or the one beside this program.
///
/// # Errors
/// If there is none, or it can't be built.
pub fn find_server(given: Option<PathBuf>) -> Result<PathBuf, String> {
    if let Some(server) = given {
        return if server.is_file() { Ok(server) } else { Err(format!("{} is no file", server.display())) };
    }
    let own = env::current_exe().map_err(|error| error.to_string())?;
    let directory = own.parent().ok_or("this program is in no directory")?;
    if let Some(cargo) = env::var_os("CARGO") {
        build(Path::new(&cargo), directory)?;
    }
    let server = directory.join("kv-server");
    match server.is_file() {
        true => Ok(server),
        false => Err(format!("there is no {}; build it, or name one with --server", server.display())),
    }
}

/// Builds the server into the directory from which this program runs, so that it is never an old one that is tortured.
fn build(cargo: &Path, directory: &Path) -> Result<(), String> {
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "kv-server", "--bin", "kv-server"]);
    command.arg("--manifest-path").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
        None => return Err("this program's directory has no name".to_owned()),
    }
    let status = command.status().map_err(|error| format!("cargo can't be run: {error}"))?;
    if status.success() { Ok(()) } else { Err("the server can't be built".to_owned()) }
}
