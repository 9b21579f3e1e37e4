//! A client of a cluster, under load.

use bytes::Bytes;

use super::Target;
use crate::{Client, Consistency, Durability, Error, Outcome};

/// A client, and how it is asked.
#[derive(Clone, Debug)]
pub struct Kv {
    /// The client.
    pub client: Client,
    /// How fresh gets must be.
    pub consistency: Consistency,
    /// When puts are acknowledged; `None` takes the cluster's default.
    pub durability: Option<Durability>,
}

impl From<Client> for Kv {
    fn from(client: Client) -> Self {
        Self { client, consistency: Consistency::default(), durability: None }
    }
}

impl Target for Kv {
    async fn put(&self, key: &str, value: &Bytes) -> Result<(), String> {
        let put = self.client.put(key, value.clone());
        let put = match self.durability {
            Some(durability) => put.durability(durability),
            None => put,
        };
        put.await.map(|_receipt| ()).map_err(|error| name(&error))
    }

    async fn get(&self, key: &str) -> Result<bool, String> {
        let get = self.client.get(key).consistency(self.consistency);
        get.await.map(|entry| entry.is_some()).map_err(|error| name(&error))
    }
}

fn name(error: &Error) -> String {
    let outcome = match error.outcome() {
        Outcome::NotApplied => "not applied",
        Outcome::Unknown => "outcome unknown",
    };
    format!("{:?}, {outcome}", error.kind())
}
