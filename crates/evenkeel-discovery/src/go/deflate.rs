//! zlib (RFC 1950) as Go's `compress/zlib` writes it, in the versions up to Go 1.26.
//!
//! A text has many valid compressed forms, and any reader accepts all of them. This writer makes
//! the same form as programs in Go, so that an entry is the same text whichever side wrote it.
//! Newer versions of Go write other bytes with the same meaning. So do older ones where a code made
//! for the text is shorter than the fixed one, from some hundred bytes on.

use std::collections::HashMap;

/// The most bytes that are searched for repetitions; longer texts are stored as they are.
const WINDOW: usize = 1 << 15;
const MIN_MATCH: usize = 4;
const MAX_MATCH: usize = 258;
/// Go's level 6: how many earlier places are tried, a length that is good enough to take, and one
/// that is good enough not to look for a better one a byte later.
const TRIES: usize = 128;
const NICE: usize = 128;
const LAZY: usize = 16;

/// The most bytes of a decompressed text.
const MAX_TEXT: usize = 64 << 10;

/// The text of a zlib stream; none if it is invalid or too long.
pub(crate) fn decompress(stream: &[u8]) -> Option<Vec<u8>> {
    miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(stream, MAX_TEXT).ok()
}

/// `text` as a zlib stream.
pub(crate) fn compress(text: &[u8]) -> Vec<u8> {
    let mut bits = Bits { bytes: vec![0x78, 0x9c], pending: 0, count: 0 };
    if WINDOW < text.len() {
        text.chunks(WINDOW).for_each(|chunk| bits.stored(chunk, false));
    } else if !text.is_empty() {
        let tokens = tokens(text);
        let coded: u32 = 3 + 7 + tokens.iter().map(Token::bits).sum::<u32>();
        if (text.len() + 5) * 8 < coded as usize {
            bits.stored(text, false);
        } else {
            bits.push(0b010, 3);
            tokens.iter().for_each(|token| bits.token(token));
            bits.push(0, 7);
        }
    }
    bits.stored(&[], true);
    bits.bytes.extend(adler(text).to_be_bytes());
    bits.bytes
}

#[derive(Clone, Copy, Debug)]
enum Token {
    Literal(u8),
    Match { length: usize, distance: usize },
}

impl Token {
    /// How many bits it takes in the fixed code.
    fn bits(&self) -> u32 {
        match *self {
            Self::Literal(byte) => 8 + u32::from(143 < byte),
            Self::Match { length, distance } => {
                let (code, extra, _) = length_code(length);
                7 + u32::from(279 < code) + extra + 5 + distance_code(distance).1
            }
        }
    }
}

/// Literals and repetitions. Each is delayed by a byte, in case a longer one begins there.
fn tokens(text: &[u8]) -> Vec<Token> {
    let mut chains = Chains { last: HashMap::new(), before: vec![None; text.len()] };
    let mut tokens = vec![];
    let (mut index, mut length, mut distance, mut has_pending) = (0, MIN_MATCH - 1, 0, false);
    while index < text.len() {
        let head = chains.insert(text, index);
        let (length_before, distance_before) = (length, distance);
        (length, distance) = (MIN_MATCH - 1, 0);
        if length_before < text.len() - index && length_before < LAZY {
            (length, distance) = chains.longest(text, index, head);
        }
        if MIN_MATCH <= length_before && length <= length_before {
            tokens.push(Token::Match { length: length_before, distance: distance_before });
            let end = index + length_before - 1;
            for place in index + 1..end {
                chains.insert(text, place);
            }
            (index, length, has_pending) = (end, MIN_MATCH - 1, false);
        } else {
            if has_pending {
                tokens.push(Token::Literal(text[index - 1]));
            }
            (index, has_pending) = (index + 1, true);
        }
    }
    if has_pending {
        tokens.push(Token::Literal(text[index - 1]));
    }
    tokens
}

/// For each sequence of four bytes, the places where it begins.
struct Chains {
    last: HashMap<[u8; MIN_MATCH], usize>,
    before: Vec<Option<usize>>,
}

impl Chains {
    /// Records the sequence at `index`; returns where it began last before.
    fn insert(&mut self, text: &[u8], index: usize) -> Option<usize> {
        let key = text.get(index..index + MIN_MATCH)?.try_into().ok()?;
        let before = self.last.insert(key, index);
        self.before[index] = before;
        before
    }

