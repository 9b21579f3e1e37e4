//! Messages as they come off the wire, with a bound on the length of their lists.
//!
//! An item of a list takes two bytes of a message if it says nothing, and some hundred once it is decoded: a message of a few
//! MiB could take a GiB. So lists are counted before anything is decoded, by walking the bytes that lead to them. A message
//! with more items than an honest sender ever puts into one is refused.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

use crate::v1;

/// A message that comes off the wire.
pub trait Frame: Message + Default + Send + 'static {
    /// Its lists that could be long.
    const LISTS: &'static [List] = &[];
}

/// A list somewhere in a message.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// The numbers of the fields that lead to it, its own the last. All lists that the path leads to count together.
    path: &'static [u32],
    /// Most items. A message with more is refused.
    items_max: usize,
}

/// Most operations in one message of a client. A stream may have 1,024 outstanding; a few more are answered as overloaded.
pub const OPERATIONS_MAX: usize = 16_384;
/// Most messages in one envelope of a node, which is cut at 1 MiB and counts at least 64 bytes for each.
pub const MESSAGES_MAX: usize = 16_384 + 1;
/// Most entries in one envelope: the smallest that raft makes take some 6 bytes of the 1 MiB that it sends at a time.
pub const ENTRIES_MAX: usize = 262_144;
/// Most files, nodes and shards that one envelope tells of.
pub const DESCRIPTIONS_MAX: usize = 16_384;

impl Frame for v1::BatchRequestMessage {
    const LISTS: &'static [List] = &[List { path: &[2, 1], items_max: OPERATIONS_MAX }];
}

impl Frame for v1::Envelope {
    const LISTS: &'static [List] = &[
        List { path: &[4, 1], items_max: MESSAGES_MAX },
        List { path: &[4, 1, 2, 7], items_max: ENTRIES_MAX },
        List { path: &[4, 1, 5, 3, 7], items_max: ENTRIES_MAX },
        List { path: &[4, 1, 5, 2, 1], items_max: DESCRIPTIONS_MAX },
        List { path: &[4, 1, 11, 2], items_max: DESCRIPTIONS_MAX },
        List { path: &[4, 1, 11, 3], items_max: DESCRIPTIONS_MAX },
        List { path: &[4, 1, 14, 2], items_max: ENTRIES_MAX },
    ];
}

macro_rules! without_long_lists {
    ($($message:ident),* $(,)?) => { $(impl Frame for v1::$message {})* };
}

// Requests that have no lists, and what a node that the caller has chosen answers.
without_long_lists!(
    BatchResponseMessage,
    DeleteRequest,
    GetRequest,
    GetResponse,
    PutRequest,
    StatusRequest,
    StatusResponse,
    TopologyRequest,
    TopologyResponse,
    TransferLeaderRequest,
    TransferLeaderResponse,
    WatchTopologyRequest,
    WriteResponse,
);

/// Decodes a message.
///
/// # Errors
/// If the bytes are none, or a list of it is too long.
pub fn decode<F: Frame>(bytes: Bytes) -> Result<F, Status> {
    // An item takes two bytes at least, so that nearly all messages are too short to hold too many.
    for list in F::LISTS.iter().filter(|list| bytes.len() / 2 > list.items_max) {
        let items = count(&bytes, list.path);
        if items > list.items_max {
            return Err(Status::resource_exhausted(format!(
                "a message with a list of {items} items, of which {} are the most",
                list.items_max
            )));
        }
    }
    F::decode(bytes)
        .map_err(|error| Status::invalid_argument(format!("these bytes are no message of kv's protocol: {error}")))
}

/// How many items the lists at the end of a path have together. Bytes that are no message end the count: decoding ends there
/// too.
fn count(mut bytes: &[u8], path: &[u32]) -> usize {
    let mut items = 0;
    while let Some((field, content)) = next_field(&mut bytes) {
        match (path, content) {
            ([own], Some(_)) if field == u64::from(*own) => items += 1,
            ([first, rest @ ..], Some(content)) if field == u64::from(*first) => items += count(content, rest),
            _ => {}
        }
    }
    items
}

