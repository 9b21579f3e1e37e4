//! `get`, `put` and `del`.

use std::os::unix::ffi::OsStrExt;

use kv_client::{Client, Durability, Previous, Receipt, Revision};
use serde_json::{Value, json};

use crate::{
    args::{Del, Format, Get, Put},
    exit::Exit,
    output::{Output, json_bytes, shown, table},
};

/// Reads a key. In a pipe the value comes as it is, without a newline.
pub(crate) async fn get(client: Client, get: Get, output: &Output) -> Result<(), Exit> {
    let key = get.key.as_bytes();
    let read = client.get(key).consistency(get.consistency).read().await?;
    let entry = read.entry.ok_or(Exit::NotFound)?;
    let age = read.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    match output.format {
        Format::Raw => output.bytes(&entry.value),
        Format::Json => {
            let mut object = json!({ "revision": entry.revision.0, "age_ms": age });
            json_bytes(&mut object, "key", key);
            json_bytes(&mut object, "value", &entry.value);
            output.line(object)
        }
        Format::Table => {
            let row = [shown(key), entry.revision.to_string(), shown(&entry.value)];
            output.line(table(["KEY", "REVISION", "VALUE"], vec![row]))
        }
    }
}

/// Writes a key.
pub(crate) async fn put(client: Client, put: Put, value: Vec<u8>, output: &Output) -> Result<(), Exit> {
    let mut call = client.put(put.key.as_bytes(), value);
    if put.if_absent {
        call = call.if_absent();
    }
    if let Some(revision) = put.if_revision {
        call = call.if_revision(Revision(revision));
    }
    if put.previous {
        call = call.return_previous();
    }
    if put.is_async {
        call = call.durability(Durability::Async);
    }
    report(&call.await?, output)
}

/// Deletes a key. Deleting an absent key succeeds.
pub(crate) async fn del(client: Client, del: Del, output: &Output) -> Result<(), Exit> {
    let mut call = client.delete(del.key.as_bytes());
    if let Some(revision) = del.if_revision {
        call = call.if_revision(Revision(revision));
    }
    if del.previous {
        call = call.return_previous();
    }
    if del.is_async {
        call = call.durability(Durability::Async);
    }
    report(&call.await?, output)
}

fn report(receipt: &Receipt, output: &Output) -> Result<(), Exit> {
    let durability = match receipt.durability {
        Durability::Sync => "sync",
        Durability::Async => "async",
    };
    match output.format {
        Format::Json => output.line(as_json(receipt, durability)),
        Format::Raw => match (&receipt.previous, receipt.revision) {
            (Previous::NotAsked, Some(revision)) => output.line(revision),
            (Previous::NotAsked, None) => Ok(()),
            (Previous::Entry(entry), _) => output.bytes(&entry.value),
            (Previous::Absent | Previous::Unavailable, _) => Ok(()),
        },
        Format::Table => {
            output.line(match receipt.revision {
                None => format!("OK  accepted, not yet on disk ({durability})"),
                Some(Revision(0)) => "OK  the key was absent, nothing changed".to_owned(),
                Some(revision) => format!("OK  revision {revision} ({durability})"),
            })?;
            match &receipt.previous {
                Previous::NotAsked => Ok(()),
                Previous::Absent => output.line("before: absent"),
                Previous::Unavailable => output.line("before: no longer remembered"),
                Previous::Entry(entry) => {
                    output.line(format!("before: {} (revision {})", shown(&entry.value), entry.revision))
                }
            }
        }
    }
}

fn as_json(receipt: &Receipt, durability: &str) -> Value {
    let token =
        receipt.token.map(|token| json!({ "shard": token.shard.0, "term": token.term.0, "index": token.index.0 }));
    let mut object = json!({
        "revision": receipt.revision.map(|revision| revision.0),
        "durability": durability,
        "token": token,
    });
    match &receipt.previous {
        Previous::NotAsked => {}
        Previous::Absent => object["previous"] = Value::Null,
        Previous::Unavailable => object["previous_unavailable"] = json!(true),
        Previous::Entry(entry) => {
            let mut previous = json!({ "revision": entry.revision.0 });
            json_bytes(&mut previous, "value", &entry.value);
            object["previous"] = previous;
        }
    }
    object
}
