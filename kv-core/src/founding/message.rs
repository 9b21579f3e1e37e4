//! What members say to each other while a cluster is founded.

use bytes::Bytes;

use super::record::{ConfigurationDigest, FoundingRecord, decode_text};
use crate::{
    codec::{CodecError, Reader, put_bytes, put_u8, put_u64, put_u128, put_varint},
    types::{ClusterId, Incarnation},
};

/// A message between members of which at least one is unfounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundingMessage {
    /// The sender has no founding record.
    Unfounded(Unfounded),
    /// The founding record, to a member that it names.
    Offer(FoundingRecord),
    /// The receiver can't join.
    Refusal {
        /// The incarnation that can't: a receiver with another takes no notice.
        incarnation: Incarnation,
        /// Why.
        reason: FoundingRefusal,
    },
}

/// What an unfounded member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfounded {
    /// Its data directory's incarnation.
    pub incarnation: Incarnation,
    /// What it was started with.
    pub digest: ConfigurationDigest,
    /// The incarnation of the lowest member from which alone it takes a record.
    pub lowest: Option<Incarnation>,
    /// From the lowest member: all others are unfounded; take a record from this incarnation alone.
    pub bind: bool,
    /// The failure domain that it stands in.
    pub zone: String,
    /// Its share of the load.
    pub weight: u32,
}

/// Why an unfounded node can't join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundingRefusal {
    /// The cluster knows the node by this other incarnation.
    Wiped {
        /// The incarnation that the founding record names.
        known: Incarnation,
    },
    /// This cluster was founded without the node.
    NotNamed {
        /// The cluster.
        cluster: ClusterId,
    },
    /// The cluster was founded with other settings than the node was started with.
    OtherConfiguration {
        /// The cluster.
        cluster: ClusterId,
    },
}

impl FoundingMessage {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        put_u8(&mut out, FORMAT);
        match self {
            Self::Unfounded(unfounded) => {
                put_u8(&mut out, TAG_UNFOUNDED);
                put_u128(&mut out, unfounded.incarnation.0);
                put_u64(&mut out, unfounded.digest.0);
                put_u8(&mut out, u8::from(unfounded.lowest.is_some()));
                if let Some(lowest) = unfounded.lowest {
                    put_u128(&mut out, lowest.0);
                }
                put_u8(&mut out, u8::from(unfounded.bind));
                put_bytes(&mut out, unfounded.zone.as_bytes());
                put_varint(&mut out, u64::from(unfounded.weight));
            }
            Self::Offer(record) => {
                put_u8(&mut out, TAG_OFFER);
                put_bytes(&mut out, &record.encode());
            }
            Self::Refusal { incarnation, reason } => {
                let (tag, value) = match reason {
                    FoundingRefusal::Wiped { known } => (TAG_WIPED, known.0),
                    FoundingRefusal::NotNamed { cluster } => (TAG_NOT_NAMED, cluster.0),
                    FoundingRefusal::OtherConfiguration { cluster } => (TAG_OTHER_CONFIGURATION, cluster.0),
                };
                put_u8(&mut out, tag);
                put_u128(&mut out, incarnation.0);
                put_u128(&mut out, value);
            }
        }
        out.into()
    }

    /// Reads what [`FoundingMessage::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are damaged or of another format.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != FORMAT {
            return Err(CodecError("a founding message of format 1"));
        }
        let message = match reader.u8()? {
            TAG_UNFOUNDED => Self::Unfounded(decode_unfounded(&mut reader)?),
            TAG_OFFER => Self::Offer(FoundingRecord::decode(&reader.bytes()?)?),
            tag @ TAG_WIPED..=TAG_OTHER_CONFIGURATION => {
                let incarnation = Incarnation(reader.u128()?);
                let value = reader.u128()?;
                let reason = match tag {
                    TAG_WIPED => FoundingRefusal::Wiped { known: Incarnation(value) },
                    TAG_NOT_NAMED => FoundingRefusal::NotNamed { cluster: ClusterId(value) },
                    _ => FoundingRefusal::OtherConfiguration { cluster: ClusterId(value) },
                };
                Self::Refusal { incarnation, reason }
            }
            _ => return Err(CodecError("a known founding message")),
        };
        reader.finish()?;
        Ok(message)
    }
}

const FORMAT: u8 = 1;
const TAG_UNFOUNDED: u8 = 1;
const TAG_OFFER: u8 = 2;
const TAG_WIPED: u8 = 3;
const TAG_NOT_NAMED: u8 = 4;
const TAG_OTHER_CONFIGURATION: u8 = 5;

fn decode_unfounded(reader: &mut Reader) -> Result<Unfounded, CodecError> {
    Ok(Unfounded {
        incarnation: Incarnation(reader.u128()?),
        digest: ConfigurationDigest(reader.u64()?),
        lowest: if reader.bool()? { Some(Incarnation(reader.u128()?)) } else { None },
        bind: reader.bool()?,
        zone: decode_text(reader)?,
        weight: u32::try_from(reader.varint()?).map_err(|_| CodecError("a weight"))?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::founding::record::tests::record;

    #[test]
    fn messages_are_read_back_and_cut_ones_refused() {
        let unfounded = Unfounded {
            incarnation: Incarnation(1),
            digest: ConfigurationDigest(2),
            lowest: Some(Incarnation(3)),
            bind: true,
            zone: "z".into(),
            weight: 4,
        };
        let refusal = |reason| FoundingMessage::Refusal { incarnation: Incarnation(9), reason };
        for message in [
            FoundingMessage::Unfounded(Unfounded { lowest: None, ..unfounded.clone() }),
            FoundingMessage::Unfounded(unfounded),
            FoundingMessage::Offer(record(3, 12, 3)),
            refusal(FoundingRefusal::Wiped { known: Incarnation(8) }),
            refusal(FoundingRefusal::NotNamed { cluster: ClusterId(7) }),
            refusal(FoundingRefusal::OtherConfiguration { cluster: ClusterId(6) }),
        ] {
            let bytes = message.encode();
            assert_eq!(FoundingMessage::decode(bytes.clone()), Ok(message));
            for length in 0..bytes.len() {
                assert!(FoundingMessage::decode(bytes.slice(..length)).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(tag in 0_u8..8, rest: Vec<u8>) {
            let _ = FoundingMessage::decode([vec![FORMAT, tag], rest].concat().into());
        }
    }
}
