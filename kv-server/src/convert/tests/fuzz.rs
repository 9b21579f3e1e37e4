//! Frames of peers and of clients that nobody wrote.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::LazyLock,
};

use bytes::Bytes;
use fastrand::Rng;
use kv_core::{
    error::Error,
    founding::{FoundingRecord, Member},
    identity::{Admission, Identity, Standing},
    types::{Durability, Incarnation, NodeId},
};
use kv_proto::{
    PROTOCOL, frame,
    v1::{self, batch_request_message::Message, envelope::Content, op},
};
use kv_tests::fuzz::Target;
use prost::Message as _;
use tonic::Status;

use super::{
    super::{
        FromPeer, batch_from_wire, id_to_wire, message_to_wire, operation_from_wire,
        request::{delete_from_wire, get_from_wire, put_from_wire},
    },
    peers,
};
use crate::peers::judge;

const SPARE_BYTES: u64 = 64 * 1024;
/// A message takes at least 2 bytes of a frame and some 200 in memory, three times that while the list that it is on grows. It is the
/// generated code that makes values of them, so the lists are counted before: of one frame never more than 16,385 messages
/// and 262,144 entries are made, whatever its bytes say.
const PEER_TIMES: u64 = 320;
/// An operation takes at least 2 bytes of a frame and some 300 in memory, three times that while the list that it is on grows. Here,
/// too, they are counted before: never more than 16,384 are made, which is some 16 MiB.
const REQUEST_TIMES: u64 = 480;

/// Runs a decoder, which may hold at most so many times its input's bytes at once, and 64 KiB.
fn bounded<R>(times: u64, input_bytes: usize, decode: impl FnOnce() -> R) -> R {
    let mut result = None;
    let info = allocation_counter::measure(|| result = Some(catch_unwind(AssertUnwindSafe(decode))));
    let result = result.expect("it was just set").unwrap_or_else(|panic| resume_unwind(panic));
    let most = times * input_bytes as u64 + SPARE_BYTES;
    assert!(info.bytes_max <= most, "{} bytes were held for {input_bytes} bytes of input", info.bytes_max);
    result
}

fn envelope(messages: Vec<v1::PeerMessage>) -> Vec<u8> {
    v1::Envelope { content: Some(Content::Batch(v1::PeerBatch { messages })) }.encode_to_vec()
}

#[test]
fn a_peers_frame() {
    let mut random = Rng::with_seed(7);
    let mut seeds: Vec<Vec<u8>> = (0..3 * peers::KINDS)
        .map(|kind| envelope(vec![message_to_wire(peers::message(kind % peers::KINDS, &mut random))]))
        .collect();
    let append = v1::RaftMessage { entries: vec![v1::RaftEntry::default(); 4_000], ..Default::default() };
    let raft = Some(v1::peer_message::Body::Raft(append));
    seeds.push(envelope(vec![v1::PeerMessage { shard: 1, body: raft }]));
    seeds.push(envelope(vec![v1::PeerMessage::default(); 4_000]));
    for answers in [false, true] {
        let heartbeats: Vec<_> = (0..50).map(|_| peers::heartbeat(answers, &mut random)).collect();
        seeds.push(envelope(vec![peers::gathered(&heartbeats)]));
    }
    for hello in [greeting(), v1::PeerHello { cluster: Bytes::new(), ..greeting() }] {
        seeds.push(v1::Envelope { content: Some(Content::Hello(hello)) }.encode_to_vec());
    }
    let target = Target { name: "peer", runs: 40_000, bytes_max: 12 * 1024, seeds };
    target.run(|input| {
        let bytes = Bytes::copy_from_slice(input);
        let said = bounded(PEER_TIMES, input.len(), || {
            let content = match frame::decode::<v1::Envelope>(bytes) {
                Ok(envelope) => envelope.content,
                Err(status) => return Err(undecoded(&status)),
            };
            let batch = match content {
                Some(Content::Batch(batch)) => batch,
                Some(Content::Hello(hello)) => return Err(greeted(&hello)),
                _ => return Err("no batch".to_owned()),
            };
            let mut messages = Vec::new();
            batch_from_wire(batch, |message| messages.push(message));
            Ok(messages.into_iter().collect::<Result<Vec<_>, Error>>())
        });
        let messages = match said {
            Ok(Ok(messages)) => messages,
            Ok(Err(error)) => return error.message().to_owned(),
            Err(what) => return what,
        };
        let kinds: Vec<_> = messages
            .into_iter()
            .take(3)
            .map(|message| match message {
                FromPeer::Node(message) => {
                    let again = peers::read(message_to_wire(message.clone()));
                    assert!(matches!(again, Ok(FromPeer::Node(again)) if again == message));
                    format!("{:?}", message.lane())
                }
                FromPeer::Founding(_) => "founding".to_owned(),
            })
            .collect();
        kinds.join(", ")
    });
}

/// Who greets is listened to only as the member that it is, of this cluster and with its own disk; and everybody else is told
/// a reason that is counted.
fn greeted(hello: &v1::PeerHello) -> String {
    let (own, record) = &*FOUNDED;
    match judge(Standing::Founded { own: *own, record }, hello) {
        Ok(Admission::Member) => {
            let same = v1::PeerHello { kind: hello.kind, ..greeting() };
            assert_eq!(*hello, same, "a stranger is taken for node 2");
            "a member".to_owned()
        }
        Ok(Admission::FoundingOnly) => {
            assert!(hello.cluster.is_empty());
            "one that is not founded".to_owned()
        }
        Err(refusal) => {
            assert!(refusal.reason() != v1::RefusalReason::Unspecified && !refusal.message.is_empty());
            refusal.reason().as_str_name().to_owned()
        }
    }
}

