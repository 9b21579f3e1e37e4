//! What nodes say to each other on the wire.

use kv_core::{
    checkpoint::job::{FileDescription, MANIFEST_FILES_MAX, Manifest},
    error::Error,
    founding::FoundingMessage,
    message::{
        CHUNK_BYTES_MAX, ClaimedLeadership, LEADERSHIPS_MAX, LeadershipRound, MARKS_TOLD_MAX, MarkDigest, MarkReport,
        PeerMessage,
    },
    types::{Digest, LogIndex, MapVersion, ReplicaId, ShardId, Term},
};
use kv_proto::{
    frame::MESSAGES_MAX,
    v1::{self, peer_message::Body},
};

use super::{
    cluster::{map_from_wire, map_to_wire, node_from_wire, node_to_wire},
    heartbeats::{HeartbeatRow, heartbeats_from_wire},
    id_from_wire, id_to_wire,
    raft::{raft_from_wire, raft_to_wire},
};

/// Longest name of a checkpoint's file; a longer one is refused.
const NAME_BYTES_MAX: usize = 255;

/// A message from a peer: for the node, or about founding.
#[derive(Debug)]
pub(crate) enum FromPeer {
    /// For the node.
    Node(PeerMessage),
    /// About founding.
    Founding(FoundingMessage),
}

/// A message as it travels.
pub(crate) fn message_to_wire(message: PeerMessage) -> v1::PeerMessage {
    let shard = message.shard().map_or(0, |shard| shard.0);
    let body = match message {
        PeerMessage::Raft { message, .. } => Body::Raft(raft_to_wire(message)),
        PeerMessage::ReadProbe { probe, .. } => Body::ReadProbe(v1::ReadProbe { number: probe }),
        PeerMessage::ReadProbeAnswer { probe, index, .. } => {
            Body::ReadProbeAnswer(v1::ReadProbeAnswer { number: probe, index: index.map(|index| index.0) })
        }
        PeerMessage::LeadershipAsk { round, leaderships } => Body::LeadershipAsk(v1::LeadershipAsk {
            run: round.run,
            number: round.number,
            shards: leaderships.iter().map(|claimed| claimed.shard.0).collect(),
            replicas: leaderships.iter().map(|claimed| claimed.replica.0).collect(),
            terms: leaderships.iter().map(|claimed| claimed.term.0).collect(),
        }),
        PeerMessage::LeadershipAnswer { round, shards } => Body::LeadershipAnswer(v1::LeadershipAnswer {
            run: round.run,
            number: round.number,
            shards: shards.iter().map(|shard| shard.0).collect(),
        }),
        PeerMessage::StateAsk { at_least, at_most, .. } => {
            Body::StateAsk(v1::StateAsk { at_least: at_least.0, at_most: at_most.0 })
        }
        PeerMessage::SnapshotOffer { stream, manifest, message, .. } => Body::SnapshotOffer(v1::SnapshotOffer {
            stream,
            manifest: Some(manifest_to_wire(manifest)),
            message: message.map(|message| raft_to_wire(*message)),
        }),
        PeerMessage::SnapshotWant { stream, file, offset, .. } => {
            Body::SnapshotWant(v1::SnapshotWant { stream, file, offset })
        }
        PeerMessage::SnapshotChunk { stream, file, offset, bytes, .. } => {
            Body::SnapshotChunk(v1::SnapshotChunk { stream, file, offset, data: bytes })
        }
        PeerMessage::SnapshotEnd { stream, complete, .. } => Body::SnapshotEnd(v1::SnapshotEnd { stream, complete }),
        PeerMessage::Marks { report, .. } => Body::Marks(marks_to_wire(report)),
        PeerMessage::MapAsk { have } => Body::MapAsk(v1::MapAsk { map_version: have.0 }),
        PeerMessage::MapTell(map) => Body::MapTell(map_to_wire(&map)),
        PeerMessage::DescribeNode(node) => Body::DescribeNode(node_to_wire(&node)),
    };
    v1::PeerMessage { shard, body: Some(body) }
}

