//! Revisions grow in real time, stand for one entry each, and nobody who asks for the latest sees a key go back.
//!
//! The first two are of a whole shard. The judge is that of simulations, [`crate::check::revisions`]; here the index says as much of shards
//! as answers tell.

use super::Status;
use crate::{
    check::revisions::{self, Broken, highest_told},
    history::{Operation, index::Index},
};

/// Judges the revisions of shards, and what readers of single keys saw.
#[must_use]
pub fn judge(operations: &[Operation], index: &Index) -> (Status, Status) {
    let violated = |broken: Broken| {
        let shown: Vec<_> = broken.places.iter().map(|place| &operations[*place]).collect();
        Status::violated(broken.why, &shown, operations.len())
    };
    let shards = revisions::judge(operations, index).map(violated);
    let shards = shards.unwrap_or_else(|| match operations.iter().filter_map(highest_told).count() {
        0 => Status::NotAsked("nobody was told a revision"),
        told => Status::Held(format!("{told} answers, {} shards or single keys", index.groups)),
    });
    let forward = match revisions::forward(operations, index) {
        Ok(0) => Status::NotAsked("no key was read after something was known of it"),
        Ok(judged) => Status::Held(format!("{judged} reads")),
        Err(broken) => violated(broken),
    };
    (shards, forward)
}
