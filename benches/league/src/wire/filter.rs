//! A kernel filter that passes only packets to the endpoints' ports to the watcher.
//!
//! Without it, every packet on the machine would be copied, including answers, and packets would be
//! lost under load.

use socket2::SockFilter;

use crate::scene::ENDPOINTS;

/// Instructions of the classic Berkeley Packet Filter.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_AFTER_HEADER: u16 = 0x48;
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const RETURN: u16 = 0x06;

/// Offsets in an IPv4 header, and in the TCP header after it.
const DESTINATION: u32 = 16;
const DESTINATION_PORT: u32 = 2;

/// Passes packets to `port` of 127.base.*.1 to 5, cut to this many bytes.
pub(super) fn requests(base: u8, port: u16, bytes: u32) -> [SockFilter; 11] {
    let highest = u32::try_from(ENDPOINTS).expect("a handful");
    // Jumps give the number of instructions to skip. All of them lead to the last one.
    [
        SockFilter::new(LOAD_BYTE, 0, 0, DESTINATION),
        SockFilter::new(IF_EQUAL, 0, 8, 127),
        SockFilter::new(LOAD_BYTE, 0, 0, DESTINATION + 1),
        SockFilter::new(IF_EQUAL, 0, 6, base.into()),
        SockFilter::new(LOAD_BYTE, 0, 0, DESTINATION + 3),
        SockFilter::new(IF_GREATER, 4, 0, highest),
        SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 0),
        SockFilter::new(LOAD_HALF_AFTER_HEADER, 0, 0, DESTINATION_PORT),
        SockFilter::new(IF_EQUAL, 0, 1, port.into()),
        SockFilter::new(RETURN, 0, 0, bytes),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
