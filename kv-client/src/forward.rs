//! Forwarding: how a server hands a call of its own caller on to the node that leads.
//!
//! What many callers ask of a node goes in one batch stream to it, as with the client itself: a message, a wake-up and a system
//! call are shared by all that is asked at once. Whom to ask, and whether to ask again, is the server's affair: nothing here is
//! sent twice or sent elsewhere. An application has no use for this; it has [`Client`](crate::Client).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kv_core::{
    error::{Error, ErrorKind},
    types::{ClusterId, Epoch, NodeId, ShardId},
};
use kv_proto::v1;
use tokio::{runtime::Handle, time::Instant};

use crate::{
    CONNECT_TIMEOUT_DEFAULT, convert,
    link::{CONGESTED_RETRY_MS, Host, Link, LinkError},
};

/// The streams to the other nodes, one each, opened when there is something to send. At most as many as nodes were named.
#[derive(Debug, Default)]
pub struct Forwarder {
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
}

impl Forwarder {
    /// Asks the node at this address, which must belong to the cluster, and waits for its answer for at most `timeout`.
    ///
    /// Must be called inside a tokio runtime. Dropping the future takes the operation back if it has not left yet.
    ///
    /// # Errors
    /// The node's own, or `NoQuorum` if it can't be reached, `Timeout`, `Overloaded` if too much waits for it. The outcome is
    /// `Unknown` as soon as the operation may have reached it.
    pub async fn call(
        &self,
        cluster: ClusterId,
        (node, address): (NodeId, &str),
        (shard, epoch): (ShardId, Epoch),
        operation: v1::op::Operation,
        timeout: Duration,
    ) -> Result<v1::result::Result, Error> {
        let link = self.link(cluster, node, address);
        let deadline = Instant::now() + timeout;
        match link.call(shard, epoch, operation, deadline, deadline).await {
            Ok(Some(v1::result::Result::Error(detail))) => Err(convert::error(detail)),
            Ok(Some(result)) => Ok(result),
            Ok(None) => Err(convert::mismatch()),
            Err(failure) => Err(error(node, failure)),
        }
    }

    fn link(&self, cluster: ClusterId, node: NodeId, address: &str) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&node).filter(|link| link.address() == address) {
            return Arc::clone(link);
        }
        let host = Arc::new(Member(cluster));
        let link = Link::open(&Handle::current(), node, address.to_owned(), CONNECT_TIMEOUT_DEFAULT, host);
        let link = Arc::new(link);
        links.insert(node, Arc::clone(&link));
        link
    }
}

/// A node that talks to another: it has its map from elsewhere.
struct Member(ClusterId);

impl Host for Member {
    fn known(&self) -> (ClusterId, u64) {
        // No map is newer than this one: none is sent.
        (self.0, u64::MAX)
    }

    fn take_map(&self, _map: v1::ShardMap) {}
}

fn error(node: NodeId, failure: LinkError) -> Error {
    match failure {
        LinkError::NotSent(reason) => {
            Error::not_applied(ErrorKind::NoQuorum, format!("node {node}, which leads, can't be reached: {reason}"))
        }
        LinkError::Broken(reason) => {
            Error::unknown(ErrorKind::NoQuorum, format!("node {node}, which was asked, did not answer: {reason}"))
        }
        LinkError::TimedOut => {
            Error::unknown(ErrorKind::Timeout, format!("node {node}, which was asked, did not answer in time"))
        }
        LinkError::Full | LinkError::Congested => {
            Error::overloaded(format!("too much waits for node {node}, which leads"), CONGESTED_RETRY_MS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::error::Outcome;

    #[test]
    fn only_what_never_left_is_not_applied() {
        let told = |failure| error(NodeId(2), failure).outcome();
        assert_eq!(told(LinkError::NotSent("refused".into())), Outcome::NotApplied);
        assert_eq!(told(LinkError::Full), Outcome::NotApplied);
        assert_eq!(told(LinkError::Congested), Outcome::NotApplied);
        assert_eq!(told(LinkError::Broken("reset".into())), Outcome::Unknown);
        assert_eq!(told(LinkError::TimedOut), Outcome::Unknown);
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_was_not_asked_and_one_that_moves_is_asked_at_its_new_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let forwarder = Forwarder::default();
        let operation = v1::op::Operation::Get(v1::GetRequest::default());
        let asked = forwarder.call(
            ClusterId(1),
            (NodeId(2), &address),
            (ShardId(1), Epoch(1)),
            operation,
            Duration::from_secs(60),
        );
        let refused = asked.await.unwrap_err();
        assert_eq!((refused.kind(), refused.outcome()), (ErrorKind::NoQuorum, Outcome::NotApplied));
        let first = forwarder.link(ClusterId(1), NodeId(2), &address);
        assert!(Arc::ptr_eq(&first, &forwarder.link(ClusterId(1), NodeId(2), &address)));
        assert_eq!(forwarder.link(ClusterId(1), NodeId(2), "127.0.0.1:1").address(), "127.0.0.1:1");
    }
}
