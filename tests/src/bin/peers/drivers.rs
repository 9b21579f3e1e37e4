//! How each system is asked: its own protocol, by the client that its users have.

use bytes::Bytes;
use kv_client::load::{Kv, Target};
use redis::aio::MultiplexedConnection;
use tonic::transport::Channel;

use crate::etcd::wire::{PutRequest, RangeRequest, kv_client::KvClient};

/// A way to ask a system: one connection, or one of its own kind. Several callers may share it.
#[derive(Clone)]
pub(crate) enum Driver {
    /// By kv-client: one connection a node.
    Kv(Kv),
    /// By single gRPC calls: a connection to one node.
    KvUnary(kv_proto::v1::kv_client::KvClient<Channel>),
    /// By gRPC: a connection to one member.
    Etcd(KvClient<Channel>),
    /// By the redis crate: a connection to the master, which joins what callers ask at once.
    Redis {
        /// The connection.
        connection: MultiplexedConnection,
        /// Puts wait until so many replicas have the write: WAIT, in the same message.
        replicas: u32,
    },
}

impl Target for Driver {
    async fn put(&self, key: &str, value: &Bytes) -> Result<(), String> {
        match self {
            Self::Kv(kv) => kv.put(key, value).await,
            Self::KvUnary(client) => {
                let key = Bytes::copy_from_slice(key.as_bytes());
                let request = kv_proto::v1::PutRequest { key, value: value.clone(), ..Default::default() };
                let answer = client.clone().put(request).await;
                answer.map(|_| ()).map_err(|status| format!("{:?}", status.code()))
            }
            Self::Etcd(client) => {
                let request = PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), value: value.clone() };
                let answer = client.clone().put(request).await;
                answer.map(|_| ()).map_err(|status| format!("{:?}", status.code()))
            }
            Self::Redis { connection, replicas } => {
                let put = redis_put(connection.clone(), *replicas, key, value).await;
                put.map_err(|error| error.category().to_owned())
            }
        }
    }

    async fn get(&self, key: &str) -> Result<bool, String> {
        match self {
            Self::Kv(kv) => kv.get(key).await,
            Self::KvUnary(client) => {
                let key = Bytes::copy_from_slice(key.as_bytes());
                let request = kv_proto::v1::GetRequest { key, ..Default::default() };
                let answer = client.clone().get(request).await.map_err(|status| format!("{:?}", status.code()))?;
                Ok(answer.into_inner().entry.is_some())
            }
            Self::Etcd(client) => {
                let request = RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), serializable: false };
                let answer = client.clone().range(request).await.map_err(|status| format!("{:?}", status.code()))?;
                Ok(!answer.into_inner().kvs.is_empty())
            }
            Self::Redis { connection, .. } => {
                let value: Result<Option<Vec<u8>>, _> =
                    redis::cmd("GET").arg(key).query_async(&mut connection.clone()).await;
                value.map(|value| value.is_some()).map_err(|error| error.category().to_owned())
            }
        }
    }
}

/// Milliseconds that a put waits for replicas.
const WAIT_MS: u32 = 5_000;

async fn redis_put(
    mut connection: MultiplexedConnection,
    replicas: u32,
    key: &str,
    value: &Bytes,
) -> Result<(), redis::RedisError> {
    if replicas == 0 {
        return redis::cmd("SET").arg(key).arg(value.as_ref()).query_async(&mut connection).await;
    }
    let mut pipe = redis::pipe();
    pipe.cmd("SET").arg(key).arg(value.as_ref()).ignore().cmd("WAIT").arg(replicas).arg(WAIT_MS);
    let (reached,): (u32,) = pipe.query_async(&mut connection).await?;
    match reached >= replicas {
        true => Ok(()),
        false => Err(redis::RedisError::from((redis::ErrorKind::Io, "too few replicas in time"))),
    }
}
