//! An [`ErrorDetail`] inside the `google.rpc.Status` that `grpc-status-details-bin` carries by convention, so that every
//! language's own helpers unpack it. The two messages are written out here instead of taking in a whole crate of protos.

use bytes::Bytes;
use prost::Message;

use crate::v1::ErrorDetail;

/// A failed call, as `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// The gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What happened, for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// What else there is to say.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// A message with its type, as `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// The type's name behind a slash.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// The bytes of `grpc-status-details-bin` for a call that failed with this gRPC code.
#[must_use]
pub fn to_details(code: i32, detail: &ErrorDetail) -> Bytes {
    let any = Any { type_url: TYPE_URL.to_owned(), value: detail.encode_to_vec().into() };
    RpcStatus { code, message: detail.message.clone(), details: vec![any] }.encode_to_vec().into()
}

/// The detail in the bytes of `grpc-status-details-bin`, if one is there.
#[must_use]
pub fn from_details(bytes: &[u8]) -> Option<ErrorDetail> {
    let status = RpcStatus::decode(bytes).ok()?;
    let any = status.details.into_iter().find(|any| any.type_url == TYPE_URL)?;
    ErrorDetail::decode(any.value).ok()
}

const TYPE_URL: &str = "type.googleapis.com/kv.v1.ErrorDetail";
