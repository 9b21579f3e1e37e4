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

/// All of them. A request's id names a place and how often it was used, from 1 on: an answer too many, or one to nobody,
/// finds nothing instead of somebody else's request.
#[derive(Default)]
pub(crate) struct PendingRequests {
    places: Vec<Place>,
    free: Vec<usize>,
}

#[derive(Default)]
struct Place {
    uses: u32,
    pending: Option<Pending>,
}

impl PendingRequests {
    /// Keeps a request and gives it an id.
    pub(crate) fn add(&mut self, pending: Pending) -> RequestId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            self.places.len() - 1
        });
        let taken = &mut self.places[place];
        taken.uses = taken.uses.wrapping_add(1).max(1);
        taken.pending = Some(pending);
        RequestId(u64::from(taken.uses) << 32 | place as u64)
    }

    /// Takes a request out, to answer it.
    pub(crate) fn take(&mut self, id: RequestId) -> Option<Pending> {
        let place = (id.0 & u64::from(u32::MAX)) as usize;
        let taken = self.places.get_mut(place).filter(|place| u64::from(place.uses) == id.0 >> 32)?;
        let pending = taken.pending.take()?;
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
    fn an_id_is_answered_once_and_never_stands_for_another_request() {
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
        assert!(requests.take(RequestId(0)).is_none(), "an answer to nobody");
        let third = requests.add(pending());
        assert_ne!(third, first);
        assert!(requests.take(first).is_none(), "the place is the third's by now");
        assert_eq!(requests.len(), 2);
        assert!(requests.take(third).is_some());
    }
}
