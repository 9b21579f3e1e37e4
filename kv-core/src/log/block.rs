//! A block of the log on disk: sectors with stamps, a header, and CRCs that belong to one place of one segment only.
//!
//! A block is a run of 512-byte sectors, written at once and synced at once. A sector is what a disk writes whole or not at
//! all, so each begins with a stamp that says which block of which segment it belongs to:
//!
//! ```text
//! sector 0:  stamp 16 | header 32 | payload 464
//! sector 1+: stamp 16 |             payload 496        (zeros after the end of the payload)
//!
//! stamp:  epoch u64 | block number u32 | check u32
//! header: magic u32 | version u16 | kind u8 | 0 | payload bytes u32 | oldest segment u64 | CRC of the block before u32 |
//!         CRC of the payload u32 | CRC of the header u32
//! ```
//!
//! The epoch is the number of the segment, which is never used twice; the block number counts from 1 in each segment. Both
//! CRCs start from the stamp, so that what an earlier life of a recycled segment left behind never passes for new. The
//! header's CRC covers the payload's CRC, hence the whole block, and is what the next block's header repeats. Stamps are not
//! covered by the CRCs: a rotten stamp on an intact block is told from a torn block. A stamp has a check of its own, so that
//! one rotten bit in free space is no evidence of anything.
//!
//! Whatever a later version changes, magic, version and the header's CRC stay where they are: an unknown version is told
//! from damage.

use bytes::Bytes;

use crate::disk::SegmentNumber;

/// What a disk writes whole or not at all, in bytes.
pub(crate) const SECTOR_BYTES: usize = 512;
const STAMP_BYTES: usize = 16;
const HEADER_BYTES: usize = 32;
const PAYLOAD_START: usize = STAMP_BYTES + HEADER_BYTES;
const MAGIC: [u8; 4] = *b"kvlg";
/// The version of the format that this code writes and reads.
pub(crate) const FORMAT_VERSION: u16 = 1;

/// Which block of which segment a sector belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The segment's number, which is its epoch.
    pub(crate) epoch: SegmentNumber,
    /// The block's number in the segment, from 1.
    pub(crate) number: u32,
}

impl Stamp {
    fn encode(self) -> [u8; STAMP_BYTES] {
        let mut out = [0; STAMP_BYTES];
        out[..8].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[8..12].copy_from_slice(&self.number.to_le_bytes());
        let check = crc32fast::hash(&out[..12]);
        out[12..].copy_from_slice(&check.to_le_bytes());
        out
    }

    /// The stamp of a sector; `None` if it has none: never written, or rotten.
    pub(crate) fn read(sector: &[u8]) -> Option<Self> {
        let stamp = Self { epoch: SegmentNumber(u64_at(sector, 0)), number: u32_at(sector, 8) };
        (sector[..STAMP_BYTES] == stamp.encode()).then_some(stamp)
    }

    /// Where a CRC that belongs to this place starts.
    fn seed(self) -> crc32fast::Hasher {
        let mut hasher = crc32fast::Hasher::new();
        if !mutant!("B18") {
            // Without the stamp's own check: the CRC of any bytes followed by their CRC is one constant.
            hasher.update(&self.encode()[..12]);
        }
        hasher
    }
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// What the log says of all shards at this point. The first block of every segment, and no other.
    Table,
    /// The records of one batch.
    Batch,
    /// The segment ends here; the payload names the next.
    Close,
}

/// What a block's first sector says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// What it holds.
    pub(crate) kind: BlockKind,
    /// Length of the payload.
    pub(crate) payload_bytes: usize,
    /// Segments below this one are no longer part of the log; from it on all must be there.
    pub(crate) oldest: SegmentNumber,
    /// The CRC of the block before; 0 for the first block of a log.
    pub(crate) previous: u32,
    /// The CRC of the payload.
    payload_crc: u32,
    /// The CRC of the header, which stands for the whole block.
    pub(crate) crc: u32,
}

/// A block being made: payload is put in, then it is finished for a place. The memory is used again for the next.
#[derive(Debug, Default)]
pub(crate) struct BlockBuffer {
    bytes: Vec<u8>,
    payload_bytes: usize,
}

