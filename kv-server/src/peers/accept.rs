//! A connection from a peer: greeted, judged, and read.

use std::{fmt::Display, sync::Arc, time::Duration};

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
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{
    convert::{FromPeer, batch_from_wire, count_of, id_from_wire, id_to_wire},
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
            Ok(Err(status)) if !is_refusal(&status) => return Err(status),
            Ok(other) => {
                self.shared.metrics.peer_refused(v1::RefusalReason::Protocol.as_str_name());
                let nothing = Status::invalid_argument("a connection between nodes begins with a greeting");
                return Err(other.err().unwrap_or(nothing));
            }
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
    let node = NodeId(hello.node);
    if !shared.links.allows(node, shared.node) {
        return Err(refusal(v1::RefusalReason::Unspecified, "the link is cut".to_owned()));
    }
    let own = shared.cluster.get();
    let standing = match own {
        None => Standing::Unfounded(shared.node),
        Some(own) => {
            let identity = Identity { cluster: own.id, node: shared.node, incarnation: shared.incarnation() };
            Standing::Founded { own: identity, record: &own.record }
        }
    };
    Ok(Caller { node, admission: judge(standing, hello)?, judged_founded: own.is_some() })
}

/// Whether to listen to who greets with this, and to what.
pub(crate) fn judge(standing: Standing<'_>, hello: &v1::PeerHello) -> Result<Admission, v1::PeerRefusal> {
    let (cluster, incarnation) = match read_ids(hello) {
        Ok(ids) => ids,
        // Another version may well write ids in another way.
        Err(_) if hello.protocol != PROTOCOL => {
            let other = Refusal::Protocol { theirs: hello.protocol };
            return Err(refusal(v1::RefusalReason::Protocol, other.to_string()));
        }
        Err(error) => return Err(refusal(v1::RefusalReason::Protocol, error.message().to_owned())),
    };
    let greeting = Hello { protocol: hello.protocol, cluster, node: NodeId(hello.node), incarnation };
    identity::greet(standing, NodeId(hello.to), &greeting).map_err(|refused| {
        let reason = match refused {
            Refusal::Protocol { .. } | Refusal::Unfounded => v1::RefusalReason::Protocol,
            Refusal::OtherCluster { .. } => v1::RefusalReason::WrongCluster,
            Refusal::NotAMember { .. } => v1::RefusalReason::NotAMember,
            Refusal::SameNode { .. } | Refusal::OtherNode { .. } => v1::RefusalReason::WrongNode,
            Refusal::Wiped { .. } => v1::RefusalReason::Wiped,
        };
        refusal(reason, refused.to_string())
    })
}

fn refusal(reason: v1::RefusalReason, message: String) -> v1::PeerRefusal {
    v1::PeerRefusal { reason: reason.into(), message }
}

/// Whether a stream ended for what it said, rather than with its connection.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::ResourceExhausted | Code::OutOfRange)
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
    let refuse = |reason: &'static str, what: &dyn Display| {
        shared.refused_messages.refused(caller.node, reason, what, &shared.metrics);
    };
    let take = async {
        loop {
            let envelope = match inbound.message().await {
                Ok(Some(envelope)) => envelope,
                Ok(None) => break,
                Err(status) => {
                    if is_refusal(&status) {
                        refuse("its bytes are no message", &status.message());
                    }
                    break;
                }
            };
            let Some(Content::Batch(batch)) = envelope.content else {
                refuse("it is no batch, and those are all that follows a greeting", &"the connection is closed");
                break;
            };
            let mut messages = Vec::with_capacity(count_of(&batch));
            batch_from_wire(batch, |message| match message {
                Ok(FromPeer::Node(_)) if caller.admission != Admission::Member => {}
                Ok(message) => messages.push(message),
                Err(error) => refuse("it is none that this version knows", &error),
            });
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
