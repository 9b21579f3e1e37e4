//! Checkpoints that are read for peers while the replica goes on.

use kv_core::checkpoint::{
    MERGE_FILES, OFFERS_MAX,
    job::{CheckpointEvent, CheckpointJob, Manifest},
};

use crate::{
    bench::Bench,
    history::History,
    install::{offer, piece},
};

fn read_all(bench: &mut Bench, stream: u64, manifest: &Manifest) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for (number, file) in (0..).zip(&manifest.files) {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < file.bytes {
            let next = piece(bench, stream, number, bytes.len() as u64);
            assert!(!next.is_empty());
            bytes.extend_from_slice(&next);
        }
        files.push(bytes);
    }
    files
}

#[test]
fn offered_files_stay_until_they_are_released_even_if_they_are_merged() {
    let history = History::new(14, MERGE_FILES + 1, 5, 40);
    let mut bench = Bench::found(&history);
    assert!(offer(&mut bench, 1).is_none(), "the initial state has no files");
    bench.write(&history, 1..=MERGE_FILES);
    let manifest = offer(&mut bench, 1).unwrap();
    let same = offer(&mut bench, 2).unwrap();
    assert_eq!(manifest, same);
    let before = read_all(&mut bench, 1, &manifest);
    bench.write(&history, [MERGE_FILES + 1]);
    assert_eq!(read_all(&mut bench, 1, &manifest), before);
    let merged = offer(&mut bench, 3).unwrap();
    assert_eq!(merged.files.len(), 1, "all were merged into one base");
    bench.worker.submit(CheckpointJob::Release { stream: 1 });
    assert!(bench.run().is_empty());
    assert_eq!(read_all(&mut bench, 2, &manifest), before, "another stream still needs them");
    assert!(piece(&mut bench, 1, 0, 0).is_empty(), "a stream that has ended reads nothing");
    assert!(piece(&mut bench, 2, 99, 0).is_empty() && piece(&mut bench, 2, 0, 1 << 40).is_empty());
    bench.worker.submit(CheckpointJob::Release { stream: 2 });
    assert!(bench.run().is_empty());
    assert_eq!(bench.checkpoint_files().len(), 1, "{:?}", bench.disk.paths());
}

#[test]
fn an_offered_file_that_rotted_is_found_by_its_sender() {
    let history = History::new(14, 4, 5, 40);
    for way in ["a bit", "its end", "all of it"] {
        let mut bench = Bench::found(&history);
        bench.write(&history, 1..=3);
        let manifest = offer(&mut bench, 1).unwrap();
        let path = bench.disk.paths().into_iter().find(|path| path.ends_with(&manifest.files[1].name)).unwrap();
        match way {
            "a bit" => bench.disk.flip_bit(&path, 500),
            "its end" => bench.disk.replace(&path, bench.disk.content(&path).unwrap()[..100].to_vec()),
            _ => bench.disk.lose_file(&path),
        }
        let mut read = |file| {
            bench.worker.submit(CheckpointJob::ReadPiece { stream: 1, file, offset: 0 });
            bench.run()
        };
        assert!(matches!(read(0)[..], [CheckpointEvent::PieceRead { .. }]), "another file is whole");
        let found = read(1);
        let [CheckpointEvent::PieceRead { .. }, CheckpointEvent::TreeFailed { reason, .. }] = &found[..] else {
            panic!("{way}: {found:?}");
        };
        assert!(reason.contains(&manifest.files[1].name), "{reason}");
        assert!(matches!(read(1)[..], [CheckpointEvent::PieceRead { .. }]), "it is told once");
        bench.submit_write(&history, 4);
        assert!(matches!(bench.run()[..], [CheckpointEvent::TreeFailed { .. }]), "nothing more is built on it");
    }
}

#[test]
fn there_is_a_bound_on_offers() {
    let history = History::new(14, 1, 5, 40);
    let mut bench = Bench::found(&history);
    bench.write(&history, [1]);
    for stream in 0..OFFERS_MAX as u64 {
        assert!(offer(&mut bench, stream).is_some());
    }
    assert!(offer(&mut bench, 99).is_none());
    bench.worker.submit(CheckpointJob::Release { stream: 3 });
    bench.run();
    assert!(offer(&mut bench, 99).is_some());
}

#[test]
fn pieces_are_read_between_the_steps_of_a_long_job() {
    let history = History::new(15, 2, 3_000, 20);
    let mut bench = Bench::found(&history);
    bench.write(&history, [1]);
    offer(&mut bench, 1).unwrap();
    bench.submit_write(&history, 2);
    let mut steps_between = Vec::new();
    while !bench.worker.is_idle() {
        bench.worker.submit(CheckpointJob::ReadPiece { stream: 1, file: 0, offset: 0 });
        let mut steps = 1;
        while !bench.step().events.iter().any(|event| matches!(event, CheckpointEvent::PieceRead { .. })) {
            steps += 1;
        }
        steps_between.push(steps);
    }
    assert!(steps_between.len() > 10, "{steps_between:?}");
    assert!(steps_between.iter().all(|steps| *steps <= 3), "{steps_between:?}");
}
