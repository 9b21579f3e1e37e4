//! The files of slots: one for each length, opened when it is first needed, 113 at the most.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use bytes::{Bytes, BytesMut};

use super::{super::Problem, slots::Length, stub::Stub};

/// Neighbours are read and written together up to so many bytes.
const RUN_BYTES_MAX: u64 = 256 * 1024;

pub(super) struct Files {
    directory: PathBuf,
    open: Vec<OnceLock<File>>,
}

impl Files {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), open: Length::all().map(|_| OnceLock::new()).collect() }
    }

    #[cfg(test)]
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Closes them, so that the system can have what those that were removed held.
    pub(super) fn close(&mut self) {
        self.open.iter_mut().for_each(|file| drop(file.take()));
    }

    fn file(&self, length: Length) -> Result<&File, Problem> {
        let open = &self.open[length.place()];
        if let Some(file) = open.get() {
            return Ok(file);
        }
        let path = self.path(length);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(open.get_or_init(|| file))
    }

    fn path(&self, length: Length) -> PathBuf {
        self.directory.join(format!("slots-{}", length.bytes()))
    }

    /// How many slots of this length there are in its file, the last one perhaps in part.
    pub(super) fn slots(&self, length: Length) -> Result<u64, Problem> {
        match self.path(length).metadata() {
            Ok(file) => Ok(file.len().div_ceil(length.bytes())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets go of all behind so many slots.
    pub(super) fn cut(&self, length: Length, slots: u64) -> Result<(), Problem> {
        Ok(self.file(length)?.set_len(slots * length.bytes())?)
    }

    /// Writes each value to its slot.
    pub(super) fn write(&self, values: &[(Stub, &[u8])]) -> Result<(), Problem> {
        let mut buffer = Vec::new();
        for run in runs(values, |(stub, _)| *stub) {
            let (first, value) = run[0];
            let file = self.file(first.length)?;
            if let [_] = run {
                file.write_all_at(value, first.offset())?;
                continue;
            }
            buffer.clear();
            for (stub, value) in run {
                buffer.resize(usize::try_from(stub.offset() - first.offset())?, 0);
                buffer.extend_from_slice(value);
            }
            file.write_all_at(&buffer, first.offset())?;
        }
        Ok(())
    }

    /// What is in each slot, whether or not that is the stub's value.
    ///
    /// # Errors
    /// `Damaged` if a file ends before.
    pub(super) fn read(&self, stubs: &[Stub]) -> Result<Vec<Bytes>, Problem> {
        let mut values = Vec::with_capacity(stubs.len());
        for run in runs(stubs, |stub| *stub) {
            let (first, last) = (run[0], run[run.len() - 1]);
            let at = |stub: &Stub| Ok::<_, Problem>(usize::try_from(stub.offset() - first.offset())?);
            let mut buffer = BytesMut::zeroed(at(&last)? + last.bytes as usize);
            self.file(first.length)?.read_exact_at(&mut buffer, first.offset()).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::UnexpectedEof => Problem::Damaged("a value lies beyond its file's end".to_owned()),
                    _ => error.into(),
                }
            })?;
            let buffer = buffer.freeze();
            for stub in run {
                let begin = at(stub)?;
                values.push(buffer.slice(begin..begin + stub.bytes as usize));
            }
        }
        Ok(values)
    }
}

/// Cuts a list where the next one is not the neighbour, or together they are too many.
fn runs<T>(list: &[T], stub: impl Fn(&T) -> Stub) -> impl Iterator<Item = &[T]> {
    let mut left = list;
    std::iter::from_fn(move || {
        let first = stub(left.first()?);
        let follows = |(number, item): &(usize, &T)| {
            let (next, slots) = (stub(item), *number as u64);
            next.length == first.length
                && next.slot == first.slot + slots
                && (slots + 1) * first.length.bytes() <= RUN_BYTES_MAX
        };
        let count = 1 + left.iter().enumerate().skip(1).take_while(follows).count();
        let (run, rest) = left.split_at(count);
        left = rest;
        Some(run)
    })
}