impl BlockBuffer {
    /// Begins a new block.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(PAYLOAD_START, 0);
        self.payload_bytes = 0;
    }

    /// Appends to the payload, leaving room for the stamps.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) {
        self.payload_bytes += bytes.len();
        while !bytes.is_empty() {
            let used = self.bytes.len() % SECTOR_BYTES;
            if used == 0 {
                self.bytes.extend_from_slice(&[0; STAMP_BYTES]);
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(SECTOR_BYTES - used));
            self.bytes.extend_from_slice(now);
            bytes = later;
        }
    }

    /// Bytes of payload put so far.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Bytes that the block takes on disk.
    pub(crate) fn block_bytes(&self) -> usize {
        block_bytes(self.payload_bytes)
    }

    /// Stamps the sectors and fills the header in; the result is what is to be written, and the block's CRC.
    pub(crate) fn finish(
        &mut self,
        stamp: Stamp,
        kind: BlockKind,
        oldest: SegmentNumber,
        previous: u32,
    ) -> (&[u8], u32) {
        self.bytes.resize(self.block_bytes(), 0);
        restamp(&mut self.bytes, stamp);
        let payload_crc = payload_crc(&self.bytes, stamp);
        let length = u32::try_from(self.payload_bytes).expect("a payload is bounded far below 4 GiB before it is put");
        let header = &mut self.bytes[STAMP_BYTES..PAYLOAD_START];
        header[..4].copy_from_slice(&MAGIC);
        header[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[6] = kind as u8 + 1;
        header[7] = 0;
        header[8..12].copy_from_slice(&length.to_le_bytes());
        header[12..20].copy_from_slice(&oldest.0.to_le_bytes());
        header[20..24].copy_from_slice(&previous.to_le_bytes());
        header[24..28].copy_from_slice(&payload_crc.to_le_bytes());
        let mut hasher = stamp.seed();
        hasher.update(&header[..28]);
        let crc = hasher.finalize();
        header[28..].copy_from_slice(&crc.to_le_bytes());
        (&self.bytes, crc)
    }
}

/// What stands at the place of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockRead {
    /// A block whose CRCs are right, whatever its stamps say.
    Good {
        /// Its header.
        header: Header,
        /// Bytes that it takes.
        bytes: usize,
    },
    /// Not a block, and at least one sector does not carry its stamp: nothing was ever written here, or it is torn.
    Torn,
    /// All sectors carry the block's stamp, and yet it is damaged.
    Rotten(&'static str),
    /// A block of a version that this code does not know.
    Version(u16),
}

/// Judges what stands at `offset` of a segment, where a block with this stamp is expected.
pub(crate) fn read_block(segment: &[u8], offset: usize, stamp: Stamp) -> BlockRead {
    let Some(first) = segment.get(offset..offset + SECTOR_BYTES) else {
        return BlockRead::Rotten("no room is left for the block that closes the segment");
    };
    let header = match read_header(first, stamp) {
        Ok(Some(header)) => header,
        Ok(None) if Stamp::read(first) == Some(stamp) => return BlockRead::Rotten("the header of a block is damaged"),
        Ok(None) => return BlockRead::Torn,
        Err(version) => return BlockRead::Version(version),
    };
    let bytes = block_bytes(header.payload_bytes);
    let Some(block) = segment.get(offset..offset + bytes) else {
        return BlockRead::Rotten("a block is longer than its segment");
    };
    if payload_crc(block, stamp) == header.payload_crc {
        return BlockRead::Good { header, bytes };
    }
    if mutant!("B17") || block.chunks_exact(SECTOR_BYTES).any(|sector| Stamp::read(sector) != Some(stamp)) {
        return BlockRead::Torn;
    }
    BlockRead::Rotten("the content of a block is damaged")
}

/// The payload of a good block, without the stamps.
pub(crate) fn payload(block: &[u8], header: &Header) -> Bytes {
    let mut out = Vec::with_capacity(block.len());
    for (position, sector) in block.chunks_exact(SECTOR_BYTES).enumerate() {
        out.extend_from_slice(&sector[if position == 0 { PAYLOAD_START } else { STAMP_BYTES }..]);
    }
    out.truncate(header.payload_bytes);
    out.into()
}

/// Gives every sector of a block its stamp.
pub(crate) fn restamp(block: &mut [u8], stamp: Stamp) {
    let stamp = stamp.encode();
    for sector in block.chunks_exact_mut(SECTOR_BYTES) {
        sector[..STAMP_BYTES].copy_from_slice(&stamp);
    }
}

/// Whether every sector of a block has its stamp.
pub(crate) fn is_stamped(block: &[u8], stamp: Stamp) -> bool {
    let stamp = stamp.encode();
    block.chunks_exact(SECTOR_BYTES).all(|sector| sector.starts_with(&stamp))
}

