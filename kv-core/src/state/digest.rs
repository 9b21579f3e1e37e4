//! The digest of a shard's whole state: one number that is equal on two replicas iff (but for an accident of 1 in 2^128)
//! they hold the same at the same index.
//!
//! It is the sum modulo 2^128 of a hash of each live record, plus a hash of the header. A sum, because a changed record then
//! costs two hashes (the old one out, the new one in), whatever the size of the state. It finds mistakes and rot, not
//! malice: xxh3 is no cryptographic hash.
//!
//! Of the header's list of configurations only the newest counts: where the list begins depends on where a replica's own
//! log begins.

use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

use crate::{
    codec::put_bytes,
    state::{codec::encode_header_for_digest, record::StateHeader},
    types::Digest,
};

/// Set apart from records: a header's bytes never count as a record's.
const HEADER_SEED: u64 = 0x6b76_6865_6164_6572;

/// The sum over records, without the header.
#[derive(Clone, Debug, Default)]
pub struct RecordSum {
    sum: u128,
    buffer: Vec<u8>,
}

impl RecordSum {
    /// The sum that a digest and its header were made of.
    #[must_use]
    pub fn of_footer(digest: Digest, header: &StateHeader) -> Self {
        Self { sum: digest.0.wrapping_sub(header_hash(header)), buffer: Vec::new() }
    }

    /// Counts a record in.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.sum = self.sum.wrapping_add(self.record_hash(key, value));
    }

    /// Takes a record that was counted out again.
    pub fn subtract(&mut self, key: &[u8], value: &[u8]) {
        self.sum = self.sum.wrapping_sub(self.record_hash(key, value));
    }

    /// The digest of these records under a header.
    #[must_use]
    pub fn digest(&self, header: &StateHeader) -> Digest {
        Digest(self.sum.wrapping_add(header_hash(header)))
    }

    fn record_hash(&mut self, key: &[u8], value: &[u8]) -> u128 {
        self.buffer.clear();
        put_bytes(&mut self.buffer, key);
        put_bytes(&mut self.buffer, value);
        xxh3_128(&self.buffer)
    }
}

fn header_hash(header: &StateHeader) -> u128 {
    xxh3_128_with_seed(&encode_header_for_digest(header), HEADER_SEED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{configuration::Configuration, types::LogIndex};

    #[test]
    fn order_and_history_do_not_count_but_every_record_does() {
        let header = StateHeader::default();
        let mut one = RecordSum::default();
        one.add(b"ka", b"1");
        one.add(b"kb", b"2");
        let mut two = RecordSum::default();
        two.add(b"kb", b"2");
        two.add(b"kc", b"3");
        two.add(b"ka", b"1");
        assert_ne!(one.digest(&header), two.digest(&header));
        two.subtract(b"kc", b"3");
        assert_eq!(one.digest(&header), two.digest(&header));
        let mut shifted = RecordSum::default();
        shifted.add(b"k", b"a1");
        shifted.add(b"kb", b"2");
        assert_ne!(one.digest(&header), shifted.digest(&header));
    }

    #[test]
    fn only_the_newest_configuration_counts() {
        let sum = RecordSum::default();
        let newest = (LogIndex(5), Configuration { auto_leave: true, ..Configuration::default() });
        let long = StateHeader {
            configurations: vec![(LogIndex(1), Configuration::default()), newest.clone()],
            ..StateHeader::default()
        };
        let short = StateHeader { configurations: vec![newest], ..StateHeader::default() };
        assert_eq!(sum.digest(&long), sum.digest(&short));
        assert_ne!(sum.digest(&long), sum.digest(&StateHeader::default()));
    }

    #[test]
    fn the_sum_is_found_again_from_the_footer() {
        let header = StateHeader { index: LogIndex(9), ..StateHeader::default() };
        let mut sum = RecordSum::default();
        sum.add(b"ka", b"1");
        let mut again = RecordSum::of_footer(sum.digest(&header), &header);
        again.subtract(b"ka", b"1");
        assert_eq!(again.digest(&header), RecordSum::default().digest(&header));
    }
}
