//! A checkpoint from a peer: gathered, proven, and put in the place of the replica's own, with crashes at every step.

use kv_core::{
    checkpoint::job::{CheckpointEvent, CheckpointJob, Manifest},
    configuration::Configuration,
    log::record::Install,
    types::LogIndex,
};

use crate::{
    bench::{Bench, Load, REPLICA, SHARD},
    history::History,
};

const STREAM: u64 = 1;

pub(crate) fn offer(sender: &mut Bench, stream: u64) -> Option<Manifest> {
    sender.worker.submit(CheckpointJob::Offer { shard: SHARD, replica: REPLICA, stream });
    match sender.run().remove(0) {
        CheckpointEvent::Offered { manifest, header, .. } => {
            assert_eq!(header.index, manifest.index);
            Some(manifest)
        }
        CheckpointEvent::OfferFailed { .. } => None,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn piece(sender: &mut Bench, stream: u64, file: u32, offset: u64) -> bytes::Bytes {
    sender.worker.submit(CheckpointJob::ReadPiece { stream, file, offset });
    match sender.run().remove(0) {
        CheckpointEvent::PieceRead { bytes, .. } => bytes,
        other => panic!("{other:?}"),
    }
}

fn install_of(manifest: &Manifest) -> Install {
    Install {
        index: manifest.index,
        term: manifest.term,
        configuration: Configuration::default(),
        staging: manifest.staging(),
        digest: manifest.digest,
    }
}

/// How gathering ended, and how many files were sent.
enum Gathered {
    Verified(usize),
    Failed(String),
    DiskFailed,
}

/// Sends what is lacking and has it verified; `spoil` may change a piece on its way.
fn gather(
    sender: &mut Bench,
    receiver: &mut Bench,
    manifest: &Manifest,
    mut spoil: impl FnMut(u32, &mut Vec<u8>),
) -> Gathered {
    let staging = manifest.staging();
    receiver.worker.submit(CheckpointJob::Stage { replica: REPLICA, manifest: manifest.clone() });
    let lacking = match receiver.run().pop() {
        Some(CheckpointEvent::Staged { lacking, .. }) => lacking,
        Some(CheckpointEvent::StageFailed { reason, .. }) => return Gathered::Failed(reason),
        Some(CheckpointEvent::DiskFailed { .. }) => return Gathered::DiskFailed,
        other => panic!("{other:?}"),
    };
    for (file, offset) in &lacking {
        let mut offset = *offset;
        while offset < manifest.files[*file as usize].bytes {
            let mut bytes = piece(sender, STREAM, *file, offset).to_vec();
            assert!(!bytes.is_empty());
            spoil(*file, &mut bytes);
            let (replica, file) = (REPLICA, *file);
            receiver.worker.submit(CheckpointJob::WritePiece { replica, staging, file, offset, bytes: bytes.into() });
            match receiver.run().pop() {
                Some(CheckpointEvent::PieceWritten { next_offset, .. }) => offset = next_offset,
                Some(CheckpointEvent::StageFailed { reason, .. }) => return Gathered::Failed(reason),
                Some(CheckpointEvent::DiskFailed { .. }) => return Gathered::DiskFailed,
                other => panic!("{other:?}"),
            }
        }
    }
    receiver.worker.submit(CheckpointJob::Verify { replica: REPLICA, staging });
    match receiver.run().pop() {
        Some(CheckpointEvent::Verified { header, .. }) => {
            assert_eq!((header.index, header.term), (manifest.index, manifest.term));
            Gathered::Verified(lacking.len())
        }
        Some(CheckpointEvent::StageFailed { reason, .. }) => Gathered::Failed(reason),
        Some(CheckpointEvent::DiskFailed { .. }) => Gathered::DiskFailed,
        other => panic!("{other:?}"),
    }
}

impl Bench {
    /// Takes over what is offered, and proves it.
    pub(crate) fn take(&mut self, sender: &mut Bench, manifest: &Manifest) {
        assert!(matches!(gather(sender, self, manifest, |_, _| {}), Gathered::Verified(_)));
    }
}

/// A sender with 8 checkpoints, and a replica that has the first 3 of them.
fn pair(history: &History) -> (Bench, Bench) {
    let mut sender = Bench::found(history);
    sender.write(history, 1..=3);
    let mut receiver = sender.fork();
    let loaded = receiver.load(history.index(3), None, None);
    receiver.check(history, loaded);
    sender.write(history, 4..=8);
    (sender, receiver)
}

fn history() -> History {
    History::new(11, 10, 8, 60)
}

#[test]
fn only_what_is_lacking_is_sent_and_the_replica_goes_on_from_there() {
    let history = history();
    let (mut sender, receiver) = pair(&history);
    let manifest = offer(&mut sender, STREAM).unwrap();
    assert_eq!(manifest.files.len(), 8);
    for (mut receiver, sent) in [(receiver, 5), (Bench::new(), 8)] {
        assert!(
            matches!(gather(&mut sender, &mut receiver, &manifest, |_, _| {}), Gathered::Verified(count) if count == sent)
        );
        let install = install_of(&manifest);
        let loaded = receiver.load(manifest.index, Some(install.clone()), None);
        assert_eq!(receiver.check(&history, loaded), history.index(8));
        receiver.write(&history, 9..=10);
        // The log still names the install: what was written since must not be lost to it.
        let mut receiver = receiver.restart();
        let loaded = receiver.load(manifest.index, Some(install), None);
        assert_eq!(receiver.check(&history, loaded), history.index(10));
        assert_eq!(receiver.checkpoint_files().len(), 10, "{:?}", receiver.disk.paths());
    }
}

#[test]
fn a_crash_at_any_step_leaves_the_old_state_or_once_it_is_logged_the_new() {
    let history = history();
    let (mut sender, receiver) = pair(&history);
    let manifest = offer(&mut sender, STREAM).unwrap();
    let install = install_of(&manifest);
    let mut random = fastrand::Rng::with_seed(12);
    for steps in 0.. {
        let mut receiver = Bench::on(receiver.disk.fork(), kv_tests::disk::MemoryStore::default());
        let loaded = receiver.load(history.index(3), None, None);
        receiver.check(&history, loaded);
        receiver.disk.power_off_after(steps);
        let is_logged = matches!(gather(&mut sender, &mut receiver, &manifest, |_, _| {}), Gathered::Verified(_));
        let mut is_whole = false;
        if is_logged {
            is_whole = matches!(receiver.load(manifest.index, Some(install.clone()), None), Load::Loaded(..));
        }
        receiver.disk.crash(&mut random);
        let mut receiver = receiver.restart();
        let (at_least, install) =
            if is_logged { (manifest.index, Some(install.clone())) } else { (history.index(3), None) };
        let loaded = receiver.load(at_least, install, None);
        assert_eq!(receiver.check(&history, loaded), at_least, "after {steps} steps");
        let names = receiver.disk.paths();
        assert!(names.iter().all(|path| !path.contains("staging")), "{names:?}");
        if is_whole {
            assert!(steps > 20, "{steps}");
            break;
        }
    }
}

#[test]
fn a_piece_that_was_spoiled_on_its_way_is_found_and_can_be_sent_again() {
    let history = history();
    let (mut sender, _) = pair(&history);
    let manifest = offer(&mut sender, STREAM).unwrap();
    let mut receiver = Bench::new();
    let mut random = fastrand::Rng::with_seed(13);
    for _ in 0..100 {
        let at = random.u32(0..8);
        let bit = random.usize(..);
        let spoil = |file, bytes: &mut Vec<u8>| {
            if file == at {
                let bit = bit % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        };
        assert!(matches!(gather(&mut sender, &mut receiver, &manifest, spoil), Gathered::Failed(_)));
        assert!(receiver.disk.paths().is_empty(), "it was thrown away");
    }
    assert!(matches!(gather(&mut sender, &mut receiver, &manifest, |_, _| {}), Gathered::Verified(8)));
}

#[test]
fn a_file_that_has_rotted_here_is_not_taken_for_the_one_offered() {
    let history = history();
    let (mut sender, mut receiver) = pair(&history);
    let manifest = offer(&mut sender, STREAM).unwrap();
    let base = receiver.disk.paths().into_iter().find(|path| path.ends_with("base-11")).unwrap();
    let last = receiver.disk.content(&base).unwrap().len() as u64 * 8 - 1;
    // In a record, and in the hash at the end.
    for bit in [200, last] {
        receiver.disk.flip_bit(&base, bit);
        assert!(matches!(gather(&mut sender, &mut receiver, &manifest, |_, _| {}), Gathered::Verified(6)));
        receiver.worker.submit(CheckpointJob::Discard { replica: REPLICA, staging: manifest.staging() });
        receiver.run();
        receiver.disk.flip_bit(&base, bit);
    }
}

#[test]
fn a_replica_that_lost_its_own_takes_an_older_one_that_its_log_goes_on_from() {
    let history = history();
    let (mut sender, _) = pair(&history);
    let mut receiver = sender.fork();
    let loaded = receiver.load(history.index(8), None, None);
    receiver.check(&history, loaded);
    receiver.write(&history, 9..=10);
    let base = receiver.disk.paths().into_iter().find(|path| path.ends_with("base-11")).unwrap();
    receiver.disk.flip_bit(&base, 200);
    let mut receiver = receiver.restart();
    assert!(matches!(receiver.load(history.index(8), None, None), Load::Failed(_)));
    let manifest = offer(&mut sender, STREAM).unwrap();
    assert!(matches!(gather(&mut sender, &mut receiver, &manifest, |_, _| {}), Gathered::Verified(8)));
    let loaded = receiver.load(history.index(8), Some(install_of(&manifest)), None);
    assert_eq!(receiver.check(&history, loaded), history.index(8));
    receiver.write(&history, 9..=10);
    let mut receiver = receiver.restart();
    let loaded = receiver.load(history.index(8), None, None);
    assert_eq!(receiver.check(&history, loaded), history.index(10));
}

#[test]
fn an_install_whose_files_are_nowhere_fails_and_leaves_all_as_it_is() {
    let history = history();
    let (mut sender, mut receiver) = pair(&history);
    let manifest = offer(&mut sender, STREAM).unwrap();
    let paths = receiver.disk.paths();
    let failed = receiver.load(manifest.index, Some(install_of(&manifest)), Some(history.initial()));
    assert!(matches!(failed, Load::Failed(_)));
    assert_eq!(receiver.disk.paths(), paths);
}

#[test]
fn lists_that_can_not_be_a_checkpoint_are_refused() {
    let history = history();
    let (mut sender, mut receiver) = pair(&history);
    let good = offer(&mut sender, STREAM).unwrap();
    let bad = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        manifest
    };
    let lists = [
        bad(&|manifest| manifest.files.clear()),
        bad(&|manifest| drop(manifest.files.remove(0))),
        bad(&|manifest| manifest.files.swap(2, 3)),
        bad(&|manifest| manifest.files[1].name = "../delta-21".to_owned()),
        bad(&|manifest| manifest.files[1].bytes = 3),
        bad(&|manifest| manifest.index = LogIndex(80)),
        bad(&|manifest| manifest.files = vec![manifest.files[0].clone(); 65]),
    ];
    let paths = receiver.disk.paths();
    for manifest in lists {
        assert!(
            matches!(gather(&mut sender, &mut receiver, &manifest, |_, _| {}), Gathered::Failed(_)),
            "{manifest:?}"
        );
        assert_eq!(receiver.disk.paths(), paths);
    }
    let other_digest = bad(&|manifest| manifest.digest.0 ^= 1);
    assert!(matches!(gather(&mut sender, &mut receiver, &other_digest, |_, _| {}), Gathered::Failed(_)));
}

#[test]
fn no_room_for_a_peers_files_costs_only_them() {
    let history = history();
    let (mut sender, mut receiver) = pair(&history);
    let manifest = offer(&mut sender, STREAM).unwrap();
    let used: u64 = receiver.disk.paths().iter().map(|path| receiver.disk.content(path).unwrap().len() as u64).sum();
    receiver.disk.set_bytes_max(Some(used + used / 2));
    let gathered = gather(&mut sender, &mut receiver, &manifest, |_, _| {});
    assert!(matches!(gathered, Gathered::Failed(reason) if reason.contains("no space left")));
    let loaded = receiver.load(history.index(3), None, None);
    assert_eq!(receiver.check(&history, loaded), history.index(3));
}

#[test]
fn a_stream_that_broke_off_is_gone_on_with_and_one_thrown_away_leaves_nothing() {
    let history = history();
    let (mut sender, _) = pair(&history);
    let manifest = offer(&mut sender, STREAM).unwrap();
    let staging = manifest.staging();
    let mut receiver = Bench::new();
    receiver.worker.submit(CheckpointJob::Stage { replica: REPLICA, manifest: manifest.clone() });
    receiver.run();
    let write = |receiver: &mut Bench, file, offset, bytes: bytes::Bytes| {
        receiver.worker.submit(CheckpointJob::WritePiece { replica: REPLICA, staging, file, offset, bytes });
        match receiver.run().pop() {
            Some(CheckpointEvent::PieceWritten { next_offset, .. }) => next_offset,
            other => panic!("{other:?}"),
        }
    };
    let first = piece(&mut sender, STREAM, 0, 0);
    assert_eq!(write(&mut receiver, 0, 0, first.clone()), first.len() as u64);
    assert_eq!(write(&mut receiver, 0, 0, first.clone()), first.len() as u64, "a piece that came twice is not written");
    let second = piece(&mut sender, STREAM, 1, 0);
    assert_eq!(write(&mut receiver, 1, 7, second.slice(7..)), 0, "nor one that leaves a gap");
    assert_eq!(write(&mut receiver, 1, 0, second.slice(..9)), 9);
    assert!(matches!(
        gather(&mut sender, &mut receiver, &manifest, |file, _| assert_ne!(file, 0)),
        Gathered::Verified(7)
    ));
    receiver.worker.submit(CheckpointJob::Discard { replica: REPLICA, staging });
    assert!(receiver.run().is_empty());
    assert!(receiver.disk.paths().is_empty());
}

/// Stages what is offered, and sends of what is lacking whole files and, of the next, all but the last byte; what was lacking.
/// `None` if the disk failed.
fn gather_some(sender: &mut Bench, receiver: &mut Bench, manifest: &Manifest, whole: usize) -> Option<Vec<(u32, u64)>> {
    let (replica, staging) = (REPLICA, manifest.staging());
    receiver.worker.submit(CheckpointJob::Stage { replica, manifest: manifest.clone() });
    let Some(CheckpointEvent::Staged { lacking, .. }) = receiver.run().pop() else { return None };
    for (number, (file, offset)) in lacking.iter().copied().take(whole + 1).enumerate() {
        let bytes = piece(sender, STREAM, file, offset);
        let bytes = if number < whole { bytes } else { bytes.slice(..bytes.len() - 1) };
        receiver.worker.submit(CheckpointJob::WritePiece { replica, staging, file, offset, bytes });
        let Some(CheckpointEvent::PieceWritten { .. }) = receiver.run().pop() else { return None };
    }
    Some(lacking)
}

fn stagings(bench: &Bench) -> usize {
    let of = |path: &String| path.split('/').find(|part| part.starts_with("staging-")).map(str::to_owned);
    bench.disk.paths().iter().filter_map(of).collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn a_later_stream_sends_only_what_is_lacking_and_one_of_other_files_what_they_do_not_share() {
    let history = history();
    let (mut sender, _) = pair(&history);
    let first = offer(&mut sender, STREAM).unwrap();
    let mut receiver = Bench::new();
    assert_eq!(gather_some(&mut sender, &mut receiver, &first, 3).unwrap().len(), 8);
    let left = first.files[3].bytes - 1;
    let lacking = gather_some(&mut sender, &mut receiver, &first, 0).unwrap();
    assert_eq!((lacking.len(), lacking[0]), (5, (3, left)), "it goes on in the middle of a file");
    sender.worker.submit(CheckpointJob::Release { stream: STREAM });
    sender.run();
    sender.write(&history, 9..=10);
    let second = offer(&mut sender, STREAM).unwrap();
    let lacking = gather_some(&mut sender, &mut receiver, &second, 2).unwrap();
    assert_eq!((lacking.len(), lacking[0]), (7, (3, left)), "two files more, and what they share is here");
    assert_eq!(stagings(&receiver), 1, "what the first stream left alone is gone");
    receiver.take(&mut sender, &second);
    for keeps in [false, true] {
        let disk = receiver.disk.fork();
        disk.crash_keeping(|| keeps, |_, _| keeps);
        let mut crashed = Bench::on(disk, kv_tests::disk::MemoryStore::default());
        let loaded = crashed.load(second.index, Some(install_of(&second)), None);
        assert_eq!(crashed.check(&history, loaded), history.index(10), "what was moved is there after a loss of power");
    }
    let loaded = receiver.load(second.index, Some(install_of(&second)), None);
    assert_eq!(receiver.check(&history, loaded), history.index(10));
    assert_eq!(stagings(&receiver), 0);
}

#[test]
fn what_was_left_is_not_swept_away_by_a_load_and_is_proven_before_it_is_relied_on() {
    let history = history();
    let (mut sender, mut receiver) = pair(&history);
    let manifest = offer(&mut sender, STREAM).unwrap();
    assert_eq!(gather_some(&mut sender, &mut receiver, &manifest, 2).unwrap().len(), 5);
    let loaded = receiver.load(history.index(3), None, None);
    assert_eq!((receiver.check(&history, loaded), stagings(&receiver)), (history.index(3), 1));
    let path = receiver.disk.paths().into_iter().find(|path| path.contains("staging-") && path.ends_with("delta-51"));
    receiver.disk.flip_bit(&path.expect("it was sent whole"), 300);
    assert!(matches!(gather(&mut sender, &mut receiver, &manifest, |_, _| {}), Gathered::Failed(_)));
    assert_eq!(stagings(&receiver), 0, "it can't be told which file it was");
    assert!(matches!(gather(&mut sender, &mut receiver, &manifest, |_, _| {}), Gathered::Verified(5)));
}

#[test]
fn a_crash_at_any_step_of_a_stream_that_goes_on_leaves_the_old_state() {
    let history = history();
    let (mut sender, receiver) = pair(&history);
    let first = offer(&mut sender, STREAM).unwrap();
    let mut later = sender.fork();
    let loaded = later.load(history.index(8), None, None);
    later.check(&history, loaded);
    later.write(&history, 9..=10);
    let second = offer(&mut later, STREAM).unwrap();
    let mut random = fastrand::Rng::with_seed(14);
    for steps in 0.. {
        let mut receiver = Bench::on(receiver.disk.fork(), kv_tests::disk::MemoryStore::default());
        let loaded = receiver.load(history.index(3), None, None);
        receiver.check(&history, loaded);
        receiver.disk.power_off_after(steps);
        let is_over = gather_some(&mut sender, &mut receiver, &first, 2).is_some()
            && gather_some(&mut sender, &mut receiver, &first, 1).is_some()
            && gather_some(&mut later, &mut receiver, &second, 1).is_some();
        receiver.disk.crash(&mut random);
        let mut receiver = receiver.restart();
        let loaded = receiver.load(history.index(3), None, None);
        assert_eq!(receiver.check(&history, loaded), history.index(3), "after {steps} steps");
        assert_eq!(stagings(&receiver), 0, "{:?}", receiver.disk.paths());
        receiver.take(&mut later, &second);
        if is_over {
            assert!(steps > 10, "{steps}");
            break;
        }
    }
}
