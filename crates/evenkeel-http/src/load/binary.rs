//! Reports as protocol buffers.

use std::collections::BTreeMap;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use evenkeel_core::load::LoadReport;
use prost::Message;

use super::{
    invalid::{InvalidReport, MAX_METRICS},
    proto::OrcaLoadReport,
    text::{Carried, IN_FLIGHT, LATENCY},
};

/// Writes without padding, as gRPC does, and reads both, since others write it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads a message. Numbers are not checked.
pub(super) fn read(bytes: &[u8]) -> Result<LoadReport, InvalidReport> {
    let message = OrcaLoadReport::decode(bytes);
    let message = message.map_err(|_| InvalidReport::new("it is no such message"))?;
    from_message(message)
}

pub(super) fn from_message(message: OrcaLoadReport) -> Result<LoadReport, InvalidReport> {
    let mut named_metrics = message.named_metrics;
    let count = named_metrics.len() + message.utilization.len() + message.request_cost.len();
    if MAX_METRICS < count {
        return Err(InvalidReport::new("it has too many metrics"));
    }
    // Older servers send only the integer.
    let rps = message.rps_fractional;
    let rps = if rps == 0.0 { message.rps as f64 } else { rps };
    Ok(LoadReport {
        cpu_utilization: message.cpu_utilization,
        memory_utilization: message.mem_utilization,
        application_utilization: message.application_utilization,
        requests_per_second: rps,
        errors_per_second: message.eps,
        server_load: carried(&mut named_metrics).get(),
        request_cost: message.request_cost,
        utilization: message.utilization,
        named_metrics,
    })
}

/// Removes from the metrics those that carry a probe's answer.
pub(super) fn carried(named_metrics: &mut BTreeMap<String, f64>) -> Carried {
    let mut carried = Carried::default();
    for name in [IN_FLIGHT, LATENCY] {
        let value = named_metrics.remove(name);
        if let Some(place) = carried.place(name) {
            *place = value;
        }
    }
    carried
}

/// The named metrics, including those that carry a probe's answer.
pub(super) fn carrying(report: &LoadReport) -> BTreeMap<String, f64> {
    let mut named_metrics = report.named_metrics.clone();
    if let Some(load) = report.server_load {
        named_metrics.insert(IN_FLIGHT.into(), load.in_flight().into());
        named_metrics.insert(LATENCY.into(), load.latency().as_secs_f64());
    }
    named_metrics
}

pub(super) fn message(report: &LoadReport) -> OrcaLoadReport {
    OrcaLoadReport {
        cpu_utilization: report.cpu_utilization,
        mem_utilization: report.memory_utilization,
        rps: 0,
        request_cost: report.request_cost.clone(),
        utilization: report.utilization.clone(),
        rps_fractional: report.requests_per_second,
        eps: report.errors_per_second,
        named_metrics: carrying(report),
        application_utilization: report.application_utilization,
    }
}

pub(super) fn read_base64(text: &[u8]) -> Result<LoadReport, InvalidReport> {
    let bytes = BASE64.decode(text);
    read(&bytes.map_err(|_| InvalidReport::new("it is no base64"))?)
}

pub(super) fn write_base64(report: &LoadReport) -> String {
    BASE64.encode(message(report).encode_to_vec())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use evenkeel_core::load::ServerLoad;

    use super::*;

    #[test]
    fn what_was_written_is_read_again_with_and_without_padding() {
        let mut report = LoadReport { cpu_utilization: 0.25, ..LoadReport::default() };
        report.errors_per_second = 1.5;
        report.server_load = Some(ServerLoad::new(7.0, Duration::from_millis(12)));
        report.named_metrics.insert("queue".into(), 3.5);
        let text = write_base64(&report);
        assert!(!text.ends_with('='));
        let padded = format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4));
        for text in [text, padded] {
            assert_eq!(read_base64(text.as_bytes()).as_ref(), Ok(&report));
        }
    }

    /// The bytes of other implementations: fields 1 and 6, doubles.
    #[test]
    fn fields_have_the_numbers_of_orca() {
        let mut bytes = vec![0x09];
        bytes.extend(0.5_f64.to_le_bytes());
        bytes.push(0x31);
        bytes.extend(20.0_f64.to_le_bytes());
        bytes.extend([0x18, 7]);
        let report = read(&bytes).unwrap();
        assert_eq!((report.cpu_utilization, report.requests_per_second), (0.5, 20.0));
        assert_eq!(read(&[0x18, 7]).unwrap().requests_per_second, 7.0);
    }

    #[test]
    fn nonsense_is_an_error_and_never_a_panic() {
        let mut rng = evenkeel_core::rng::Rng::with_seed(1);
        for _ in 0..50_000 {
            let bytes: Vec<u8> = (0..rng.below(40)).map(|_| rng.below(256) as u8).collect();
            _ = read(&bytes);
            _ = read_base64(&bytes);
        }
        assert!(read(&[0x09, 1]).is_err());
        assert!(read_base64(b"%%%").is_err());
    }
}