/// All stamps found in the whole sectors of these bytes.
pub(crate) fn stamps(bytes: &[u8]) -> impl Iterator<Item = (usize, Stamp)> {
    let sectors = bytes.chunks_exact(SECTOR_BYTES).enumerate();
    sectors.filter_map(|(position, sector)| Some((position * SECTOR_BYTES, Stamp::read(sector)?)))
}

/// Bytes that a block with this much payload takes on disk.
pub(crate) fn block_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).div_ceil(SECTOR_BYTES - STAMP_BYTES) * SECTOR_BYTES
}

/// `None` if the CRC is wrong; the version if it is another than ours.
fn read_header(sector: &[u8], stamp: Stamp) -> Result<Option<Header>, u16> {
    let header = &sector[STAMP_BYTES..PAYLOAD_START];
    let mut hasher = stamp.seed();
    hasher.update(&header[..28]);
    let crc = u32_at(header, 28);
    if hasher.finalize() != crc || header[..4] != MAGIC {
        return Ok(None);
    }
    let version = u16::from_le_bytes([header[4], header[5]]);
    if version != FORMAT_VERSION {
        return Err(version);
    }
    let kind = match header[6] {
        1 => BlockKind::Table,
        2 => BlockKind::Batch,
        3 => BlockKind::Close,
        _ => return Ok(None),
    };
    Ok(Some(Header {
        kind,
        payload_bytes: u32_at(header, 8) as usize,
        oldest: SegmentNumber(u64_at(header, 12)),
        previous: u32_at(header, 20),
        payload_crc: u32_at(header, 24),
        crc,
    }))
}

fn payload_crc(block: &[u8], stamp: Stamp) -> u32 {
    let mut hasher = stamp.seed();
    for (position, sector) in block.chunks_exact(SECTOR_BYTES).enumerate() {
        hasher.update(&sector[if position == 0 { PAYLOAD_START } else { STAMP_BYTES }..]);
    }
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were sliced"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were sliced"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { epoch: SegmentNumber(7), number: 3 };

    fn block(payload: &[u8]) -> Vec<u8> {
        let mut buffer = BlockBuffer::default();
        buffer.clear();
        buffer.put(payload);
        buffer.finish(STAMP, BlockKind::Batch, SegmentNumber(5), 99).0.to_vec()
    }

    #[test]
    fn blocks_of_every_length_are_read_as_written() {
        for length in (0..40).chain(450..520).chain(950..1_000).chain([5_000]) {
            let content: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let block = block(&content);
            let BlockRead::Good { header, bytes } = read_block(&block, 0, STAMP) else { panic!("{length} bytes") };
            assert_eq!(bytes, block.len());
            assert_eq!((header.kind, header.oldest, header.previous), (BlockKind::Batch, SegmentNumber(5), 99));
            assert_eq!(payload(&block, &header), content);
        }
    }

    #[test]
    fn a_block_is_good_only_at_its_place() {
        let block = block(b"content");
        for other in [Stamp { epoch: SegmentNumber(8), ..STAMP }, Stamp { number: 4, ..STAMP }] {
            assert_eq!(read_block(&block, 0, other), BlockRead::Torn);
            let mut moved = block.clone();
            restamp(&mut moved, other);
            assert!(matches!(read_block(&moved, 0, other), BlockRead::Rotten(_)));
        }
    }

    #[test]
    fn an_unknown_version_is_told_from_damage() {
        let mut block = block(b"content");
        block[STAMP_BYTES + 4] = 9;
        assert!(matches!(read_block(&block, 0, STAMP), BlockRead::Rotten(_)));
        let mut hasher = STAMP.seed();
        hasher.update(&block[STAMP_BYTES..PAYLOAD_START - 4]);
        block[PAYLOAD_START - 4..PAYLOAD_START].copy_from_slice(&hasher.finalize().to_le_bytes());
        assert_eq!(read_block(&block, 0, STAMP), BlockRead::Version(9));
    }

    #[test]
    fn the_bytes_of_a_block_are_pinned() {
        let block = block(b"golden");
        assert_eq!(block.len(), SECTOR_BYTES);
        let expected = concat!(
            "0700000000000000030000000e80f81d",
            "6b766c6701000200060000000500000000000000630000009920af1a88796aa0",
            "676f6c64656e",
        );
        let shown: String = block[..PAYLOAD_START + 6].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, expected);
    }
}
