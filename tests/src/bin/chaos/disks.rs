//! A file system of its own for each node, in an image that a loop device shows: one that can be full, and whose power can be cut.
//!
//! *What a power cut here is.* The node is stopped, the image is copied as it is at that moment, the node is killed, and the copy takes
//! the image's place. The copy holds what the file system had handed to its device: what the node wrote and had not synced, and
//! directories whose change the journal had not got, are lost as far as the kernel had not written them back by itself. The journal's
//! interval is set to five minutes, so that it does so seldom. A copy counts only if the device took no write while it was
//! made, so that it is one moment's state.
//!
//! *What it can't produce*: writes that reached the device and not its medium (a disk's own cache), and sectors that are torn. Both
//! are the simulator's.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use crate::tools::{Tool, is_alive, run};

/// The file in a run's directory that says which process made it.
pub(crate) const MAKER: &str = "pid";
/// Size of an image. Sparse: only what is written takes room.
pub(crate) const IMAGE_BYTES: u64 = 1536 * 1024 * 1024;
/// What a file holds that is written before a cut.
const UNSYNCED: &[u8] = b"written, and not synced";
/// How often a copy is tried that something wrote to meanwhile.
const COPY_ATTEMPTS: u32 = 20;
/// Pause before the next.
const COPY_PAUSE: Duration = Duration::from_millis(100);

/// The image of one node and where it is mounted. Dropping it unmounts it.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    mounted_at: PathBuf,
}

impl Disk {
    /// Makes an image and mounts it.
    pub(crate) fn new(image: PathBuf, mounted_at: PathBuf) -> Result<Self, String> {
        let named = |error: std::io::Error| format!("{}: {error}", image.display());
        fs::File::create_new(&image).and_then(|file| file.set_len(IMAGE_BYTES)).map_err(named)?;
        Tool::MkfsExt4.run(&["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1", &image.to_string_lossy()])?;
        fs::create_dir_all(&mounted_at).map_err(|error| format!("{}: {error}", mounted_at.display()))?;
        let disk = Self { image, mounted_at };
        disk.mount()?;
        Ok(disk)
    }

    /// Where files go.
    pub(crate) fn directory(&self) -> &Path {
        &self.mounted_at
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop,commit=300,noatime"]).arg(&self.image).arg(&self.mounted_at))
    }

    /// Unmounts it; what was not written yet is written.
    pub(crate) fn unmount(&self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.mounted_at))
    }

    /// Copies the image as it is now. Nothing may write to the files; what the kernel writes by itself makes it try again.
    pub(crate) fn copy(&self) -> Result<PathBuf, String> {
        let copy = self.image.with_extension("cut");
        for _ in 0..COPY_ATTEMPTS {
            let before = self.writes()?;
            run(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&copy))?;
            if self.writes()? == before {
                return Ok(copy);
            }
            thread::sleep(COPY_PAUSE);
        }
        Err(format!("{} was written to during each of {COPY_ATTEMPTS} copies", self.image.display()))
    }

    /// Puts a copy in the image's place. The node must have ended.
    pub(crate) fn replace_with(&self, copy: &Path) -> Result<(), String> {
        self.unmount()?;
        fs::rename(copy, &self.image).map_err(|error| format!("{}: {error}", copy.display()))?;
        self.mount()
    }

    /// Writes a file that nobody syncs: what the next power cut must take away.
    pub(crate) fn write_unsynced(&self) -> Result<(), String> {
        let file = self.unsynced();
        fs::write(&file, UNSYNCED).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Whether what was written and not synced is gone; if it is not, it is removed.
    pub(crate) fn has_lost_unsynced(&self) -> Result<bool, String> {
        let found = fs::read(self.unsynced());
        if found.is_ok() {
            fs::remove_file(self.unsynced()).map_err(|error| format!("{}: {error}", self.unsynced().display()))?;
        }
        // Its name may have come through without what it holds.
        Ok(found.ok().as_deref() != Some(UNSYNCED))
    }

    fn unsynced(&self) -> PathBuf {
        self.mounted_at.join("unsynced")
    }

    /// How many writes the device has finished, and how many requests are under way.
    fn writes(&self) -> Result<(u64, u64), String> {
        let device = fs::metadata(&self.mounted_at).map_err(|error| error.to_string())?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let path = format!("/sys/dev/block/{major}:{minor}/stat");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let fields: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match fields.as_slice() {
            [_, _, _, _, writes, _, _, _, under_way, ..] => Ok((*writes, *under_way)),
            _ => Err(format!("{path} has another form than expected")),
        }
    }
}

/// Unmounts the disks of runs that were killed: their directories say by whose id they were made, and whoever had it is no more.
pub(crate) fn clear_leftovers() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for mounted_at in leftovers(&mounts, |directory| maker(directory).is_some_and(|id| !is_alive(id))) {
        // Its loop device goes with it, once nothing has a file open there any more.
        let _gone = run(Command::new("umount").arg("--lazy").arg(&mounted_at));
    }
}

/// Where disks of runs are mounted whose directory is no longer anybody's.
fn leftovers(mounts: &str, is_left: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let loops = mounts.lines().filter(|line| line.starts_with("/dev/loop"));
    let places = loops.filter_map(|line| Some(PathBuf::from(line.split(' ').nth(1)?)));
    let is_of_a_left_run = |place: &PathBuf| {
        let data = place.parent().filter(|data| data.ends_with("data"));
        data.and_then(Path::parent).is_some_and(&is_left)
    };
    places.filter(is_of_a_left_run).collect()
}

/// The id of the process that made a run's directory.
fn maker(directory: &Path) -> Option<u32> {
    fs::read_to_string(directory.join(MAKER)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disks_of_runs_that_are_left_are_unmounted() {
        let directory = tempfile::tempdir().unwrap();
        let run = |name: &str, maker: &str| {
            let run = directory.path().join(name);
            fs::create_dir(&run).unwrap();
            fs::write(run.join(MAKER), maker).unwrap();
            run
        };
        // No process has an id beyond 2^22.
        let (left, runs) = (run("left", "99999999\n"), run("runs", &std::process::id().to_string()));
        let mounts = format!(
            "/dev/vda / ext4 rw 0 0\n/dev/loop1 {0}/data/2 ext4 rw 0 0\n/dev/loop2 {1}/data/1 ext4 rw 0 0\n\
             /dev/loop3 {0}/else/1 ext4 rw 0 0\n/dev/loop4 /mnt/data/1 ext4 rw 0 0\n/dev/vdb {0}/data/3 ext4 rw 0 0\n",
            left.display(),
            runs.display()
        );
        let found = leftovers(&mounts, |directory| maker(directory).is_some_and(|id| !is_alive(id)));
        assert_eq!(found, [left.join("data").join("2")]);
    }
}
