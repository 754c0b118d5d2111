//! Reports as ProtoJSON.

use std::collections::BTreeMap;

use evenkeel_core::{load::LoadReport, number::decimal};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    binary::{carried, carrying},
    invalid::{InvalidReport, MAX_METRICS},
};

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Report {
    #[serde(alias = "cpuUtilization", skip_serializing_if = "Number::is_zero")]
    cpu_utilization: Number,
    #[serde(alias = "memUtilization", skip_serializing_if = "Number::is_zero")]
    mem_utilization: Number,
    #[serde(alias = "applicationUtilization", skip_serializing_if = "Number::is_zero")]
    application_utilization: Number,
    #[serde(alias = "rpsFractional", skip_serializing_if = "Number::is_zero")]
    rps_fractional: Number,
    #[serde(skip_serializing)]
    rps: Number,
    #[serde(skip_serializing_if = "Number::is_zero")]
    eps: Number,
    #[serde(alias = "requestCost", skip_serializing_if = "BTreeMap::is_empty")]
    request_cost: BTreeMap<String, Number>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    utilization: BTreeMap<String, Number>,
    #[serde(alias = "namedMetrics", skip_serializing_if = "BTreeMap::is_empty")]
    named_metrics: BTreeMap<String, Number>,
}

/// A finite number, which may be in quotation marks in ProtoJSON.
#[derive(Clone, Copy, Default, Serialize)]
#[serde(transparent)]
struct Number(f64);

impl Number {
    fn is_zero(&self) -> bool {
        self.0 == 0.0
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Text(String),
        }
        let number = match Written::deserialize(deserializer)? {
            Written::Number(number) => Some(number),
            Written::Text(text) => decimal(&text),
        };
        let number = number.filter(|number: &f64| number.is_finite());
        number.map(Self).ok_or_else(|| serde::de::Error::custom("no finite number"))
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<LoadReport, InvalidReport> {
    // serde would also accept a list of the fields.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(InvalidReport::new("it is no JSON object"));
    }
    let report: Report = serde_json::from_slice(bytes)
        .map_err(|_| InvalidReport::new("it is no JSON of such a report"))?;
    let count = report.named_metrics.len() + report.utilization.len() + report.request_cost.len();
    if MAX_METRICS < count {
        return Err(InvalidReport::new("it has too many metrics"));
    }
    let rps = if report.rps_fractional.is_zero() { report.rps } else { report.rps_fractional };
    let plain = |map: BTreeMap<String, Number>| -> BTreeMap<String, f64> {
        map.into_iter().map(|(name, Number(value))| (name, value)).collect()
    };
    let mut named_metrics = plain(report.named_metrics);
    Ok(LoadReport {
        cpu_utilization: report.cpu_utilization.0,
        memory_utilization: report.mem_utilization.0,
        application_utilization: report.application_utilization.0,
        requests_per_second: rps.0,
        errors_per_second: report.eps.0,
        server_load: carried(&mut named_metrics).get(),
        request_cost: plain(report.request_cost),
        utilization: plain(report.utilization),
        named_metrics,
    })
}

pub(super) fn write(report: &LoadReport) -> String {
    let number = |value: f64| Number(if value.is_finite() { value } else { 0.0 });
    let finite = |map: BTreeMap<String, f64>| -> BTreeMap<String, Number> {
        let finite = map.into_iter().filter(|(_, value)| value.is_finite());
        finite.map(|(name, value)| (name, Number(value))).collect()
    };
    let report = Report {
        cpu_utilization: number(report.cpu_utilization),
        mem_utilization: number(report.memory_utilization),
        application_utilization: number(report.application_utilization),
        rps_fractional: number(report.requests_per_second),
        rps: Number(0.0),
        eps: number(report.errors_per_second),
        request_cost: finite(report.request_cost.clone()),
        utilization: finite(report.utilization.clone()),
        named_metrics: finite(carrying(report)),
    };
    serde_json::to_string(&report).expect("numbers and text are JSON")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use evenkeel_core::load::ServerLoad;

    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let mut report = LoadReport { cpu_utilization: 0.25, ..LoadReport::default() };
        report.requests_per_second = 1.5;
        report.server_load = Some(ServerLoad::new(7.0, Duration::from_millis(12)));
        report.named_metrics.insert("queue".into(), 3.5);
        report.request_cost.insert("rows".into(), 2.0);
        assert_eq!(read(write(&report).as_bytes()), Ok(report));
    }

    #[test]
    fn names_of_both_kinds_and_quoted_numbers_are_read() {
        let json = br#"{"cpuUtilization":"0.5","rps":"7","namedMetrics":{"q":3},"unknown":[1]}"#;
        let report = read(json).unwrap();
        assert_eq!((report.cpu_utilization, report.requests_per_second), (0.5, 7.0));
        assert_eq!(report.named_metrics["q"], 3.0);
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        for json in [
            "",
            "[]",
            "1",
            r#"{"eps":"NaN"}"#,
            r#"{"eps":"+1"}"#,
            r#"{"eps":1e999}"#,
            r#"{"eps":[]}"#,
        ] {
            assert!(read(json.as_bytes()).is_err(), "{json}");
        }
        let not_finite = LoadReport { errors_per_second: f64::NAN, ..LoadReport::default() };
        assert_eq!(write(&not_finite), "{}");
    }
}
