//! Any client may ask any node: unary calls are forwarded to the one that leads.

use kv_proto::v1::{DeleteRequest, ErrorKind, Outcome, put_request::Condition};
use tonic::Code;

use crate::{
    raw,
    support::{address, cluster, keys},
};

#[tokio::test]
async fn every_node_writes_and_reads_keys_of_every_shard() {
    let cluster = cluster(3).await;
    for writer in 1..=3 {
        let mut writes_at = raw::unary(&address(&cluster, writer)).await;
        for key in keys(24) {
            let value = format!("{key} by {writer}");
            let written = writes_at.put(raw::put(key.clone(), value.clone())).await.unwrap().into_inner();
            assert!(written.revision > Some(0));
        }
        for reader in 1..=3 {
            let mut reads_at = raw::unary(&address(&cluster, reader)).await;
            for key in keys(24) {
                let entry = reads_at.get(raw::get(key.clone())).await.unwrap().into_inner().entry.unwrap();
                assert_eq!(entry.value, format!("{key} by {writer}"), "written at {writer}, read at {reader}");
            }
        }
    }
}

#[tokio::test]
async fn refusals_are_the_same_at_every_node() {
    let cluster = cluster(3).await;
    let mut first = raw::unary(&address(&cluster, 1)).await;
    let revision = first.put(raw::put("lock", "me")).await.unwrap().into_inner().revision;
    for node in 1..=3 {
        let mut client = raw::unary(&address(&cluster, node)).await;
        let mut again = raw::put("lock", "you");
        again.condition = Some(Condition::IfAbsent(true));
        let status = client.put(again).await.unwrap_err();
        let detail = raw::detail(&status);
        assert_eq!(
            (status.code(), detail.kind(), detail.outcome()),
            (Code::FailedPrecondition, ErrorKind::Conflict, Outcome::NotApplied)
        );
        assert_eq!(detail.current, revision);
        let status = client.delete(DeleteRequest::default()).await.unwrap_err();
        assert_eq!((status.code(), raw::detail(&status).kind()), (Code::InvalidArgument, ErrorKind::Invalid));
    }
}