/// A message about founding as it travels.
pub(crate) fn founding_to_wire(message: &FoundingMessage) -> v1::PeerMessage {
    v1::PeerMessage { shard: 0, body: Some(Body::Founding(message.encode())) }
}

/// How many messages an envelope holds, each heartbeat counted, if it is an honest one.
pub(crate) fn count_of(batch: &v1::PeerBatch) -> usize {
    let count: usize = batch.messages.iter().map(|message| HeartbeatRow::count(message).unwrap_or(1)).sum();
    count.min(MESSAGES_MAX)
}

/// Reads what an envelope holds, in its order. Heartbeats that share a message come out one by one; of them, too, an envelope holds at
/// most [`MESSAGES_MAX`].
pub(crate) fn batch_from_wire(batch: v1::PeerBatch, mut take: impl FnMut(Result<FromPeer, Error>)) {
    let mut rows_left = MESSAGES_MAX;
    for message in batch.messages {
        match message.body {
            Some(Body::Heartbeats(rows)) => match heartbeats_from_wire(rows, rows_left) {
                Ok(heartbeats) => {
                    rows_left -= heartbeats.len();
                    heartbeats.for_each(|heartbeat| take(Ok(FromPeer::Node(heartbeat))));
                }
                Err(error) => take(Err(error)),
            },
            body => take(message_from_wire(v1::PeerMessage { shard: message.shard, body })),
        }
    }
}

/// Reads a message that is one.
fn message_from_wire(message: v1::PeerMessage) -> Result<FromPeer, Error> {
    let shard = ShardId(message.shard);
    let message = match message.body.ok_or_else(|| Error::invalid("a message that says nothing this version knows"))? {
        Body::Raft(message) => PeerMessage::Raft { shard, message: raft_from_wire(message)? },
        Body::ReadProbe(probe) => PeerMessage::ReadProbe { shard, probe: probe.number },
        Body::ReadProbeAnswer(answer) => {
            PeerMessage::ReadProbeAnswer { shard, probe: answer.number, index: answer.index.map(LogIndex) }
        }
        Body::LeadershipAsk(ask) => leadership_ask_from_wire(ask)?,
        Body::LeadershipAnswer(answer) => {
            if answer.shards.len() > LEADERSHIPS_MAX {
                return Err(Error::invalid(format!("an answer about {} shards", answer.shards.len())));
            }
            let round = LeadershipRound { run: answer.run, number: answer.number };
            PeerMessage::LeadershipAnswer { round, shards: answer.shards.into_iter().map(ShardId).collect() }
        }
        Body::StateAsk(ask) => {
            PeerMessage::StateAsk { shard, at_least: LogIndex(ask.at_least), at_most: LogIndex(ask.at_most) }
        }
        Body::SnapshotOffer(offer) => PeerMessage::SnapshotOffer {
            shard,
            stream: offer.stream,
            manifest: manifest_from_wire(
                offer.manifest.ok_or_else(|| Error::invalid("an offer of a snapshot without a manifest"))?,
            )?,
            message: offer.message.map(|message| raft_from_wire(message).map(Box::new)).transpose()?,
        },
        Body::SnapshotWant(want) => {
            PeerMessage::SnapshotWant { shard, stream: want.stream, file: want.file, offset: want.offset }
        }
        Body::SnapshotChunk(chunk) => {
            if chunk.data.len() > CHUNK_BYTES_MAX {
                return Err(Error::invalid(format!("a piece of {} bytes of a file", chunk.data.len())));
            }
            PeerMessage::SnapshotChunk {
                shard,
                stream: chunk.stream,
                file: chunk.file,
                offset: chunk.offset,
                bytes: chunk.data,
            }
        }
        Body::SnapshotEnd(end) => PeerMessage::SnapshotEnd { shard, stream: end.stream, complete: end.complete },
        Body::Marks(report) => PeerMessage::Marks { shard, report: marks_from_wire(report)? },
        Body::MapAsk(ask) => PeerMessage::MapAsk { have: MapVersion(ask.map_version) },
        Body::MapTell(map) => PeerMessage::MapTell(map_from_wire(map)?),
        Body::DescribeNode(node) => PeerMessage::DescribeNode(node_from_wire(node)?),
        Body::Heartbeats(_) => return Err(Error::invalid("heartbeats of several groups are several messages")),
        Body::Founding(bytes) => {
            let message = FoundingMessage::decode(bytes);
            return message.map(FromPeer::Founding).map_err(|error| Error::invalid(error.to_string()));
        }
    };
    Ok(FromPeer::Node(message))
}

