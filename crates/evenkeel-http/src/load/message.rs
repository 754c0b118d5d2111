//! The answer to a probe of load over gRPC, written by hand: it has two fields.
//!
//! `evenkeel.load.v1.LoadService/Probe` takes an empty message and gives
//! `Load { double in_flight = 1; double latency_seconds = 2; }`.

use std::time::Duration;

use evenkeel_core::{BoxError, load::ServerLoad};

/// The path of the method.
pub(crate) const PROBE: &str = "/evenkeel.load.v1.LoadService/Probe";

const DOUBLE_FIELD_1: u8 = 0x09;
const DOUBLE_FIELD_2: u8 = 0x11;

/// `load` as gRPC sends it: uncompressed, with its length.
pub(super) fn frame(load: ServerLoad) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 18, DOUBLE_FIELD_1];
    message.extend(f64::from(load.in_flight()).to_le_bytes());
    message.push(DOUBLE_FIELD_2);
    message.extend(load.latency().as_secs_f64().to_le_bytes());
    message
}

/// Reads the load from a message without its length. Unknown fields are skipped if they have a fixed
/// length.
pub(crate) fn read(mut message: &[u8]) -> Result<ServerLoad, BoxError> {
    let (mut in_flight, mut latency) = (0.0, 0.0);
    while let Some((&tag, rest)) = message.split_first() {
        let length = if tag & 7 == 5 { 4 } else { 8 };
        let (value, rest) =
            rest.split_at_checked(length).ok_or("the answer is no message of load")?;
        match (tag, <[u8; 8]>::try_from(value)) {
            (DOUBLE_FIELD_1, Ok(value)) => in_flight = f64::from_le_bytes(value),
            (DOUBLE_FIELD_2, Ok(value)) => latency = f64::from_le_bytes(value),
            _ if tag & 7 == 1 || tag & 7 == 5 => {}
            _ => return Err("the answer is no message of load".into()),
        }
        message = rest;
    }
    // The maximum: an invalid latency must not attract traffic.
    let latency = Duration::try_from_secs_f64(latency).unwrap_or(Duration::MAX);
    Ok(ServerLoad::new(in_flight, latency))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Load {
        #[prost(double, tag = "1")]
        in_flight: f64,
        #[prost(double, tag = "2")]
        latency_seconds: f64,
        #[prost(fixed32, tag = "3")]
        later: u32,
    }

    #[test]
    fn messages_are_those_of_prost() {
        let load = ServerLoad::new(7.0, Duration::from_millis(250));
        let frame = frame(load);
        let message = Load::decode(&frame[5..]).unwrap();
        assert_eq!((message.in_flight, message.latency_seconds), (7.0, 0.25));
        let message = Load { later: 3, ..message };
        assert_eq!(read(&message.encode_to_vec()).unwrap(), load);
        assert_eq!(read(&[]).unwrap(), ServerLoad::new(0.0, Duration::ZERO));
    }

    #[test]
    fn nonsense_is_an_error_and_never_a_panic() {
        let mut rng = evenkeel_core::rng::Rng::with_seed(1);
        for _ in 0..50_000 {
            let bytes: Vec<u8> = (0..rng.below(24)).map(|_| rng.below(256) as u8).collect();
            _ = read(&bytes);
        }
        assert!(read(&[0x08, 1]).is_err());
        assert!(read(&[0x09, 1]).is_err());
        let message = Load { in_flight: f64::NAN, latency_seconds: -1.0, later: 0 };
        let load = read(&message.encode_to_vec()).unwrap();
        assert_eq!((load.in_flight(), load.latency()), (ServerLoad::MAX_IN_FLIGHT, Duration::MAX));
    }
}
