//! Every engine does the same.

use super::*;

const ENGINES: [Engine; 2] = [Engine::Sled, Engine::Redb];
const TREE: ReplicaId = ReplicaId(7);

fn record(key: &str, value: &str) -> (Bytes, Bytes) {
    (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
}

fn filled(root: &Path, engine: Engine) -> IndexStore {
    let store = IndexStore::open(root, engine);
    store.reset(TREE).unwrap();
    store.write(TREE, &[b"a", b"b", b"c"].map(|key| (&key[..], Some(&b"1"[..])))).unwrap();
    store
}

#[test]
fn records_are_inserted_removed_and_read_in_order() {
    for engine in ENGINES {
        let directory = tempfile::tempdir().unwrap();
        let store = filled(directory.path(), engine);
        store.write(TREE, &[(b"b", None), (b"d", Some(b"2"))]).unwrap();
        assert_eq!(store.get(TREE, b"a").unwrap(), Some(Bytes::from("1")));
        assert_eq!(store.get(TREE, b"b").unwrap(), None);
        assert_eq!(store.range(TREE, b"b", 2).unwrap(), [record("c", "1"), record("d", "2")]);
        store.reset(TREE).unwrap();
        assert_eq!(store.range(TREE, b"", 9).unwrap(), []);
    }
}

#[test]
fn a_tree_exists_only_after_a_reset_and_until_it_is_removed() {
    for engine in ENGINES {
        let directory = tempfile::tempdir().unwrap();
        let store = filled(directory.path(), engine);
        assert!(store.get(ReplicaId(8), b"a").is_err());
        assert!(store.write(ReplicaId(8), &[]).is_err());
        store.remove(ReplicaId(8)).unwrap();
        store.remove(TREE).unwrap();
        assert!(store.get(TREE, b"a").is_err());
        assert!(store.write(TREE, &[]).is_err());
        assert_eq!(generations(directory.path(), engine), [1], "a tree that is missing costs nothing else");
    }
}

#[test]
fn an_index_is_found_again() {
    for engine in ENGINES {
        let directory = tempfile::tempdir().unwrap();
        drop(filled(directory.path(), engine));
        let store = IndexStore::open(directory.path(), engine);
        match store.get(TREE, b"c") {
            Ok(found) => assert_eq!(found, Some(Bytes::from("1"))),
            // sled lets go of its lock some time after the drop: until then the index is begun anew, which is an error, never a miss.
            Err(_) => assert_eq!(engine, Engine::Sled),
        }
    }
}

#[test]
fn what_redb_did_not_sync_is_an_error_or_older_and_never_a_miss() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), Engine::Redb);
    let crashed = tempfile::tempdir().unwrap();
    fs::create_dir_all(crashed.path().join("redb-values-1/engine")).unwrap();
    let copy = |store: &IndexStore| {
        // As the disk would have it if the process were killed now.
        let file = |root: &Path| root.join("redb-values-1/engine/index.redb");
        fs::copy(file(directory.path()), file(crashed.path())).unwrap();
        assert!(store.get(TREE, b"a").is_ok());
        IndexStore::open(crashed.path(), Engine::Redb)
    };
    assert!(copy(&store).get(TREE, b"a").is_err(), "the tree is lost, not empty");
    drop(store);
    let store = IndexStore::open(directory.path(), Engine::Redb);
    store.write(TREE, &[(b"a", Some(b"2"))]).unwrap();
    let after = copy(&store);
    assert_eq!(after.get(TREE, b"a").unwrap(), Some(Bytes::from("1")), "as it was when it was closed");
    assert_eq!(after.range(TREE, b"", 9).unwrap().len(), 3);
}

#[test]
fn a_damaged_index_gives_errors_and_never_misses() {
    for (engine, file) in [(Engine::Sled, "sled-values-1/engine/db"), (Engine::Redb, "redb-values-1/engine/index.redb")]
    {
        let directory = tempfile::tempdir().unwrap();
        drop(filled(directory.path(), engine));
        let database = directory.path().join(file);
        let mut bytes = fs::read(&database).unwrap();
        for byte in &mut bytes {
            *byte ^= 0x5a;
        }
        fs::write(&database, bytes).unwrap();
        let store = IndexStore::open(directory.path(), engine);
        assert!(store.get(TREE, b"a").is_err(), "the tree is lost, not empty");
        store.reset(TREE).unwrap();
        assert_eq!(store.get(TREE, b"a").unwrap(), None);
        assert_eq!(names(directory.path()).len(), 1, "the damaged directory is gone");
    }
}

#[test]
fn a_damaged_long_value_costs_its_tree_alone() {
    for engine in ENGINES {
        let directory = tempfile::tempdir().unwrap();
        let store = filled(directory.path(), engine);
        let other = ReplicaId(8);
        for tree in [TREE, other] {
            store.remove(tree).unwrap();
            store.reset(tree).unwrap();
            store.write(tree, &[(b"ka", Some(&[1; 5_000]))]).unwrap();
        }
        let values = directory.path().join(format!("{}1/values", prefix(engine)));
        let [file] = &names(&values)[..] else { panic!("both values are of one length") };
        let mut bytes = fs::read(values.join(file)).unwrap();
        bytes[4_000] ^= 1;
        fs::write(values.join(file), bytes).unwrap();
        assert!(store.get(TREE, b"ka").is_err());
        assert!(store.get(other, b"ka").is_ok());
        store.reset(TREE).unwrap();
        store.write(TREE, &[(b"ka", Some(&[2; 5_000]))]).unwrap();
        assert_eq!(store.get(TREE, b"ka").unwrap(), Some(Bytes::from(vec![2; 5_000])));
        assert_eq!(generations(directory.path(), engine), [1]);
    }
}

#[test]
fn another_engine_begins_anew_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    drop(filled(directory.path(), Engine::Sled));
    // As a directory of sled was named when each record stood under its own key.
    fs::create_dir(directory.path().join("7")).unwrap();
    let store = IndexStore::open(directory.path(), Engine::Redb);
    assert!(store.get(TREE, b"a").is_err());
    assert_eq!(names(directory.path()), ["redb-values-1"]);
    drop(store);
    drop(IndexStore::open(directory.path(), Engine::Sled));
    assert_eq!(names(directory.path()), ["sled-values-1"]);
}

#[test]
fn a_panic_inside_costs_the_index_and_not_the_node() {
    for engine in ENGINES {
        let directory = tempfile::tempdir().unwrap();
        let store = filled(directory.path(), engine);
        let other = store.clone();
        let failed: Result<(), _> = store.on_tree(TREE, |_| panic!("a page is damaged"));
        assert!(failed.unwrap_err().0.contains("a page is damaged"));
        assert!(other.get(TREE, b"a").is_err());
        other.reset(TREE).unwrap();
        assert_eq!(store.get(TREE, b"a").unwrap(), None);
        assert_eq!(names(directory.path()), [format!("{}2", prefix(engine))]);
    }
}

#[test]
fn engines_have_names() {
    for engine in ENGINES {
        assert_eq!(Engine::named(&engine.to_string()), Some(engine));
    }
    assert_eq!(Engine::named("rocks"), None);
}