/// Node 1 of a cluster of two.
static FOUNDED: LazyLock<(Identity, FoundingRecord)> = LazyLock::new(|| {
    let member = |node| Member {
        node: NodeId(node),
        incarnation: Incarnation(u128::from(node) << 64 | 7),
        peer_address: format!("n{node}:1"),
        zone: String::new(),
        weight: 1,
    };
    let members: Vec<_> = (1..=2).map(member).collect();
    let incarnation = members[0].incarnation;
    let record = FoundingRecord { members, shards: 1, replication: 2, durability: Durability::Sync };
    (Identity { cluster: record.cluster_id(), node: NodeId(1), incarnation }, record)
});

/// What node 2 says to node 1.
fn greeting() -> v1::PeerHello {
    let (own, record) = &*FOUNDED;
    v1::PeerHello {
        protocol: PROTOCOL,
        cluster: id_to_wire(own.cluster.0),
        node: 2,
        incarnation: id_to_wire(record.members[1].incarnation.0),
        kind: v1::ConnectionKind::Main.into(),
        to: 1,
    }
}

/// The place of an error is no kind of its own.
fn undecoded(status: &Status) -> String {
    status.message().split(':').next().unwrap_or_default().to_owned()
}

#[test]
fn a_frame_of_nothing_but_small_items_costs_no_memory() {
    for (tag, decodes) in [
        (0x22, (|bytes| frame::decode::<v1::Envelope>(bytes).is_ok()) as fn(Bytes) -> bool),
        (0x12, |bytes| frame::decode::<v1::BatchRequestMessage>(bytes).is_ok()),
    ] {
        let items = [0x0a, 0].repeat(1_000_000);
        let mut bytes = vec![tag];
        prost::encoding::encode_varint(items.len() as u64, &mut bytes);
        bytes.extend_from_slice(&items);
        let bytes = Bytes::from(bytes);
        assert!(!bounded(0, bytes.len(), || decodes(bytes.clone())));
    }
}

/// A stream's message, or with another first byte a unary call's.
#[test]
fn a_clients_request() {
    let stamp = v1::SessionStamp { session: 1, sequence: 2, floor: 1 };
    let put = v1::PutRequest { key: "k".into(), value: "v".into(), session: Some(stamp), ..Default::default() };
    let delete = v1::DeleteRequest { key: "k".into(), durability: 2, ..Default::default() };
    let get = v1::GetRequest { key: "k".into(), consistency: 2, age_ms_max: 50 };
    let wait = v1::WaitDurableRequest { token: Some(v1::Token { shard: 1, term: 2, index: 3 }) };
    let operations = [
        op::Operation::Put(put.clone()),
        op::Operation::Delete(delete.clone()),
        op::Operation::Get(get.clone()),
        op::Operation::WaitDurable(wait),
        op::Operation::OpenSession(v1::OpenSessionRequest::default()),
    ];
    let op = |operation| v1::Op { id: 1, shard: 2, epoch: 1, deadline_ms: 9, operation: Some(operation) };
    let batch = |ops| {
        let message = v1::BatchRequestMessage { message: Some(Message::Batch(v1::BatchRequest { ops })) };
        [vec![0], message.encode_to_vec()].concat()
    };
    let mut seeds: Vec<Vec<u8>> = operations.iter().map(|operation| batch(vec![op(operation.clone())])).collect();
    seeds.push(batch(operations.map(op).to_vec()));
    seeds.push(batch(vec![v1::Op::default(); 1_000]));
    seeds.push([vec![1], put.encode_to_vec()].concat());
    seeds.push([vec![2], delete.encode_to_vec()].concat());
    seeds.push([vec![3], get.encode_to_vec()].concat());
    let target = Target { name: "request", runs: 80_000, bytes_max: 4 * 1024, seeds };
    target.run(|input| {
        let Some((what, bytes)) = input.split_first() else { return "nothing".to_owned() };
        let bytes = Bytes::copy_from_slice(bytes);
        let read = bounded(REQUEST_TIMES, bytes.len(), || match what % 4 {
            0 => frame::decode::<v1::BatchRequestMessage>(bytes).map(|message| match message.message {
                Some(Message::Batch(batch)) => {
                    batch.ops.into_iter().map(|op| operation_from_wire(op.operation)).collect::<Result<Vec<_>, _>>()
                }
                _ => Ok(Vec::new()),
            }),
            1 => frame::decode::<v1::PutRequest>(bytes).map(|put| put_from_wire(put).map(|put| vec![put])),
            2 => frame::decode::<v1::DeleteRequest>(bytes)
                .map(|delete| delete_from_wire(delete).map(|delete| vec![delete])),
            _ => frame::decode::<v1::GetRequest>(bytes).map(|get| get_from_wire(get).map(|get| vec![get])),
        });
        match read {
            Ok(Ok(operations)) => {
                let names = operations.iter().take(3).map(|operation| format!("{operation:?}"));
                names.map(|name| name.split([' ', '{']).next().unwrap_or_default().to_owned()).collect()
            }
            Ok(Err(error)) => error.message().to_owned(),
            Err(status) => undecoded(&status),
        }
    });
}
