//! The reader that all our formats stand on, against a second one that is as plain as can be.
//!
//! Formats bear with much that it might do wrong: a count that claims too much ends in an error a little later, with whatever was
//! made room for meanwhile. Here each of its answers is held against what the bytes say: the very value, how much is left, and whether
//! there is one at all; and a count never promises more than the rest can hold.
//!
//! An input is a byte that says how many steps there are, a byte for each of them, and what they read.

use bytes::Bytes;
use kv_core::codec::{Reader, put_varint};
use kv_tests::fuzz::Target;

use crate::{bounded, mode};

const BYTES_MAX: usize = 512;
const STEPS_MAX: usize = 16;

/// What one step gave: a number, a flag or bytes.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Number(u128),
    Flag(bool),
    Bytes(Vec<u8>),
}

/// One step of the reader, as the upper bits of the byte want it.
fn step(reader: &mut Reader, what: u8) -> Option<Got> {
    let number = |number: u128| Some(Got::Number(number));
    let few = usize::from(what >> 4);
    match what & 15 {
        0 => number(reader.u8().ok()?.into()),
        1 => reader.bool().ok().map(Got::Flag),
        2 => number(reader.u32().ok()?.into()),
        3 => number(reader.u64().ok()?.into()),
        4 => number(reader.u128().ok()?),
        5 => reader.take(few).ok().map(|bytes| Got::Bytes(bytes.to_vec())),
        6 => reader.take(usize::MAX - few).ok().map(|bytes| Got::Bytes(bytes.to_vec())),
        7..10 => reader.bytes().ok().map(|bytes| Got::Bytes(bytes.to_vec())),
        10..13 => number(reader.count(few).ok()? as u128),
        _ => number(reader.varint().ok()?.into()),
    }
}

/// The same from plain bytes.
fn plain_step(rest: &mut &[u8], what: u8) -> Option<Got> {
    let few = usize::from(what >> 4);
    match what & 15 {
        0 => plain_number(rest, 1),
        1 => match plain_take(rest, 1)? {
            [0] => Some(Got::Flag(false)),
            [1] => Some(Got::Flag(true)),
            _ => None,
        },
        2 => plain_number(rest, 4),
        3 => plain_number(rest, 8),
        4 => plain_number(rest, 16),
        5 => plain_take(rest, few as u128).map(|bytes| Got::Bytes(bytes.to_vec())),
        6 => plain_take(rest, (usize::MAX - few) as u128).map(|bytes| Got::Bytes(bytes.to_vec())),
        7..10 => {
            let count = plain_varint(rest)?;
            plain_take(rest, count.into()).map(|bytes| Got::Bytes(bytes.to_vec()))
        }
        10..13 => {
            let count = u128::from(plain_varint(rest)?);
            (count * few.max(1) as u128 <= rest.len() as u128).then_some(Got::Number(count))
        }
        _ => plain_varint(rest).map(|number| Got::Number(number.into())),
    }
}

fn plain_take<'a>(rest: &mut &'a [u8], count: u128) -> Option<&'a [u8]> {
    let count = usize::try_from(count).ok().filter(|count| *count <= rest.len())?;
    let (taken, left) = rest.split_at(count);
    *rest = left;
    Some(taken)
}

fn plain_number(rest: &mut &[u8], bytes: u128) -> Option<Got> {
    let bytes = plain_take(rest, bytes)?;
    Some(Got::Number(bytes.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte))))
}

/// The only number that is written so.
fn plain_varint(rest: &mut &[u8]) -> Option<u64> {
    let bytes = 1 + rest.iter().take(10).position(|byte| *byte < 0x80)?;
    let number = rest[..bytes].iter().rev().fold(0_u128, |number, byte| number << 7 | u128::from(byte & 0x7f));
    let number = u64::try_from(number).ok()?;
    let mut written = Vec::new();
    put_varint(&mut written, number);
    (written == plain_take(rest, bytes as u128)?).then_some(number)
}

#[test]
fn reader() {
    let numbers = [0, 1, 127, 128, 300, 16_384, u64::from(u32::MAX), u64::MAX];
    let mut varints = vec![8, 13, 13, 13, 13, 13, 13, 13, 13];
    numbers.iter().for_each(|number| put_varint(&mut varints, *number));
    let fixed = [&[5, 0, 1, 2, 3, 4][..], &[1; 30]].concat();
    let lengths = [&[6, 7, 5, 0x35, 10, 0x1a, 0x4a][..], &[3, 9, 9, 9, 1, 2, 3, 8, 4, 2], &[7; 9]].concat();
    let seeds = vec![varints, fixed, lengths];
    let target = Target { name: "reader", runs: 200_000, bytes_max: BYTES_MAX, seeds };
    target.run(|input| {
        let (count, rest) = mode(input);
        let (steps, mut rest) = rest.split_at((usize::from(count) % (STEPS_MAX + 1)).min(rest.len()));
        let mut reader = Reader::new(Bytes::copy_from_slice(rest));
        let mut last = 'z';
        for what in steps {
            let got = bounded(2, input.len(), || step(&mut reader, *what));
            let due = plain_step(&mut rest, *what);
            assert_eq!(got, due, "step {what} of {steps:?}");
            last = char::from(b'a' + (what & 15));
            if got.is_none() {
                // Nobody reads on behind an error.
                return format!("{last} finds nothing");
            }
            assert_eq!(reader.remaining(), rest.len(), "step {what} of {steps:?}");
        }
        let (is_done, due) = (reader.finish().is_ok(), rest.is_empty());
        assert_eq!(is_done, due, "the end behind {steps:?}");
        format!("{last} is last, {is_done}")
    });
}
