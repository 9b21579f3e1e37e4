//! A connection from a peer: greeted, judged, and read.

use std::{sync::Arc, time::Duration};

use kv_core::{
    error::Error,
    identity::{self, Admission, Hello, Identity, Refusal, Standing},
    types::{ClusterId, Incarnation, NodeId},
};
use kv_proto::{
    PROTOCOL,
    v1::{self, envelope::Content, peer_server::Peer},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    convert::{FromPeer, id_from_wire, id_to_wire, message_from_wire},
    shared::Shared,
};

/// How long a caller may take to say hello. Past it the connection is closed.
const HELLO_WAIT: Duration = Duration::from_secs(5);

/// The service that peers call.
pub(crate) struct PeerService {
    pub(crate) shared: Arc<Shared>,
}

/// A caller that was greeted.
#[derive(Clone, Copy)]
struct Caller {
    node: NodeId,
    /// To what of it this node listens.
    admission: Admission,
    /// Whether this node was founded when it judged the greeting.
    judged_founded: bool,
}

#[tonic::async_trait]
impl Peer for PeerService {
    type ExchangeStream = ReceiverStream<Result<v1::Envelope, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::Envelope>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut inbound = request.into_inner();
        let hello = match timeout(HELLO_WAIT, inbound.message()).await {
            Ok(Ok(Some(v1::Envelope { content: Some(Content::Hello(hello)) }))) => hello,
            Ok(Err(status)) => return Err(status),
            Ok(_) => return Err(Status::invalid_argument("a connection between nodes begins with a greeting")),
            Err(_) => return Err(Status::deadline_exceeded("no greeting came")),
        };
        let (answers, outgoing) = mpsc::channel(1);
        let shared = Arc::clone(&self.shared);
        let content = match greet(&shared, &hello) {
            Ok(caller) => {
                shared.contacts.accept(caller.node);
                tokio::spawn(read(Arc::clone(&shared), caller, inbound, answers.clone()));
                Content::Welcome(v1::PeerWelcome {
                    protocol: PROTOCOL,
                    cluster: shared.cluster.get().map(|cluster| id_to_wire(cluster.id.0)).unwrap_or_default(),
                    node: shared.node.0,
                    incarnation: id_to_wire(shared.incarnation().0),
                })
            }
            Err(refusal) => {
                // A link that was cut by request is no news.
                if refusal.reason() != v1::RefusalReason::Unspecified {
                    shared.metrics.peer_refused(refusal.reason().as_str_name());
                    shared.contacts.refuse(hello.node, &refusal.message);
                }
                Content::Refusal(refusal)
            }
        };
        let greeting = Ok(v1::Envelope { content: Some(content) });
        answers.try_send(greeting).map_err(|_| Status::internal("a fresh connection has room for a greeting"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// Whether to listen to the caller, and to what.
fn greet(shared: &Shared, hello: &v1::PeerHello) -> Result<Caller, v1::PeerRefusal> {
    let refuse = |reason: v1::RefusalReason, message: String| Err(v1::PeerRefusal { reason: reason.into(), message });
    let node = NodeId(hello.node);
    if !shared.links.allows(node, shared.node) {
        return refuse(v1::RefusalReason::Unspecified, "the link is cut".to_owned());
    }
    let (cluster, incarnation) = match read_ids(hello) {
        Ok(ids) => ids,
        // Another version may well write ids in another way.
        Err(_) if hello.protocol != PROTOCOL => {
            let refusal = Refusal::Protocol { theirs: hello.protocol };
            return refuse(v1::RefusalReason::Protocol, refusal.to_string());
        }
        Err(error) => return refuse(v1::RefusalReason::Protocol, error.message().to_owned()),
    };
    let own = shared.cluster.get();
    let standing = match own {
        None => Standing::Unfounded(shared.node),
        Some(own) => {
            let identity = Identity { cluster: own.id, node: shared.node, incarnation: shared.incarnation() };
            Standing::Founded { own: identity, record: &own.record }
        }
    };
    let greeting = Hello { protocol: hello.protocol, cluster, node, incarnation };
    match identity::greet(standing, NodeId(hello.to), &greeting) {
        Ok(admission) => Ok(Caller { node, admission, judged_founded: own.is_some() }),
        Err(refusal) => {
            let reason = match refusal {
                Refusal::Protocol { .. } | Refusal::Unfounded => v1::RefusalReason::Protocol,
                Refusal::OtherCluster { .. } => v1::RefusalReason::WrongCluster,
                Refusal::NotAMember { .. } => v1::RefusalReason::NotAMember,
                Refusal::SameNode { .. } | Refusal::OtherNode { .. } => v1::RefusalReason::WrongNode,
                Refusal::Wiped { .. } => v1::RefusalReason::Wiped,
            };
            refuse(reason, refusal.to_string())
        }
    }
}

fn read_ids(hello: &v1::PeerHello) -> Result<(Option<ClusterId>, Incarnation), Error> {
    let cluster = match hello.cluster.is_empty() {
        true => None,
        false => Some(ClusterId(id_from_wire(&hello.cluster, "a cluster id")?)),
    };
    Ok((cluster, Incarnation(id_from_wire(&hello.incarnation, "an incarnation")?)))
}

/// Takes what the peer sends until the connection ends or may not be used any more. `_answers` keeps its other half open.
async fn read(
    shared: Arc<Shared>,
    caller: Caller,
    mut inbound: Streaming<v1::Envelope>,
    _answers: mpsc::Sender<Result<v1::Envelope, Status>>,
) {
    let take = async {
        while let Ok(Some(envelope)) = inbound.message().await {
            let Some(Content::Batch(batch)) = envelope.content else { break };
            let mut messages = Vec::with_capacity(batch.messages.len());
            for message in batch.messages {
                match message_from_wire(message) {
                    Ok(FromPeer::Node(_)) if caller.admission != Admission::Member => {}
                    Ok(message) => messages.push(message),
                    Err(error) => {
                        let reason = "it is none that this version knows";
                        shared.refused_messages.refused(caller.node, reason, &error, &shared.metrics);
                    }
                }
            }
            shared.inbox.push_peer(caller.node, messages).await;
        }
    };
    tokio::select! {
        () = take => {}
        () = shared.links.until(caller.node, shared.node, false) => {}
        // What was judged without a cluster is judged again, even if it was founded before this task began.
        () = shared.founded.cancelled(), if !caller.judged_founded => {}
        () = shared.closing.cancelled() => {}
    }
}
