//! One direction of a TCP connection, and the requests that begin in it.

use std::{net::Ipv4Addr, time::Duration};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The connection preface of an HTTP/2 client.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;

/// If a connection carries its first request later than this, it was not opened for that request,
/// or it was not established at once. Its SYN counts as a separate attempt.
const HEAD_WITHIN: Duration = Duration::from_millis(100);

/// The relevant fields of an IPv4 packet with TCP.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) source: Ipv4Addr,
    pub(super) source_port: u16,
    pub(super) destination: Ipv4Addr,
    pub(super) destination_port: u16,
    sequence: u32,
    flags: u8,
    /// The payload may be cut off: this is its length on the wire.
    payload: &'a [u8],
    payload_length: usize,
}

impl<'a> Packet<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = usize::from(bytes.first()? & 0x0f) * 4;
        let total = usize::from(u16_at(bytes, 2)?);
        let address = |at: usize| {
            let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets))
        };
        let tcp = bytes.get(header..)?;
        let data = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Self {
            source: address(12)?,
            source_port: u16_at(tcp, 0)?,
            destination: address(16)?,
            destination_port: u16_at(tcp, 2)?,
            sequence: u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?),
            flags: *tcp.get(13)?,
            payload: tcp.get(data..)?,
            payload_length: total.checked_sub(header + data)?,
        })
    }
}

/// The state of a connection to an endpoint.
#[derive(Debug, Default)]
pub(super) struct Flow {
    syn: Option<(u32, Duration)>,
    first_head: Option<Duration>,
    /// The sequence number of new data. Earlier data is a retransmission.
    next: Option<u32>,
    is_http2: bool,
    /// How many bytes of the current frame are still to come.
    frame_rest: usize,
}

impl Flow {
    /// A SYN restarts the flow, unless it is a retransmission. Returns the begin of the previous
    /// flow if that never carried a request.
    pub(super) fn begin_if_syn(&mut self, packet: &Packet<'_>, at: Duration) -> Option<Duration> {
        let is_syn = packet.flags & (SYN | ACK) == SYN;
        if !is_syn || self.syn.is_some_and(|(sequence, _)| sequence == packet.sequence) {
            return None;
        }
        let before = self.begun_without_request();
        let next = Some(packet.sequence.wrapping_add(1));
        *self = Self { syn: Some((packet.sequence, at)), next, ..Self::default() };
        before
    }

    /// When the flow began, if it carried no request or carried its first one late.
    pub(super) fn begun_without_request(&self) -> Option<Duration> {
        let (_, begun) = self.syn?;
        let is_in_vain = self.first_head.is_none_or(|first| begun + HEAD_WITHIN < first);
        is_in_vain.then_some(begun)
    }

    /// Counts the requests that begin in this packet, which arrived at `at`.
    pub(super) fn count_heads(&mut self, packet: &Packet<'_>, at: Duration) -> usize {
        if packet.payload_length == 0 {
            return 0;
        }
        let is_old = self.next.is_some_and(|next| packet.sequence.wrapping_sub(next) >> 31 == 1);
        if is_old {
            return 0;
        }
        let length = u32::try_from(packet.payload_length).unwrap_or_default();
        self.next = Some(packet.sequence.wrapping_add(length));
        let heads = if packet.payload.starts_with(PREFACE) {
            (self.is_http2, self.frame_rest) = (true, 0);
            self.frames(&packet.payload[PREFACE.len()..], packet.payload_length - PREFACE.len())
        } else if self.is_http2 {
            self.frames(packet.payload, packet.payload_length)
        } else {
            usize::from(is_request_line(packet.payload))
        };
        if 0 < heads {
            self.first_head.get_or_insert(at);
        }
        heads
    }

    /// Counts the HEADERS frames that begin in `length` bytes, of which `seen` were captured.
    fn frames(&mut self, mut seen: &[u8], mut length: usize) -> usize {
        let mut heads = 0;
        loop {
            let rest = self.frame_rest.min(length);
            self.frame_rest -= rest;
            length -= rest;
            seen = seen.get(rest..).unwrap_or_default();
            // A frame header that is split between packets is not reassembled: clients write whole
            // frames, and the next packet begins with one.
            let Some(head) = seen.get(..FRAME_HEAD) else { return heads };
            heads += usize::from(head[3] == HEADERS);
            let size = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            self.frame_rest = FRAME_HEAD + size as usize;
        }
    }
}

