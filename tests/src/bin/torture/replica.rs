//! Reads that one node answers by itself, from its own replicas: kv-client would ask whichever node is best.

use std::time::Duration;

use kv_client::{Entry, Revision};
use kv_proto::{
    HERE_ONLY,
    v1::{Consistency, GetRequest, kv_client::KvClient},
};
use tokio::time::sleep;
use tonic::Request;

use crate::{judge::Key, load::Load};

/// How old an answer may be.
const AGE_MAX: Duration = Duration::from_millis(500);

/// Asks a node for every key of the load, which must not be running, and judges the answers. Tells how many keys there are.
pub(crate) async fn read_all(address: &str, load: &Load) -> Result<usize, String> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    let channel = endpoint.map_err(|error| error.to_string())?.connect().await;
    let mut client = KvClient::new(channel.map_err(|error| format!("{address} does not answer: {error}"))?);
    // All that was acknowledged is now older than the age that is allowed.
    sleep(AGE_MAX).await;
    let keys: Vec<Key> = load.judge.borrow().keys().collect();
    for key in &keys {
        let floor = load.judge.borrow().floor(*key);
        let mut request = Request::new(GetRequest {
            key: key.to_string().into(),
            consistency: Consistency::Bounded.into(),
            age_ms_max: AGE_MAX.as_millis() as u64,
        });
        // Its own replica is meant, and no better one elsewhere.
        request.metadata_mut().insert(HERE_ONLY, tonic::metadata::MetadataValue::from(0_u64));
        let answer = client.get(request).await;
        let mut judge = load.judge.borrow_mut();
        match answer {
            Ok(response) => {
                let entry = response.into_inner().entry;
                let entry = entry.map(|entry| Entry { value: entry.value, revision: Revision(entry.revision) });
                judge.saw(*key, floor, entry.as_ref());
            }
            Err(status) => judge.violated(format!("{key} could not be read at {address}: {}", status.message())),
        }
    }
    Ok(keys.len())
}
