//! The service `Kv`: streams and single calls.

use std::{pin::Pin, sync::Arc};

use kv_core::ring::position;
use kv_proto::v1::{self, kv_server::Kv};
use tonic::{Request, Response, Status, Streaming};

use super::{
    channels::Channels,
    kv_stream,
    kv_unary::{Call, Reply, Unary},
};
use crate::{shared::Shared, unread::Reader};

/// The service.
pub(super) struct KvService {
    shared: Arc<Shared>,
    channels: Channels,
}

impl KvService {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), channels: Channels::default() }
    }

    async fn call<T>(&self, request: Request<T>, key: &[u8], call: fn(T) -> Call) -> Result<Reply, Status> {
        let key = position(key);
        Unary::new(&self.shared, &self.channels, request.metadata())?.run(key, call(request.into_inner())).await
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
        let key = request.get_ref().key.clone();
        match self.call(request, &key, Call::Get).await? {
            Reply::Get(response) => Ok(Response::new(response)),
            Reply::Write(_) => Err(Status::internal("a get was answered as a write")),
        }
    }

    async fn put(&self, request: Request<v1::PutRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let key = request.get_ref().key.clone();
        self.call(request, &key, Call::Put).await?.into_write()
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let key = request.get_ref().key.clone();
        self.call(request, &key, Call::Delete).await?.into_write()
    }
}