    /// The longest repetition of the text at `index`, and how far back it begins.
    fn longest(&self, text: &[u8], index: usize, head: Option<usize>) -> (usize, usize) {
        let most = MAX_MATCH.min(text.len() - index);
        let (mut length, mut distance) = (MIN_MATCH - 1, 0);
        let places = std::iter::successors(head, |place| self.before[*place]);
        for place in places.take(TRIES) {
            let same = (0..most).take_while(|n| text[place + n] == text[index + n]).count();
            if length < same && (MIN_MATCH < same || index - place <= 4_096) {
                (length, distance) = (same, index - place);
                if NICE.min(most) <= same {
                    break;
                }
            }
        }
        (length, distance)
    }
}

/// The code of a length, and its extra bits (RFC 1951, section 3.2.5).
fn length_code(length: usize) -> (u32, u32, u32) {
    if length == MAX_MATCH {
        return (285, 0, 0);
    }
    let (step, extra, rest) = split(length - 3, 4);
    (257 + step, extra, rest)
}

/// The same of a distance.
fn distance_code(distance: usize) -> (u32, u32, u32) {
    split(distance - 1, 2)
}

/// Codes that grow by one bit in each group of `group`, after the first two groups.
fn split(number: usize, group: u32) -> (u32, u32, u32) {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    if number < 2 * group {
        return (number, 0, 0);
    }
    let extra = number.ilog2() - group.ilog2();
    (extra * group + (number >> extra), extra, number & ((1 << extra) - 1))
}

/// A writer of bits, which fills each byte from the lowest bit.
struct Bits {
    bytes: Vec<u8>,
    pending: u64,
    count: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        self.pending |= u64::from(value) << self.count;
        self.count += count;
        while 8 <= self.count {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    /// Writes a code, highest bit first.
    fn code(&mut self, value: u32, count: u32) {
        self.push(value.reverse_bits() >> (32 - count), count);
    }

    fn token(&mut self, token: &Token) {
        match *token {
            Token::Literal(byte) => self.symbol(byte.into()),
            Token::Match { length, distance } => {
                let (code, extra, rest) = length_code(length);
                self.symbol(code);
                self.push(rest, extra);
                let (code, extra, rest) = distance_code(distance);
                self.code(code, 5);
                self.push(rest, extra);
            }
        }
    }

    /// Writes a symbol of the fixed code (RFC 1951, section 3.2.6).
    fn symbol(&mut self, symbol: u32) {
        match symbol {
            0..=143 => self.code(0x30 + symbol, 8),
            144..=255 => self.code(0x190 + symbol - 144, 9),
            256..=279 => self.code(symbol - 256, 7),
            _ => self.code(0xc0 + symbol - 280, 8),
        }
    }

    /// Writes a block that is not compressed.
    fn stored(&mut self, chunk: &[u8], is_last: bool) {
        self.push(u32::from(is_last), 3);
        self.push(0, (8 - self.count) % 8);
        let length = u16::try_from(chunk.len()).expect("a chunk is at most a window");
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend((!length).to_le_bytes());
        self.bytes.extend(chunk);
    }
}

fn adler(text: &[u8]) -> u32 {
    let (a, b) = text.iter().fold((1, 0), |(a, b): (u32, u32), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_that_is_too_long_or_an_invalid_stream_is_refused() {
        assert_eq!(decompress(&compress(&[b'a'; MAX_TEXT])).unwrap().len(), MAX_TEXT);
        assert_eq!(decompress(&compress(&[b'a'; MAX_TEXT + 1])), None);
        assert_eq!(decompress(b""), None);
        assert_eq!(decompress(&compress(b"cut off")[..10]), None);
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        assert_eq!((length_code(3), length_code(10)), ((257, 0, 0), (264, 0, 0)));
        assert_eq!((length_code(11), length_code(12)), ((265, 1, 0), (265, 1, 1)));
        assert_eq!((length_code(257), length_code(258)), ((284, 5, 30), (285, 0, 0)));
        assert_eq!((distance_code(1), distance_code(4)), ((0, 0, 0), (3, 0, 0)));
        assert_eq!((distance_code(6), distance_code(32_768)), ((4, 1, 1), (29, 13, 8_191)));
    }

    proptest! {
        #[test]
        fn what_is_compressed_is_read_again(
            text in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..2_000),
                "[ab]{0,2000}".prop_map(String::into_bytes),
            ]
        ) {
            prop_assert_eq!(decompress(&compress(&text)), Some(text));
        }
    }
}
