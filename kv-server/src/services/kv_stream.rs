//! A client's stream: greeted, then operations in and results out, in any order.
//!
//! All operations of one message are admitted together; all results of one turn leave together. What can't be admitted is
//! answered at once, so that every operation has exactly one result as long as the stream lives.

use std::{sync::Arc, time::Duration};

use kv_core::{
    error::{Error, ErrorKind},
    io::Request,
    types::{Epoch, RequestId, ShardId},
};
use kv_proto::{
    PROTOCOL,
    v1::{self, batch_request_message::Message},
};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::{
    clock,
    convert::{error_to_status, id_from_wire, id_to_wire, map_to_wire, operation_from_wire},
    inbox::overloaded,
    shared::Shared,
    sink::{Asker, MESSAGE_BYTES_MAX, Messages, OUTSTANDING_MAX, Sink},
    unread,
};

/// How long a client may take to say hello. Past it the stream is closed.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// The longest an operation may wait, whatever its deadline says.
pub(super) const DEADLINE_MS_MAX: u64 = 60_000;

/// Begins a stream of a connection: a task reads it until it ends.
pub(super) fn open(
    shared: &Arc<Shared>,
    connection: &Arc<unread::Reader>,
    inbound: Streaming<v1::BatchRequestMessage>,
) -> Messages {
    let (sink, messages) = Sink::new(connection);
    tokio::spawn(Reader { shared: Arc::clone(shared), sink }.run(inbound));
    messages
}

struct Reader {
    shared: Arc<Shared>,
    sink: Arc<Sink>,
}

impl Reader {
    async fn run(self, mut inbound: Streaming<v1::BatchRequestMessage>) {
        let closing = self.shared.closing.clone();
        let read = async {
            if let Err(status) = self.greet(&mut inbound).await {
                return self.sink.close(Some(status));
            }
            loop {
                match inbound.message().await {
                    Ok(Some(v1::BatchRequestMessage { message: Some(Message::Batch(batch)) })) => self.take(batch),
                    Ok(Some(_)) => {
                        return self.sink.close(Some(Status::invalid_argument("after hello come batches only")));
                    }
                    // The client has no more to ask; what it asked is answered, then the last asker's sink goes.
                    Ok(None) => return,
                    // The client is gone, or sent what is no message of this protocol.
                    Err(status) => return self.sink.close(Some(status)),
                }
                if self.sink.is_closed() {
                    return;
                }
            }
        };
        tokio::select! {
            () = read => {}
            () = closing.cancelled() => {}
        }
    }

    async fn greet(&self, inbound: &mut Streaming<v1::BatchRequestMessage>) -> Result<(), Status> {
        let hello = match timeout(HELLO_WAIT, inbound.message()).await {
            Ok(Ok(Some(v1::BatchRequestMessage { message: Some(Message::Hello(hello)) }))) => hello,
            Ok(Err(status)) => return Err(status),
            Ok(_) => return Err(Status::invalid_argument("the first message of a stream is hello")),
            Err(_) => return Err(Status::deadline_exceeded("no hello came")),
        };
        if hello.protocol != PROTOCOL {
            return Err(Status::failed_precondition(format!(
                "the client speaks version {} of the protocol and this node {PROTOCOL}; run versions that go together",
                hello.protocol
            )));
        }
        let map = self.shared.known_map().map_err(|error| error_to_status(&error))?;
        let cluster = self.shared.cluster_id();
        if !hello.cluster.is_empty() {
            let theirs = id_from_wire(&hello.cluster, "a cluster id").map_err(|error| error_to_status(&error))?;
            if theirs != cluster.0 {
                return Err(error_to_status(&Error::not_applied(
                    ErrorKind::WrongCluster,
                    format!("this node belongs to cluster {cluster}, not {theirs:032x}; check the addresses"),
                )));
            }
        }
        // Added before the map is read for the welcome: a change in between is then sent twice, never missed.
        self.shared.sinks.add(&self.sink);
        self.sink.welcome(v1::Welcome {
            cluster: id_to_wire(cluster.0),
            node: self.shared.node.0,
            limits: Some(v1::Limits {
                outstanding_max: OUTSTANDING_MAX as u32,
                message_bytes_max: MESSAGE_BYTES_MAX as u32,
            }),
            map: (map.map().version.0 > hello.map_version || hello.map_version == 0).then(|| map_to_wire(map.map())),
        });
        Ok(())
    }

    /// Admits the operations of a message.
    fn take(&self, batch: v1::BatchRequest) {
        let now = clock::now();
        let mut asked = Vec::with_capacity(batch.ops.len());
        let mut refused = false;
        for op in batch.ops {
            let id = op.id;
            let admitted = if self.sink.begin() {
                operation_from_wire(op.operation)
            } else {
                Err(Error::overloaded("the stream has 1,024 operations outstanding; wait for answers", 10))
            };
            match admitted {
                Ok(operation) => {
                    let deadline_ms = match u64::from(op.deadline_ms) {
                        0 => DEADLINE_MS_MAX,
                        ms => ms.min(DEADLINE_MS_MAX),
                    };
                    let request = Request {
                        id: RequestId(0),
                        shard: ShardId(op.shard),
                        epoch: (op.epoch != 0).then_some(Epoch(op.epoch)),
                        deadline: now.plus_micros(deadline_ms * 1_000),
                        operation,
                    };
                    asked.push((Asker::Stream(Arc::clone(&self.sink), id), request));
                }
                Err(error) => {
                    refused = true;
                    self.refuse(id, error);
                }
            }
        }
        if let Err(asked) = self.shared.inbox.ask(asked) {
            refused = true;
            for (asker, _) in asked {
                if let Asker::Stream(_, id) = asker {
                    self.refuse(id, overloaded());
                }
            }
        }
        if refused {
            self.sink.flush();
        }
    }

    fn refuse(&self, id: u64, error: Error) {
        self.shared.metrics.refused(error.kind());
        self.sink.answer(id, Err(error));
    }
}
