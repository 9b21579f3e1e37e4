//! The service `Kv`: streams and single calls.

use std::{pin::Pin, sync::Arc};

use kv_client::forward::Forwarder;
use kv_core::ring::position;
use kv_proto::v1::{self, kv_server::Kv, op::Operation, result::Result as Answered};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{kv_stream, kv_unary::Unary};
use crate::{shared::Shared, unread::Reader};

/// The service.
pub(super) struct KvService {
    shared: Arc<Shared>,
    others: Forwarder,
}

impl KvService {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), others: Forwarder::default() }
    }

    async fn call(&self, metadata: &MetadataMap, key: &[u8], call: Operation) -> Result<Answered, Status> {
        Unary::new(&self.shared, &self.others, metadata)?.run(position(key), call).await
    }

    async fn write(
        &self,
        metadata: &MetadataMap,
        key: &[u8],
        call: Operation,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        match self.call(metadata, key, call).await? {
            Answered::Write(response) => Ok(Response::new(response)),
            _ => Err(Status::internal("a write was not answered as one")),
        }
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    type BatchStream = Pin<Box<dyn futures_util::Stream<Item = Result<v1::BatchResponseMessage, Status>> + Send>>;

    async fn batch(
        &self,
        request: Request<Streaming<v1::BatchRequestMessage>>,
    ) -> Result<Response<Self::BatchStream>, Status> {
        let connection = request.extensions().get::<Arc<Reader>>().cloned();
        // Every connection of this port has one: see `net.rs`.
        let connection = connection.ok_or_else(|| Status::internal("the connection has no account"))?;
        let answers = kv_stream::open(&self.shared, &connection, request.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let (metadata, _, get) = request.into_parts();
        let key = get.key.clone();
        match self.call(&metadata, &key, Operation::Get(get)).await? {
            Answered::Get(response) => Ok(Response::new(response)),
            _ => Err(Status::internal("a get was not answered as one")),
        }
    }

    async fn put(&self, request: Request<v1::PutRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let (metadata, _, put) = request.into_parts();
        let key = put.key.clone();
        self.write(&metadata, &key, Operation::Put(put)).await
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let (metadata, _, delete) = request.into_parts();
        let key = delete.key.clone();
        self.write(&metadata, &key, Operation::Delete(delete)).await
    }
}
