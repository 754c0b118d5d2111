//! The position of an HTTP/1.1 connection within its requests.

use evenkeel_core::number;

/// The longest part of a line that can matter: `content-length` and any number.
const MAX_LINE: usize = 64;

/// Reads the same bytes as hyper, to know whether part of a request's head has arrived.
///
/// It judges nothing: hyper answers what it refuses, and the connection ends.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Bytes of a body or of a chunk that are still to come.
    skip: u64,
    awaited: Awaited,
    /// The beginning of a line that has not ended.
    line: Vec<u8>,
    length: u64,
    is_chunked: bool,
}

/// Which line comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Awaited {
    /// The first of a request. Empty ones may come before it (RFC 9112, section 2.2).
    #[default]
    Request,
    Field,
    Chunk,
    Trailer,
}

impl Heads {
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skipped as u64;
            bytes = &bytes[skipped..];
            let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
                return self.keep(bytes);
            };
            self.keep(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.end_line(line.trim_ascii_end());
        }
    }

    /// Whether a part of a head has arrived, but not all of it.
    pub(super) fn has_half(&self) -> bool {
        match self.awaited {
            Awaited::Request => !self.line.trim_ascii_end().is_empty(),
            Awaited::Field => true,
            Awaited::Chunk | Awaited::Trailer => false,
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE - self.line.len();
        self.line.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    fn end_line(&mut self, line: &[u8]) {
        match self.awaited {
            Awaited::Request if line.is_empty() => {}
            Awaited::Request => {
                (self.length, self.is_chunked) = (0, false);
                self.awaited = Awaited::Field;
            }
            Awaited::Field if line.is_empty() && self.is_chunked => self.awaited = Awaited::Chunk,
            Awaited::Field if line.is_empty() => {
                self.skip = self.length;
                self.awaited = Awaited::Request;
            }
            Awaited::Field => self.read_field(line),
            Awaited::Chunk => match chunk_size(line) {
                // The end of its line belongs to a chunk.
                Some(size) if 0 < size => self.skip = size.saturating_add(2),
                _ => self.awaited = Awaited::Trailer,
            },
            Awaited::Trailer if line.is_empty() => self.awaited = Awaited::Request,
            Awaited::Trailer => {}
        }
    }

    fn read_field(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.length = number::digits(value).unwrap_or(0);
        }
        // hyper refuses a request with another last coding.
        self.is_chunked |= name.eq_ignore_ascii_case(b"transfer-encoding");
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b';').next()?.trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether there is half a head after each byte of `text` from `from` on, however it is cut.
    fn halves(text: &str, from: usize) -> Vec<bool> {
        let after = |end| {
            let (mut whole, mut bytewise) = (Heads::default(), Heads::default());
            whole.read(&text.as_bytes()[..end]);
            text.as_bytes()[..end].iter().for_each(|byte| bytewise.read(&[*byte]));
            assert_eq!(whole.has_half(), bytewise.has_half(), "{:?}", &text[..end]);
            whole.has_half()
        };
        (from..=text.len()).map(after).collect()
    }

    #[test]
    fn a_head_is_incomplete_from_its_first_byte_to_its_last() {
        let head = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        for before in ["", "\r\n", "\n\r\n", head] {
            let expected: Vec<_> =
                (0..=head.len()).map(|read| read != 0 && read != head.len()).collect();
            assert_eq!(halves(&[before, head].concat(), before.len()), expected, "{before:?}");
        }
    }

    #[test]
    fn a_body_is_not_taken_for_a_head_whatever_it_contains() {
        let length = "POST / HTTP/1.1\nX: 1\nContent-Length:  9 \n\n";
        let chunks = "POST / HTTP/1.1\r\nTRANSFER-ENCODING: Chunked\r\ncontent-length: 5\r\n\r\n";
        for (head, body) in [
            (length, "GET / HTT"),
            (chunks, "A;x=1\r\nGET / HTTP\r\n2\r\n\r\n\r\n0\r\n\r\n"),
            (chunks, "0\r\nx: 1\r\n\r\n"),
        ] {
            let text = [head, body, "G"].concat();
            let halves = halves(&text, head.len());
            let (last, others) = halves.split_last().unwrap();
            assert!(last, "what comes next is a head again: {text}");
            assert!(!others.contains(&true), "{text}: {others:?}");
        }
    }

    #[test]
    fn sizes_of_any_number_are_read_in_bounded_memory() {
        let most = u64::MAX;
        for head in [
            format!("POST / HTTP/1.1\r\ncontent-length: {most}\r\n\r\n"),
            format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{most:x}\r\n"),
            format!("POST / HTTP/1.1\r\n{}: 1\r\n\r\nx", "x".repeat(1_000)),
        ] {
            let mut heads = Heads::default();
            heads.read(head.as_bytes());
            heads.read(&[b'a'; 1_000]);
            assert!(heads.line.len() <= MAX_LINE);
        }
    }
}
