//! Where a value comes from: the argument, standard input, or a file. A value is bytes; nothing is added or taken away.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use kv_client::VALUE_BYTES_MAX;

use crate::exit::Exit;

/// The value of a put.
///
/// # Errors
/// If it can't be read, or is longer than a value may be.
pub(crate) fn value(argument: Option<&OsStr>, file: Option<&Path>) -> Result<Vec<u8>, Exit> {
    match (argument, file) {
        (Some(dash), _) if dash == "-" => read(&mut io::stdin().lock(), "standard input"),
        (Some(value), _) => Ok(value.as_bytes().to_vec()),
        (None, Some(path)) => {
            let name = path.display().to_string();
            let mut file = File::open(path).map_err(|error| Exit::Usage(format!("{name}: {error}")))?;
            read(&mut file, &name)
        }
        (None, None) => Err(Exit::Usage("no value: give it as an argument, with - or with --file".to_owned())),
    }
}

/// Reads to the end, but not on and on: what is over the bound is refused without being held in memory.
fn read(from: &mut dyn Read, name: &str) -> Result<Vec<u8>, Exit> {
    let mut value = Vec::new();
    let bound = VALUE_BYTES_MAX as u64 + 1;
    from.take(bound).read_to_end(&mut value).map_err(|error| Exit::Failure(format!("{name}: {error}")))?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(Exit::Usage(format!("{name} is longer than a value may be: {VALUE_BYTES_MAX} bytes")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_value_to_the_byte() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&path, b"\xff\n\0").unwrap();
        assert_eq!(value(None, Some(&path)).unwrap(), b"\xff\n\0");
        std::fs::write(&path, vec![0; VALUE_BYTES_MAX + 1]).unwrap();
        assert!(matches!(value(None, Some(&path)), Err(Exit::Usage(_))));
        assert!(matches!(value(None, Some(Path::new("/no/such/file"))), Err(Exit::Usage(_))));
        assert_eq!(value(Some(OsStr::new("a b")), None).unwrap(), b"a b");
    }
}
