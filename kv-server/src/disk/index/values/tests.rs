use std::collections::BTreeMap;

use super::{super::Engine, slots::Length, *};

const TREES: [ReplicaId; 2] = [ReplicaId(1), ReplicaId(2)];

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(root: &Path, engine: Engine) -> LongValues {
    let engine = engine.open_engine(&root.join("engine")).unwrap();
    LongValues::open(engine, &root.join("values")).unwrap()
}

/// The same engine, as after a crash at which nothing of it was lost.
fn opened_again(values: LongValues) -> LongValues {
    let directory = values.files.directory().to_owned();
    LongValues::open(values.engine, &directory).unwrap()
}

fn change<'a>((key, value): &'a (Vec<u8>, Option<Vec<u8>>)) -> Change<'a> {
    (key, value.as_deref())
}

fn books(values: &LongValues) -> (u64, Vec<(u8, u64)>) {
    values.with_books(|books| Ok(books.counts())).unwrap()
}

fn random_changes(random: &mut fastrand::Rng) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut changes: Vec<_> = (0..random.usize(0..80))
        .map(|_| {
            let space = if random.u8(0..8) == 0 { 's' } else { 'k' };
            let key = format!("{space}{}", random.u32(0..300)).into_bytes();
            let bytes = match random.u8(0..10) {
                0..4 => random.usize(0..600),
                4..8 => 1_000,
                8 => random.usize(500..20_000),
                _ => {
                    let stub = Stub::new(Length::of(600).unwrap(), 1, b"what looks like one").unwrap();
                    return (key, Some(stub.encode().to_vec()));
                }
            };
            let value = (random.u8(0..5) > 0).then(|| vec![random.u8(..); bytes]);
            (key, value)
        })
        .collect();
    // As checkpoints write them; or in whatever order, with keys that come twice.
    if random.bool() {
        changes.sort_by(|a, b| a.0.cmp(&b.0));
        changes.dedup_by(|a, b| a.0 == b.0);
    }
    changes
}

fn assert_same(values: &LongValues, tree: ReplicaId, model: &Model) {
    let all = values.range(tree, b"", usize::MAX).unwrap();
    assert!(
        all.iter()
            .map(|(key, value)| (&key[..], &value[..]))
            .eq(model.iter().map(|(key, value)| (&key[..], &value[..])))
    );
    let keys: Vec<Vec<u8>> = (0..300).map(|number| format!("k{number}").into_bytes()).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    for (key, value) in keys.iter().zip(values.get_many(tree, &keys).unwrap()) {
        assert_eq!(value.as_deref(), model.get(*key).map(Vec::as_slice));
        assert_eq!(values.get(tree, key).unwrap(), value);
    }
    let mut each = Vec::new();
    values
        .each(tree, &mut |key, value| {
            each.push((key.to_vec(), value.to_vec()));
            Ok(())
        })
        .unwrap();
    assert!(each.into_iter().eq(model.clone()));
}

