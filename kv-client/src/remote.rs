//! The client over the wire: its links, its sessions, and what it knows of the cluster.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kv_core::types::NodeId;
use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    builder::ClientBuilder,
    error::Result,
    link::Link,
    routing::Routing,
    sessions::Sessions,
    topology::{discover, keep_fresh},
};

/// A cluster as its client holds it.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) routing: Arc<Routing>,
    pub(crate) sessions: Sessions,
    pub(crate) connect_timeout: Duration,
    /// Each with the version of the addresses at which its own was last compared.
    links: Mutex<BTreeMap<NodeId, (u64, Arc<Link>)>>,
    runtime: Handle,
    refresh: AbortHandle,
}

impl Remote {
    /// Finds the cluster.
    ///
    /// # Errors
    /// As [`discover`].
    pub(crate) async fn connect(settings: &ClientBuilder) -> Result<Self> {
        let deadline = tokio::time::Instant::now() + settings.deadline;
        let routing = Arc::new(discover(&settings.endpoints, settings.connect_timeout, deadline).await?);
        let runtime = Handle::current();
        let refresh = keep_fresh(routing.clone(), settings.endpoints.clone(), settings.connect_timeout);
        let refresh = runtime.spawn(refresh).abort_handle();
        let connect_timeout = settings.connect_timeout;
        Ok(Self { routing, sessions: Sessions::default(), connect_timeout, links: Mutex::default(), runtime, refresh })
    }

    /// The link to a node, made at the first use; a node that has moved gets a new one. `None` if it is not known where the
    /// node is.
    pub(crate) fn link(&self, node: NodeId) -> Option<Arc<Link>> {
        // Read first: an address that changes meanwhile is looked at again by the next call.
        let version = self.routing.addresses_version();
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, link)) = links.get(&node).filter(|(checked_at, _)| *checked_at == version) {
            return Some(link.clone());
        }
        let address = self.routing.address(node)?;
        if let Some((checked_at, link)) = links.get_mut(&node).filter(|(_, link)| link.address() == address) {
            *checked_at = version;
            return Some(link.clone());
        }
        let link = Arc::new(Link::open(&self.runtime, node, address, self.connect_timeout, self.routing.clone()));
        links.insert(node, (version, link.clone()));
        Some(link)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.refresh.abort();
    }
}
