//! The messages of gRPC's health service, written by hand: they have one field each.
//!
//! `grpc.health.v1`: `HealthCheckRequest { string service = 1; }` and
//! `HealthCheckResponse { ServingStatus status = 1; }`.

use evenkeel_core::{BoxError, health::check::NotServing};

/// An answer is two bytes long. It is longer only if the service has new fields.
pub(super) const MAX_MESSAGE: usize = 4 << 10;

const LENGTH_DELIMITED_FIELD_1: u8 = 0x0A;
const SERVING: u64 = 1;

/// The request for the health of `service`, as gRPC sends it: uncompressed, with its length.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(LENGTH_DELIMITED_FIELD_1);
        put_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).expect("a name of less than 4 GiB");
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

/// Takes the first message from the bytes that have arrived; `None` while it is not complete.
///
/// # Errors
/// If it is compressed, or longer than `max`.
pub(crate) fn take(arrived: &mut Vec<u8>, max: usize) -> Result<Option<Vec<u8>>, BoxError> {
    let Some((head, rest)) = arrived.split_first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 {
        return Err("the answer is compressed, which was not asked for".into());
    }
    if max < length {
        return Err(format!("an answer of {length} bytes").into());
    }
    let Some(message) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
    arrived.drain(..head.len() + length);
    Ok(Some(message))
}

/// Reads the health of the service from a response.
///
/// # Errors
/// [`NotServing`] if it is not serving, another error if the message cannot be read.
pub(super) fn health(message: &[u8]) -> Result<(), BoxError> {
    match status(message).ok_or("the answer is no health response")? {
        SERVING => Ok(()),
        2 => Err(NotServing::new("NOT_SERVING").into()),
        3 => Err(NotServing::new("SERVICE_UNKNOWN").into()),
        other => Err(NotServing::new(format!("serving status {other}")).into()),
    }
}

/// The last field 1 of the message, or 0 if there is none. Other fields are skipped.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = take_varint(&mut message)?,
            (_, 0) => _ = take_varint(&mut message)?,
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while 0x7F < value {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use evenkeel_core::error::cause;
    use prost::Message;

    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Request {
        #[prost(string, tag = "1")]
        service: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Response {
        #[prost(int32, tag = "1")]
        status: i32,
        #[prost(string, tag = "2")]
        text: String,
        #[prost(fixed64, tag = "3")]
        wide: u64,
        #[prost(fixed32, tag = "4")]
        narrow: u32,
        #[prost(uint64, tag = "100")]
        far: u64,
    }

    #[test]
    fn requests_are_those_that_prost_writes() {
        for service in ["", "a", "orders.v1.Orders", &"x".repeat(300)] {
            let expected = Request { service: service.to_owned() }.encode_to_vec();
            let mut sent = request(service);
            assert_eq!(take(&mut sent, MAX_MESSAGE).unwrap().unwrap(), expected);
            assert!(sent.is_empty());
        }
    }

    #[test]
    fn responses_of_prost_are_read_whatever_else_is_in_them() {
        for status in [0, 1, 2, 3, 7, -1] {
            for (text, far) in [("", 0), ("why", u64::MAX)] {
                let (wide, narrow) = (far, far as u32);
                let message = Response { status, text: text.to_owned(), wide, narrow, far };
                let found = health(&message.encode_to_vec());
                assert_eq!(found.is_ok(), status == 1, "{status}");
                let is_denied = |error: BoxError| cause::<NotServing>(&*error).is_some();
                assert!(found.map_or_else(is_denied, |()| true));
            }
        }
    }

    #[test]
    fn what_arrives_in_pieces_is_put_together() {
        let whole = request("orders");
        for cut in 0..whole.len() {
            let mut arrived = whole[..cut].to_vec();
            assert_eq!(take(&mut arrived, MAX_MESSAGE).unwrap(), None);
            assert_eq!(arrived.len(), cut);
        }
        let mut two = [whole.clone(), whole].concat();
        assert!(take(&mut two, MAX_MESSAGE).unwrap().is_some());
        assert!(take(&mut two, MAX_MESSAGE).unwrap().is_some());
        assert_eq!(take(&mut two, MAX_MESSAGE).unwrap(), None);
    }

    #[test]
    fn nonsense_is_an_error_and_never_a_panic() {
        assert!(take(&mut vec![1, 0, 0, 0, 0], MAX_MESSAGE).is_err());
        assert!(take(&mut vec![0, 0xFF, 0xFF, 0xFF, 0xFF], MAX_MESSAGE).is_err());
        let mut rng = evenkeel_core::rng::Rng::with_seed(1);
        for _ in 0..100_000 {
            let mut bytes: Vec<u8> = (0..rng.below(24)).map(|_| rng.below(256) as u8).collect();
            _ = health(&bytes);
            _ = take(&mut bytes, MAX_MESSAGE);
        }
        assert!(health(&[0x08]).is_err());
        assert!(health(&[0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]).is_err());
    }
}