/// Takes the next field off: its number, and its bytes if it has a length.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Option<&'a [u8]>)> {
    let key = varint(bytes)?;
    let mut skip = |length: usize| {
        let (content, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(content)
    };
    let content = match key & 7 {
        0 => {
            varint(bytes)?;
            None
        }
        1 => skip(8).map(|_| None)?,
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (content, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Some(content)
        }
        5 => skip(4).map(|_| None)?,
        // Groups are of another age: no message of ours has one.
        _ => return None,
    };
    Some((key >> 3, content))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The codec of all services: prost's, but for the bound.
#[derive(Clone, Debug)]
pub struct FrameCodec<T, U> {
    messages: PhantomData<(T, U)>,
}

impl<T, U> Default for FrameCodec<T, U> {
    fn default() -> Self {
        Self { messages: PhantomData }
    }
}

impl<T: Message + Send + 'static, U: Frame> Codec for FrameCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = FrameDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        FrameDecoder { message: PhantomData }
    }
}

/// Decodes messages of one type.
#[derive(Clone, Debug)]
pub struct FrameDecoder<U> {
    message: PhantomData<U>,
}

impl<U: Frame> Decoder for FrameDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Not a copy: the buffer is split.
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        decode(bytes).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{batch_request_message, envelope, peer_message};

    fn batch(operations: usize) -> Bytes {
        let batch = v1::BatchRequest { ops: vec![v1::Op::default(); operations] };
        v1::BatchRequestMessage { message: Some(batch_request_message::Message::Batch(batch)) }.encode_to_vec().into()
    }

    fn envelope(messages: Vec<v1::PeerMessage>) -> Bytes {
        v1::Envelope { content: Some(envelope::Content::Batch(v1::PeerBatch { messages })) }.encode_to_vec().into()
    }

    #[test]
    fn lists_are_taken_up_to_their_bounds() {
        assert!(decode::<v1::BatchRequestMessage>(batch(OPERATIONS_MAX)).is_ok());
        let refused = decode::<v1::BatchRequestMessage>(batch(OPERATIONS_MAX + 1)).expect_err("one more than the most");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(decode::<v1::Envelope>(envelope(vec![v1::PeerMessage::default(); MESSAGES_MAX])).is_ok());
        assert!(decode::<v1::Envelope>(envelope(vec![v1::PeerMessage::default(); MESSAGES_MAX + 1])).is_err());
    }

    /// The paths are numbers of fields: each must lead to the list that it is meant for.
    #[test]
    fn every_list_of_an_envelope_is_counted_wherever_it_stands() {
        let raft = |entries| v1::RaftMessage { entries: vec![v1::RaftEntry::default(); entries], ..Default::default() };
        let manifest = v1::Manifest { files: vec![v1::FileDescription::default(); 3], ..Default::default() };
        let offer = v1::SnapshotOffer { manifest: Some(manifest), message: Some(raft(2)), ..Default::default() };
        let map = v1::ShardMap {
            nodes: vec![v1::Node::default(); 4],
            shards: vec![v1::ShardRow::default(); 5],
            ..Default::default()
        };
        let marks = v1::MarkReport { checkpoints: vec![v1::MarkDigest::default(); 8], ..Default::default() };
        let message = |body| v1::PeerMessage { shard: 300, body: Some(body) };
        let bytes = envelope(vec![
            message(peer_message::Body::Raft(raft(6))),
            message(peer_message::Body::SnapshotOffer(offer)),
            message(peer_message::Body::MapTell(map)),
            message(peer_message::Body::Raft(raft(1))),
            message(peer_message::Body::Marks(marks)),
        ]);
        let counted: Vec<usize> = v1::Envelope::LISTS.iter().map(|list| count(&bytes, list.path)).collect();
        assert_eq!(counted, [5, 7, 2, 3, 4, 5, 8]);
        for length in 0..bytes.len() {
            assert!(count(&bytes[..length], &[4, 1]) <= 5, "a message that is cut short ends the count");
        }
    }
}
