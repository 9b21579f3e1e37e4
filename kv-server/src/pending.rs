//! Requests that the node has taken and not yet answered: who asked, and since when.

use kv_core::types::{RequestId, ShardId, Time};

use crate::sink::Asker;

/// A request that waits for its answer.
pub(crate) struct Pending {
    /// Who asked.
    pub(crate) asker: Asker,
    /// What, in a word.
    pub(crate) what: &'static str,
    /// Of which shard.
    pub(crate) shard: ShardId,
    /// Since when.
    pub(crate) since: Time,
}

/// All of them. A request's id is its place, used again once it is answered.
#[derive(Default)]
pub(crate) struct PendingRequests {
    places: Vec<Option<Pending>>,
    free: Vec<usize>,
}

impl PendingRequests {
    /// Keeps a request and gives it an id.
    pub(crate) fn add(&mut self, pending: Pending) -> RequestId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(pending);
        RequestId(place as u64)
    }

    /// Takes a request out, to answer it.
    pub(crate) fn take(&mut self, id: RequestId) -> Option<Pending> {
        let place = usize::try_from(id.0).ok()?;
        let pending = self.places.get_mut(place)?.take()?;
        self.free.push(place);
        Some(pending)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_answered_once_and_then_used_again() {
        let mut requests = PendingRequests::default();
        let pending = || Pending {
            asker: Asker::Call(tokio::sync::oneshot::channel().0),
            what: "get",
            shard: ShardId(1),
            since: Time(1),
        };
        let first = requests.add(pending());
        let second = requests.add(pending());
        assert_ne!(first, second);
        assert!(requests.take(first).is_some());
        assert!(requests.take(first).is_none());
        assert!(requests.take(RequestId(99)).is_none());
        assert_eq!(requests.add(pending()), first);
        assert_eq!(requests.len(), 2);
    }
}
