//! A read that may be old is no older than it says, and than was asked.
//!
//! Its state holds every change of the shard of which anybody was told before the moment to which its age reaches back from its call: only
//! what is decided is told. That is judged by the shard's revision, which sees over keys; whether the entry itself was current at such a
//! moment is judged with the order of each key.

use kv_core::types::Revision;

use super::Status;
use crate::{
    check::revisions::highest_told,
    history::{Answer, Call, Consistency, Operation, index::Index, run::Settings},
};

/// Judges all reads that may be old.
#[must_use]
pub fn judge(operations: &[Operation], index: &Index, settings: &Settings) -> Status {
    let group = |place: usize| index.key_of[place].map(|key| index.group_of[key]);
    // For each group when the highest revision that was told grew, to what, and by which operation; both ascend.
    let mut told: Vec<Vec<(u64, Revision, usize)>> = vec![Vec::new(); index.groups];
    let mut answers: Vec<_> = operations
        .iter()
        .enumerate()
        .filter_map(|(place, operation)| {
            let (at, _) = operation.completed.as_ref()?;
            Some((at.micros, highest_told(operation)?, place))
        })
        .collect();
    answers.sort_unstable();
    for (micros, revision, place) in answers {
        let Some(group) = group(place) else { continue };
        if told[group].last().is_none_or(|(_, last, _)| *last < revision) {
            told[group].push((micros, revision, place));
        }
    }
    let (mut judged, mut oldest_micros) = (0, 0);
    for (place, operation) in operations.iter().enumerate() {
        let (Call::Get { consistency, .. }, Some(Answer::Read { at, age_micros, .. })) =
            (&operation.call, operation.answer())
        else {
            continue;
        };
        match consistency {
            Consistency::Linearizable => continue,
            Consistency::Bounded(asked) if age_micros > asked => {
                let told =
                    if *age_micros == u64::MAX { "that it does not know".into() } else { format!("{age_micros} us") };
                let why = format!("it was asked for a state of at most {asked} us, and told {told}");
                return Status::violated(why, &[operation], operations.len());
            }
            Consistency::Bounded(_) | Consistency::Stale => {}
        }
        judged += 1;
        if *age_micros != u64::MAX {
            oldest_micros = oldest_micros.max(*age_micros);
        }
        let since = operation.invoked.micros.saturating_sub(settings.age_micros(*age_micros));
        let (Some(at), Some(group)) = (at, group(place)) else { continue };
        let before = told[group].partition_point(|(micros, ..)| *micros < since);
        if let Some((_, revision, by)) = told[group][..before].last().filter(|(_, revision, _)| revision > at) {
            let why = format!(
                "the read said that its state was at most {age_micros} us old; revision {revision} of the shard was told longer than that \
                 before it was called, and it read from revision {at}"
            );
            return Status::violated(why, &[&operations[*by], operation], operations.len());
        }
    }
    match judged {
        0 => Status::NotAsked("no read allowed an old state"),
        _ => Status::Held(format!("{judged} reads, the oldest of {:.1} ms", oldest_micros as f64 / 1e3)),
    }
}