fn is_request_line(payload: &[u8]) -> bool {
    payload.starts_with(b"GET ") || payload.starts_with(b"POST ")
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn packet(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let total = u16::try_from(40 + payload.len()).unwrap();
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 9, 0, 1];
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        bytes.extend([0x90, 0, 0x1f, 0x40]);
        bytes.extend(sequence.to_be_bytes());
        bytes.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        bytes.extend(payload);
        bytes
    }

    fn frame(kind: u8, size: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, size, kind, 0, 0, 0, 0, 1];
        bytes.extend(std::iter::repeat_n(HEADERS, size.into()));
        bytes
    }

    fn feed(flow: &mut Flow, bytes: &[u8], millis: u64) -> (Option<Duration>, usize) {
        let packet = Packet::parse(bytes).unwrap();
        let at = Duration::from_millis(millis);
        (flow.begin_if_syn(&packet, at), flow.count_heads(&packet, at))
    }

    #[test]
    fn a_packet_is_read_with_its_addresses_and_ports() {
        let bytes = packet(7, SYN, b"");

        let packet = Packet::parse(&bytes).unwrap();

        assert_eq!(packet.destination, Ipv4Addr::new(127, 9, 0, 1));
        assert_eq!((packet.destination_port, packet.payload_length), (8_000, 0));
        assert!(Packet::parse(&bytes[..30]).is_none());
    }

    #[test]
    fn each_request_line_counts_once_even_if_it_is_sent_again() {
        let mut flow = Flow::default();
        feed(&mut flow, &packet(9, SYN, b""), 0);
        assert_eq!(flow.begun_without_request(), Some(Duration::ZERO));

        let heads = [(10, "GET / HTTP/1.1"), (10, "GET / HTTP/1.1"), (24, "GET / HTTP/1.1")]
            .map(|(sequence, text)| feed(&mut flow, &packet(sequence, ACK, text.as_bytes()), 1).1);

        assert_eq!(heads, [1, 0, 1]);
        assert_eq!(flow.begun_without_request(), None);
    }

    #[test]
    fn a_connection_without_a_request_is_one_attempt_even_if_its_syn_is_repeated() {
        let mut flow = Flow::default();
        feed(&mut flow, &packet(9, SYN, b""), 1);
        assert_eq!(feed(&mut flow, &packet(9, SYN, b""), 1_000).0, None, "the same again");

        let before = feed(&mut flow, &packet(77, SYN, b""), 2_000).0;

        assert_eq!(before, Some(Duration::from_millis(1)));
        assert_eq!(flow.begun_without_request(), Some(Duration::from_millis(2_000)));
    }

    #[test]
    fn a_connection_whose_request_comes_after_100_ms_counts_as_an_attempt() {
        for (first_head, expected) in [(101, None), (102, Some(Duration::from_millis(1)))] {
            let mut flow = Flow::default();
            feed(&mut flow, &packet(9, SYN, b""), 1);

            let heads = feed(&mut flow, &packet(10, ACK, b"GET / HTTP/1.1"), first_head).1;

            assert_eq!((heads, flow.begun_without_request()), (1, expected));
        }
    }

    #[test]
    fn headers_frames_are_found_among_others_and_across_packets() {
        let mut flow = Flow::default();
        let mut first = PREFACE.to_vec();
        first.extend(frame(4, 6));
        first.extend(frame(HEADERS, 20));
        let (cut, rest) = first.split_at(first.len() - 5);
        let mut second = rest.to_vec();
        second.extend(frame(HEADERS, 3));
        second.extend(frame(6, 8));

        let sequence = 1 + u32::try_from(cut.len()).unwrap();
        let heads = [
            feed(&mut flow, &packet(1, ACK, cut), 0).1,
            feed(&mut flow, &packet(sequence, ACK, &second), 0).1,
        ];

        assert_eq!(heads, [1, 1]);
    }
}
