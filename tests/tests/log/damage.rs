//! Damage of a small log that was synced in full, tried at every place: refused, or told whole.

use kv_core::log::LogError;

use crate::sample::{SAMPLE_SEGMENT_BYTES, Sample};

const SECTORS: u64 = SAMPLE_SEGMENT_BYTES as u64 / 512;

#[test]
fn a_segment_of_another_length_is_refused() {
    let sample = Sample::new();
    let mut states = 0;
    for path in sample.segments() {
        let content = sample.disk.content(&path).unwrap();
        for bytes in (0..SAMPLE_SEGMENT_BYTES).chain([SAMPLE_SEGMENT_BYTES + 1, SAMPLE_SEGMENT_BYTES * 2]) {
            let disk = sample.disk.fork();
            let mut cut = content.clone();
            cut.resize(bytes, 0);
            disk.replace(&path, cut);
            let opened = sample.open(&disk);
            assert!(matches!(opened, Err(LogError::Corrupt { .. })), "{path} of {bytes} bytes: {opened:?}");
            states += 1;
        }
    }
    println!("{states} states");
}

#[test]
fn an_unused_segment_may_have_any_length() {
    let sample = Sample::new();
    let path = sample.disk.paths().pop().unwrap();
    assert!(!sample.segments().contains(&path));
    for bytes in [0, 1, 511, 512, 4_000, 5_000] {
        let disk = sample.disk.fork();
        disk.replace(&path, vec![0; bytes]);
        assert_eq!(sample.open(&disk).as_ref(), Ok(sample.recovered()), "{bytes} bytes");
        assert!(!disk.paths().contains(&path), "what an interrupted preparation left is removed");
    }
}

#[test]
fn a_missing_segment_is_noticed() {
    let sample = Sample::new();
    for path in sample.segments() {
        let disk = sample.disk.fork();
        disk.lose_file(&path);
        let opened = sample.open(&disk);
        assert!(matches!(opened, Err(LogError::Corrupt { .. })), "{path}: {opened:?}");
    }
    let disk = sample.disk.fork();
    disk.paths().iter().for_each(|path| disk.lose_file(path));
    assert!(matches!(sample.open(&disk), Err(LogError::Corrupt { .. })), "no file at all");
}

#[test]
pub(crate) fn every_flipped_bit_is_harmless_or_refused() {
    let sample = Sample::new();
    let (mut states, mut refused) = (0, 0);
    for path in sample.disk.paths() {
        for bit in 0..SAMPLE_SEGMENT_BYTES as u64 * 8 {
            let disk = sample.disk.fork();
            disk.flip_bit(&path, bit);
            states += 1;
            match sample.open(&disk) {
                Ok(recovered) => assert_eq!(&recovered, sample.recovered(), "{path}, bit {bit}"),
                Err(LogError::Corrupt { .. }) => refused += 1,
                Err(error) => panic!("{path}, bit {bit}: {error}"),
            }
        }
    }
    assert!(refused > states / 2);
    println!("{states} states, {refused} refused");
}

#[test]
fn every_rotten_stamp_is_seen_through() {
    let sample = Sample::new();
    let (last, used) = (sample.segments().pop().unwrap(), sample.ends.last().unwrap().0);
    for path in sample.segments() {
        for sector in 0..if path == last { used } else { SECTORS } {
            for bit in 0..128 {
                let disk = sample.disk.fork();
                disk.flip_bit(&path, sector * 512 * 8 + bit);
                assert_eq!(sample.open(&disk).as_ref(), Ok(sample.recovered()), "{path}, {sector}, {bit}");
            }
        }
    }
}

#[test]
pub(crate) fn zeros_in_the_midst_of_the_log_are_refused() {
    let sample = Sample::new();
    let last_segment = sample.segments().pop().unwrap();
    let [.., (last_begins, _), (last_ends, _)] = sample.ends[..] else { panic!("two blocks") };
    let mut states = 0;
    for path in sample.segments() {
        for sector in 0..SECTORS {
            if path == last_segment && sector >= last_begins {
                continue;
            }
            let disk = sample.disk.fork();
            disk.zero_sector(&path, sector);
            let written = sample.disk.content(&path).unwrap()[sector as usize * 512..][..512] != [0; 512];
            match sample.open(&disk) {
                Ok(recovered) => assert!(!written && recovered == *sample.recovered(), "{path}, sector {sector}"),
                Err(error) => assert!(matches!(error, LogError::Corrupt { .. }), "{path}, sector {sector}: {error}"),
            }
            states += 1;
            if path != last_segment {
                (sector..SECTORS).for_each(|sector| disk.zero_sector(&path, sector));
                let opened = sample.open(&disk);
                assert!(matches!(opened, Err(LogError::Corrupt { .. })) || !written, "{path} from {sector} on");
                states += 1;
            }
        }
    }
    for sector in last_ends..SECTORS {
        let disk = sample.disk.fork();
        disk.zero_sector(&last_segment, sector);
        assert_eq!(sample.open(&disk).as_ref(), Ok(sample.recovered()));
        states += 1;
    }
    println!("{states} states");
}

/// The one hole: a disk that loses whole sectors of the last blocks after it has synced them shows what a crash before the
/// sync would have left. The log is then told up to the last block before, exactly, unless something else gives it away.
#[test]
fn whole_sectors_lost_at_the_very_end_look_torn() {
    let sample = Sample::new();
    let path = sample.segments().pop().unwrap();
    let [.., (last_begins, before), (last_ends, _)] = &sample.ends[..] else { panic!("two blocks") };
    for sector in *last_begins..*last_ends {
        let disk = sample.disk.fork();
        disk.zero_sector(&path, sector);
        assert_eq!(sample.open(&disk).as_ref(), Ok(before), "sector {sector}");
    }
    for from in 1..*last_ends {
        let disk = sample.disk.fork();
        (from..SECTORS).for_each(|sector| disk.zero_sector(&path, sector));
        let whole = sample.ends.iter().rfind(|(end, _)| *end <= from).unwrap();
        match sample.open(&disk) {
            Ok(recovered) => assert_eq!(recovered, whole.1, "from sector {from} on"),
            // The block that gave a segment up is lost as well, and the segment is gone.
            Err(error) => assert!(matches!(error, LogError::Corrupt { .. }), "from sector {from} on: {error}"),
        }
    }
}

#[test]
fn garbage_never_panics_and_never_lies() {
    let sample = Sample::new();
    let paths = sample.disk.paths();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..5_000 {
        let disk = sample.disk.fork();
        let path = &paths[random.usize(0..paths.len())];
        let mut content = disk.content(path).unwrap();
        let (at, length) = (random.usize(0..content.len()), random.usize(1..600));
        content.iter_mut().skip(at).take(length).for_each(|byte| *byte = random.u8(..));
        disk.replace(path, content);
        if let Ok(recovered) = sample.open(&disk) {
            let told = sample.ends.iter().any(|(_, state)| *state == recovered);
            assert!(told, "{path} from {at}, {length} bytes");
        }
    }
}

#[test]
fn segments_that_changed_places_are_refused() {
    let sample = Sample::new();
    let segments = sample.segments();
    for a in 0..segments.len() {
        for b in a + 1..segments.len() {
            let disk = sample.disk.fork();
            let (content_a, content_b) = (disk.content(&segments[a]).unwrap(), disk.content(&segments[b]).unwrap());
            disk.replace(&segments[a], content_b);
            disk.replace(&segments[b], content_a);
            assert!(matches!(sample.open(&disk), Err(LogError::Corrupt { .. })), "{a} and {b}");
        }
    }
}