#[test]
fn it_holds_what_an_ordered_map_holds() {
    for (seed, engine) in [(1, Engine::Sled), (2, Engine::Redb), (3, Engine::Sled)] {
        let directory = tempfile::tempdir().unwrap();
        let mut values = open(directory.path(), engine);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut models = BTreeMap::from(TREES.map(|tree| (tree, Model::new())));
        TREES.iter().for_each(|tree| values.reset(*tree).unwrap());
        for round in 0..120 {
            let tree = TREES[random.usize(0..2)];
            let model = models.get_mut(&tree).unwrap();
            let changes = random_changes(&mut random);
            values.write(tree, &changes.iter().map(change).collect::<Vec<_>>()).unwrap();
            for (key, value) in changes {
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
            if round % 30 == 20 {
                values.reset(tree).unwrap();
                model.clear();
            }
            if round % 10 == 5 {
                let before = books(&values);
                values = opened_again(values);
                values.write(tree, &[(b"k", None)]).unwrap();
                assert_eq!(books(&values), before, "what is taken is read from the engine");
            }
            assert_same(&values, tree, model);
            let long = models.values().flatten().filter(|(key, value)| goes_to_a_slot(key, value)).count() as u64;
            let (of_trees, slots) = books(&values);
            assert_eq!((of_trees, slots.iter().map(|(_, taken)| taken).sum::<u64>()), (long, long));
        }
        TREES.iter().for_each(|tree| values.remove(*tree).unwrap());
        assert_eq!(books(&values), (0, Vec::new()));
    }
}

#[test]
fn what_is_written_again_and_again_takes_no_more_room() {
    let directory = tempfile::tempdir().unwrap();
    let mut values = open(directory.path(), Engine::Sled);
    values.reset(TREES[0]).unwrap();
    let keys: Vec<_> = (0..100).map(|number| format!("k{number:02}").into_bytes()).collect();
    for round in 0..20 {
        let value = vec![round; 2_000];
        for some in keys.chunks(10) {
            let changes: Vec<Change<'_>> = some.iter().map(|key| (&key[..], Some(&value[..]))).collect();
            values.write(TREES[0], &changes).unwrap();
        }
    }
    let length = Length::of(2_000).unwrap();
    assert_eq!(values.files.slots(length).unwrap(), 110, "those of all keys, and of the ten that were written last");
}

#[test]
fn a_value_that_is_not_what_was_written_is_an_error_of_its_tree() {
    let directory = tempfile::tempdir().unwrap();
    let mut values = open(directory.path(), Engine::Sled);
    for tree in TREES {
        values.reset(tree).unwrap();
        let value = [tree.0 as u8; 1_000];
        values.write(tree, &[(b"ka", Some(&value)), (b"kb", Some(b"short"))]).unwrap();
    }
    let file = directory.path().join(format!("values/slots-{}", Length::of(1_000).unwrap().bytes()));
    let whole = fs::read(&file).unwrap();
    let damaged = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    // The first tree's value is flipped, exchanged with the other's, cut off.
    let cut = whole[..900].to_vec();
    let exchanged = [&whole[Length::of(1_000).unwrap().bytes() as usize..], &whole[..1_000]].concat();
    for (bytes, is_other_whole) in [(damaged(999), true), (exchanged, false), (cut, false)] {
        fs::write(&file, bytes).unwrap();
        assert!(matches!(values.get(TREES[0], b"ka"), Err(Problem::Damaged(_))));
        assert!(matches!(values.get_many(TREES[0], &[b"ka", b"kb"]), Err(Problem::Damaged(_))));
        assert!(matches!(values.range(TREES[0], b"", 9), Err(Problem::Damaged(_))));
        assert_eq!(values.get(TREES[0], b"kb").unwrap(), Some(Bytes::from("short")));
        assert_eq!(values.get(TREES[1], b"ka").is_ok(), is_other_whole);
    }
    values.reset(TREES[0]).unwrap();
    values.write(TREES[0], &[(b"ka", Some(&[3; 1_000]))]).unwrap();
    assert_eq!(values.get(TREES[0], b"ka").unwrap(), Some(Bytes::from(vec![3; 1_000])));
}

#[test]
fn two_values_in_one_place_cost_the_index() {
    let directory = tempfile::tempdir().unwrap();
    let mut values = open(directory.path(), Engine::Sled);
    TREES.iter().for_each(|tree| values.reset(*tree).unwrap());
    values.write(TREES[0], &[(b"ka", Some(&[1; 1_000]))]).unwrap();
    let stub = values.engine.get(TREES[0], b"ka").unwrap().unwrap();
    values.engine.write(TREES[1], &[(b"kb", Some(&stub))]).unwrap();
    let values = opened_again(values);
    assert!(values.get(TREES[1], b"kb").is_ok(), "read, it is as good as the other");
    assert!(matches!(values.write(TREES[0], &[(b"ka", None)]), Err(Problem::Failed(_))), "but none may be freed");
}

#[test]
fn values_that_are_gone_cost_the_index_before_another_takes_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let mut values = open(directory.path(), Engine::Sled);
    TREES.iter().for_each(|tree| values.reset(*tree).unwrap());
    values.write(TREES[0], &[(b"ka", Some(&[1; 1_000]))]).unwrap();
    fs::remove_dir_all(directory.path().join("values")).unwrap();
    let values = opened_again(values);
    assert!(matches!(values.get(TREES[0], b"ka"), Err(Problem::Damaged(_))));
    assert!(matches!(values.write(TREES[1], &[(b"kb", Some(&[1; 1_000]))]), Err(Problem::Failed(_))));
}

#[test]
fn files_are_cut_to_what_is_needed_at_a_start_and_not_before() {
    let directory = tempfile::tempdir().unwrap();
    let mut values = open(directory.path(), Engine::Sled);
    let keys: Vec<_> = (10..20).map(|number| format!("k{number}").into_bytes()).collect();
    let changes: Vec<Change<'_>> = keys.iter().map(|key| (&key[..], Some(&[1; 1_000][..]))).collect();
    let length = Length::of(1_000).unwrap();
    values.reset(TREES[0]).unwrap();
    values.write(TREES[0], &changes).unwrap();
    let gone: Vec<Change<'_>> = keys[4..].iter().map(|key| (&key[..], None)).collect();
    values.write(TREES[0], &gone).unwrap();
    assert_eq!(values.files.slots(length).unwrap(), 10);
    let mut values = opened_again(values);
    values.write(TREES[0], &[(b"kz", None)]).unwrap();
    assert_eq!(values.files.slots(length).unwrap(), 4);
    assert_eq!(values.range(TREES[0], b"", 9).unwrap().len(), 4);
    values.remove(TREES[0]).unwrap();
    let values = opened_again(values);
    values.with_books(|_| Ok(())).unwrap();
    assert_eq!(values.files.slots(length).unwrap(), 0);
}

