//! What an application does, through kv-client.

use std::time::Duration;

use kv_client::{Consistency, Durability, ErrorKind, Fate, Outcome, Previous, Revision};

use crate::support::{client, cluster, keys};

#[tokio::test]
async fn what_is_put_is_read_until_it_is_deleted() {
    let cluster = cluster(3).await;
    let client = client(&cluster).await;
    assert_eq!(client.get("hello").await.unwrap(), None);
    let first = client.put("hello", "world").await.unwrap();
    assert_eq!(first.durability, Durability::Sync);
    let entry = client.get("hello").await.unwrap().unwrap();
    assert_eq!((entry.value.as_ref(), Some(entry.revision)), (b"world".as_ref(), first.revision));
    let second = client.put("hello", "").return_previous().await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(second.previous, Previous::Entry(entry));
    assert!(client.get("hello").await.unwrap().unwrap().value.is_empty(), "an empty value is a value");
    let gone = client.delete("hello").await.unwrap();
    assert!(gone.revision > second.revision);
    assert_eq!(client.get("hello").await.unwrap(), None);
    assert_eq!(client.delete("hello").await.unwrap().revision, Some(Revision(0)));
}

#[tokio::test]
async fn conditions_hold_or_change_nothing() {
    let cluster = cluster(3).await;
    let client = client(&cluster).await;
    let first = client.put("lock", "me").if_absent().await.unwrap().revision;
    let error = client.put("lock", "you").if_absent().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome(), error.current()), (ErrorKind::Conflict, Outcome::NotApplied, first));
    let error = client.put("lock", "you").if_revision(Revision(u64::MAX)).await.unwrap_err();
    assert_eq!((error.kind(), error.current()), (ErrorKind::Conflict, first));
    let second = client.put("lock", "me again").if_revision(first.unwrap()).await.unwrap().revision;
    let error = client.delete("lock").if_revision(first.unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.current()), (ErrorKind::Conflict, second));
    client.delete("lock").if_revision(second.unwrap()).await.unwrap();
    let error = client.put("lock", "x").if_revision(second.unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.current()), (ErrorKind::Conflict, None));
}

#[tokio::test]
async fn many_keys_of_all_shards_are_read_at_once_and_in_order() {
    let cluster = cluster(3).await;
    let client = client(&cluster).await;
    for key in keys(100).step_by(2) {
        client.put(&key, key.clone()).await.unwrap();
    }
    let entries = client.get_many(keys(100)).await;
    for (number, (key, entry)) in keys(100).zip(entries).enumerate() {
        let value = entry.unwrap().map(|entry| entry.value);
        assert_eq!(value.as_deref(), (number % 2 == 0).then_some(key.as_bytes()));
    }
}

#[tokio::test]
async fn the_largest_key_and_value_are_kept_byte_for_byte() {
    let cluster = cluster(3).await;
    let client = client(&cluster).await;
    let key: Vec<u8> = (0..kv_client::KEY_BYTES_MAX).map(|at| at as u8).collect();
    let value: Vec<u8> = (0..kv_client::VALUE_BYTES_MAX).map(|at| (at / 7) as u8).collect();
    client.put(&key, value.clone()).await.unwrap();
    assert_eq!(client.get(&key).await.unwrap().unwrap().value, value);
}

#[tokio::test]
async fn an_async_write_is_read_at_once_and_becomes_durable() {
    let cluster = cluster(3).await;
    let client = client(&cluster).await;
    for key in keys(30) {
        let receipt = client.put(&key, "early").durability(Durability::Async).await.unwrap();
        assert_eq!(client.get(&key).await.unwrap().unwrap().value, "early");
        if let Some(token) = receipt.token {
            assert_eq!(client.wait_durable(token).await.unwrap(), Fate::Durable);
        }
    }
}

#[tokio::test]
async fn bounded_and_stale_reads_say_how_old_they_are() {
    let cluster = cluster(3).await;
    let client = client(&cluster).await;
    client.put("hello", "world").await.unwrap();
    let bound = Duration::from_secs(30);
    let read = client.get("hello").consistency(Consistency::Bounded(bound)).read().await.unwrap();
    assert!(read.age.unwrap() <= bound);
    let read = client.get("hello").consistency(Consistency::Stale).read().await.unwrap();
    assert!(read.entry.is_none_or(|entry| entry.value == "world"));
}
