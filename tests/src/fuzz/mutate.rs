//! Inputs made from others: bits and bytes changed, numbers set to where they overflow, pieces moved between them; and lists made
//! longer, in what they say of themselves, in what they hold, or in both.

use fastrand::Rng;

/// One new input of at most so many bytes, made from these.
#[must_use]
pub fn mutate(kept: &[Vec<u8>], bytes_max: usize, random: &mut Rng) -> Vec<u8> {
    let mut input = match kept.len() {
        0 => Vec::new(),
        // Mostly what was found last: it is the deepest.
        count if random.bool() => kept[count - 1 - random.usize(..count.min(32))].clone(),
        count => kept[random.usize(..count)].clone(),
    };
    if random.u8(..) < 4 {
        let length = random.usize(..64);
        input = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
    }
    for _ in 0..1 << random.u32(..4) {
        change(&mut input, kept, random);
    }
    input.truncate(bytes_max);
    input
}

fn change(input: &mut Vec<u8>, kept: &[Vec<u8>], random: &mut Rng) {
    let length = input.len();
    let at = random.usize(..=length);
    let piece_bytes_max = 1 << random.u32(1..7);
    let piece = at..(at + 1 + random.usize(..piece_bytes_max)).min(length).max(at);
    match random.u8(..14) {
        0 | 1 if at < length => input[at] ^= 1 << random.u8(..8),
        2 if at < length => input[at] = BYTES[random.usize(..BYTES.len())],
        3 if at < length => input[at] = input[at].wrapping_add(random.u8(..9)).wrapping_sub(4),
        4 => drop(input.drain(piece)),
        5 => {
            let piece = input[piece].to_vec();
            let times = 1 + random.usize(..4);
            input.splice(at..at, piece.repeat(times));
        }
        6 => {
            let count = random.usize(1..9);
            drop(input.splice(at..at, (0..count).map(|_| random.u8(..))));
        }
        7 => {
            let number = number(random);
            let bytes = if random.bool() { number.to_le_bytes() } else { number.to_be_bytes() };
            let width = if random.bool() { 4 } else { 8 };
            overwrite(input, at, &bytes[..width]);
        }
        8 => {
            let mut varint = Vec::new();
            kv_core::codec::put_varint(&mut varint, number(random));
            // In the place of another of any length.
            input.splice(at..(at + random.usize(..11)).min(length), varint);
        }
        9 | 10 if !kept.is_empty() => {
            let other = &kept[random.usize(..kept.len())];
            let from = random.usize(..=other.len());
            let to = (from + random.usize(..256)).min(other.len());
            let end = if random.bool() { piece.end } else { at };
            input.splice(at..end, other[from..to].iter().copied());
        }
        12 => lengthen(input, random),
        _ => input.truncate(at),
    }
}

/// Lets a list begin somewhere, mostly near the front, where formats count what follows: the number there grows by one or more,
/// and as many copies of some piece behind it come in, or fewer, or none. What is wrong at a list's greatest length, or where its
/// length is not that of what follows, is found by this: changes at random places would have to hit the count and the items at
/// once.
fn lengthen(input: &mut Vec<u8>, random: &mut Rng) {
    let start_max = if random.bool() { input.len().min(8) } else { input.len() };
    let start = random.usize(..=start_max);
    let mut reader = kv_core::codec::Reader::new(input[start..].to_vec().into());
    let Ok(count) = reader.varint() else { return };
    let behind = input.len() - reader.remaining();
    let more = if random.bool() { 1 } else { 1 << random.u32(..8) };
    let from = random.usize(behind..=input.len());
    let item_bytes = 1 << random.u32(..6);
    let item = input[from..(from + item_bytes).min(input.len())].to_vec();
    let copies = if random.u8(..4) == 0 { random.usize(..=more) } else { more };
    input.splice(from..from, item.repeat(copies));
    let mut varint = Vec::new();
    kv_core::codec::put_varint(&mut varint, count.wrapping_add(more as u64));
    input.splice(start..behind, varint);
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (into, byte) in input[at..].iter_mut().zip(bytes) {
        *into = *byte;
    }
}

/// Numbers near which things overflow, and small ones.
fn number(random: &mut Rng) -> u64 {
    let near = random.u64(..5).wrapping_sub(2);
    let power = if random.u8(..4) == 0 { 0 } else { 1_u64.checked_shl(random.u32(..65)).unwrap_or(0) };
    if random.u8(..4) == 0 { random.u64(..300) } else { power.wrapping_add(near) }
}

const BYTES: [u8; 9] = [0, 1, 2, 7, 0x10, 0x7f, 0x80, 0xfe, 0xff];