#[test]
fn many_neighbours_and_the_longest_values_are_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut values = open(directory.path(), Engine::Sled);
    values.reset(TREES[0]).unwrap();
    let mut model: Model = (0..600u16).map(|key| (format!("k{key:03}").into_bytes(), vec![key as u8; 1_000])).collect();
    model.extend((0..3).map(|key| (format!("kx{key}").into_bytes(), vec![key; (1 << 20) + 10])));
    let changes: Vec<Change<'_>> = model.iter().map(|(key, value)| (&key[..], Some(&value[..]))).collect();
    values.write(TREES[0], &changes).unwrap();
    let all = values.range(TREES[0], b"", 1_000).unwrap();
    assert!(all.iter().map(|(key, value)| (&key[..], Some(&value[..]))).eq(changes.iter().copied()));
    let keys: Vec<&[u8]> = model.keys().map(Vec::as_slice).collect();
    assert!(values.get_many(TREES[0], &keys).unwrap().iter().flatten().eq(model.values()));
}

#[test]
fn a_tree_that_was_to_go_and_did_not_keeps_what_it_has_since() {
    let directory = tempfile::tempdir().unwrap();
    let mut values = open(directory.path(), Engine::Sled);
    TREES.iter().for_each(|tree| values.reset(*tree).unwrap());
    let write = |values: &LongValues, tree, byte| values.write(tree, &[(b"ka", Some(&[byte; 1_000]))]).unwrap();
    write(&values, TREES[0], 1);
    values.before_drop(TREES[0]).unwrap();
    // Another slot for it, and its old one for the other tree.
    write(&values, TREES[0], 2);
    write(&values, TREES[1], 3);
    values.reset(TREES[0]).unwrap();
    write(&values, TREES[0], 4);
    write(&values, TREES[0], 5);
    assert_eq!(values.get(TREES[1], b"ka").unwrap(), Some(Bytes::from(vec![3; 1_000])));
    let before = books(&values);
    assert_eq!(books(&opened_again(values)), before);
}

/// What a crash leaves: the engine as it was some writes ago, the slots as they are now. Each change since is written once more,
/// as at a start, and then nothing is missing, wrong, or freed that is in use.
#[test]
fn an_engine_that_went_back_has_it_all_when_what_it_lost_is_written_again() {
    for seed in 0..16 {
        let mut random = fastrand::Rng::with_seed(seed);
        let directory = tempfile::tempdir().unwrap();
        let mut values = open(directory.path(), [Engine::Sled, Engine::Redb][usize::from(seed % 4 == 0)]);
        TREES.iter().for_each(|tree| values.reset(*tree).unwrap());
        let mut models = [Model::new(), Model::new()];
        let mut old = [Vec::new(), Vec::new()];
        let mut since = Vec::new();
        let went_back = random.usize(0..40);
        for write in 0..40 {
            if write == went_back {
                old = TREES.map(|tree| values.engine.range(tree, b"", usize::MAX).unwrap());
                since.clear();
            }
            let (number, changes) = (random.usize(0..2), random_changes(&mut random));
            values.write(TREES[number], &changes.iter().map(change).collect::<Vec<_>>()).unwrap();
            for (key, value) in changes.clone() {
                match value {
                    Some(value) => models[number].insert(key, value),
                    None => models[number].remove(&key),
                };
            }
            since.push((TREES[number], changes));
        }
        for (tree, old) in TREES.into_iter().zip(old) {
            values.engine.reset(tree).unwrap();
            let old: Vec<Change<'_>> = old.iter().map(|(key, value)| (&key[..], Some(&value[..]))).collect();
            values.engine.write(tree, &old).unwrap();
        }
        let values = opened_again(values);
        for (tree, changes) in since {
            values.write(tree, &changes.iter().map(change).collect::<Vec<_>>()).unwrap();
        }
        TREES.iter().zip(&models).for_each(|(tree, model)| assert_same(&values, *tree, model));
    }
}

#[test]
fn what_is_there_is_found_while_slots_are_written_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut values = open(directory.path(), Engine::Sled);
    values.reset(TREES[0]).unwrap();
    let key = |number: u8| [b'k', number];
    let value = |round: u8| vec![round; 600];
    let write = |values: &LongValues, round: u8| {
        let value = value(round);
        for number in 0..20 {
            values.write(TREES[0], &[(&key(number), Some(&value))]).unwrap();
        }
    };
    write(&values, 0);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut random = fastrand::Rng::with_seed(1);
            for _ in 0..20_000 {
                // The value of one round or another, never what is neither.
                let found = values.get(TREES[0], &key(random.u8(0..20))).unwrap().unwrap();
                assert_eq!(found, value(found[0]));
            }
        });
        let mut round: u8 = 0;
        while !reader.is_finished() {
            round = round.wrapping_add(1);
            write(&values, round);
        }
    });
}