fn leadership_ask_from_wire(ask: v1::LeadershipAsk) -> Result<PeerMessage, Error> {
    let v1::LeadershipAsk { run, number, shards, replicas, terms } = ask;
    if shards.len() > LEADERSHIPS_MAX {
        return Err(Error::invalid(format!("a question about {} shards", shards.len())));
    }
    if shards.len() != replicas.len() || shards.len() != terms.len() {
        return Err(Error::invalid("a question about shards whose columns differ in length"));
    }
    let leaderships = shards.into_iter().zip(replicas).zip(terms).map(|((shard, replica), term)| ClaimedLeadership {
        shard: ShardId(shard),
        replica: ReplicaId(replica),
        term: Term(term),
    });
    Ok(PeerMessage::LeadershipAsk { round: LeadershipRound { run, number }, leaderships: leaderships.collect() })
}

fn marks_to_wire(report: MarkReport) -> v1::MarkReport {
    let MarkReport { number, checkpoints, skipped, wants_mark, wants_answer } = report;
    let mark = |mark: MarkDigest| v1::MarkDigest { index: mark.index.0, digest: id_to_wire(mark.digest.0) };
    let checkpoints = checkpoints.into_iter().map(mark).collect();
    v1::MarkReport { number, checkpoints, skipped: skipped.0, wants_mark, wants_answer }
}

fn marks_from_wire(report: v1::MarkReport) -> Result<MarkReport, Error> {
    let v1::MarkReport { number, checkpoints, skipped, wants_mark, wants_answer } = report;
    if checkpoints.len() > MARKS_TOLD_MAX {
        return Err(Error::invalid(format!("a report of {} marks", checkpoints.len())));
    }
    let mark = |mark: v1::MarkDigest| {
        let digest = Digest(id_from_wire(&mark.digest, "a digest")?);
        Ok(MarkDigest { index: LogIndex(mark.index), digest })
    };
    let checkpoints = checkpoints.into_iter().map(mark).collect::<Result<_, Error>>()?;
    Ok(MarkReport { number, checkpoints, skipped: LogIndex(skipped), wants_mark, wants_answer })
}

fn manifest_to_wire(manifest: Manifest) -> v1::Manifest {
    let file =
        |file: FileDescription| v1::FileDescription { name: file.name, bytes: file.bytes, hash: id_to_wire(file.hash) };
    v1::Manifest {
        files: manifest.files.into_iter().map(file).collect(),
        index: manifest.index.0,
        term: manifest.term.0,
        digest: id_to_wire(manifest.digest.0),
    }
}

fn manifest_from_wire(manifest: v1::Manifest) -> Result<Manifest, Error> {
    if manifest.files.len() > MANIFEST_FILES_MAX {
        return Err(Error::invalid(format!("a manifest of {} files", manifest.files.len())));
    }
    let file = |file: v1::FileDescription| {
        let plain =
            !file.name.is_empty() && file.name.len() <= NAME_BYTES_MAX && !file.name.contains(['/', '\\', '\0']);
        if !plain || file.name.starts_with('.') {
            return Err(Error::invalid("a manifest names a file that no checkpoint has"));
        }
        let hash = id_from_wire(&file.hash, "a file's hash")?;
        Ok(FileDescription { name: file.name, bytes: file.bytes, hash })
    };
    Ok(Manifest {
        files: manifest.files.into_iter().map(file).collect::<Result<_, _>>()?,
        index: LogIndex(manifest.index),
        term: Term(manifest.term),
        digest: Digest(id_from_wire(&manifest.digest, "a digest")?),
    })
}
