//! Reports as text: `TEXT cpu_utilization=0.4,rps_fractional=120`.

use std::{fmt::Write, time::Duration};

use evenkeel_core::{
    load::{LoadReport, ServerLoad},
    number::decimal,
};

use super::invalid::{InvalidReport, MAX_METRICS};

/// The named metrics in which a report carries the answer that a probe would get.
pub(super) const IN_FLIGHT: &str = "evenkeel.in_flight";
pub(super) const LATENCY: &str = "evenkeel.latency";

const NAMED: &str = "named_metrics.";
const UTILIZATION: &str = "utilization.";
const COST: &str = "request_cost.";

/// Reads `name=value` or `name:value`, separated by commas: versions of Envoy use one or the other.
///
/// Unknown names are skipped. A value that is not a JSON number makes the whole report invalid, and so does a
/// name that comes twice, since half of a report misleads.
pub(super) fn read(text: &str) -> Result<LoadReport, InvalidReport> {
    let mut report = LoadReport::default();
    let mut load = Carried::default();
    let mut seen = [false; 5];
    for (count, entry) in text.split(',').enumerate() {
        if MAX_METRICS <= count {
            return Err(InvalidReport::new("it has too many metrics"));
        }
        let pair = entry.trim().split_once(['=', ':']);
        let (name, value) = pair.ok_or(InvalidReport::new("a metric has no value"))?;
        let value = decimal(value.trim()).ok_or(InvalidReport::new("a value is no number"))?;
        let (place, field) = match name.trim() {
            "cpu_utilization" | "cpu" => (0, &mut report.cpu_utilization),
            "mem_utilization" | "mem" => (1, &mut report.memory_utilization),
            "application_utilization" => (2, &mut report.application_utilization),
            "rps_fractional" => (3, &mut report.requests_per_second),
            "eps" => (4, &mut report.errors_per_second),
            name => {
                if is_named_twice(&mut report, &mut load, name, value) {
                    return Err(InvalidReport::new("a metric comes twice"));
                }
                continue;
            }
        };
        if std::mem::replace(&mut seen[place], true) {
            return Err(InvalidReport::new("a metric comes twice"));
        }
        *field = value;
    }
    report.server_load = load.get();
    Ok(report)
}

fn is_named_twice(report: &mut LoadReport, load: &mut Carried, name: &str, value: f64) -> bool {
    let (map, name) = if let Some(name) = name.strip_prefix(NAMED) {
        if let Some(place) = load.place(name) {
            return place.replace(value).is_some();
        }
        (&mut report.named_metrics, name)
    } else if let Some(name) = name.strip_prefix(UTILIZATION) {
        (&mut report.utilization, name)
    } else if let Some(name) = name.strip_prefix(COST) {
        (&mut report.request_cost, name)
    } else {
        return false;
    };
    map.insert(name.to_owned(), value).is_some()
}

/// The part of a report that carries the answer to a probe.
#[derive(Default)]
pub(super) struct Carried {
    in_flight: Option<f64>,
    latency: Option<f64>,
}

impl Carried {
    /// The place for the metric of this name, if it is one of these.
    pub(super) fn place(&mut self, name: &str) -> Option<&mut Option<f64>> {
        match name {
            IN_FLIGHT => Some(&mut self.in_flight),
            LATENCY => Some(&mut self.latency),
            _ => None,
        }
    }

    pub(super) fn get(&self) -> Option<ServerLoad> {
        let latency = self.latency.unwrap_or(0.0);
        // A value that is too long for a duration counts as the maximum. So does one that is negative
        // or not a number, so that it attracts no traffic.
        let latency = Duration::try_from_secs_f64(latency).unwrap_or(Duration::MAX);
        self.in_flight.map(|in_flight| ServerLoad::new(in_flight, latency))
    }
}

/// Writes values that are not zero. It leaves out values that are not finite, and names that would be
/// read as another.
pub(super) fn write(report: &LoadReport) -> String {
    let mut text = String::from("TEXT ");
    let mut put = |prefix: &str, name: &str, value: f64| {
        let is_plain = name.bytes().all(|b| b.is_ascii_graphic() && !b",=:".contains(&b));
        if value.is_finite() && is_plain && !name.is_empty() {
            let comma = if text.len() == "TEXT ".len() { "" } else { "," };
            _ = write!(text, "{comma}{prefix}{name}={value}");
        }
    };
    let fields = [
        ("cpu_utilization", report.cpu_utilization),
        ("mem_utilization", report.memory_utilization),
        ("application_utilization", report.application_utilization),
        ("rps_fractional", report.requests_per_second),
        ("eps", report.errors_per_second),
    ];
    for (name, value) in fields {
        if value != 0.0 {
            put("", name, value);
        }
    }
    if let Some(load) = report.server_load {
        put(NAMED, IN_FLIGHT, load.in_flight().into());
        put(NAMED, LATENCY, load.latency().as_secs_f64());
    }
    let maps = [
        (COST, &report.request_cost),
        (UTILIZATION, &report.utilization),
        (NAMED, &report.named_metrics),
    ];
    for (prefix, map) in maps {
        map.iter().for_each(|(name, &value)| put(prefix, name, value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_and_short_names_are_read() {
        let report = read("cpu=0.3, mem : 0.8,rps_fractional=12.5,eps=1,named_metrics.queue=7,x=1");
        let report = report.unwrap();
        assert_eq!((report.cpu_utilization, report.memory_utilization), (0.3, 0.8));
        assert_eq!((report.requests_per_second, report.errors_per_second), (12.5, 1.0));
        assert_eq!(report.named_metrics["queue"], 7.0);
        assert_eq!(report.server_load, None);
    }

    #[test]
    fn what_was_written_is_read_again() {
        let mut report = LoadReport { cpu_utilization: 0.25, ..LoadReport::default() };
        report.server_load = Some(ServerLoad::new(7.0, Duration::from_millis(12)));
        report.named_metrics.insert("queue".into(), 3.5);
        report.utilization.insert("disk".into(), 0.5);
        report.request_cost.insert("rows".into(), -2.0);
        let text = write(&report);
        assert_eq!(read(text.strip_prefix("TEXT ").unwrap()), Ok(report));
    }

    #[test]
    fn a_report_with_an_invalid_part_is_refused_as_a_whole() {
        for text in
            ["", ",", "cpu", "cpu=", "cpu=x", "cpu=NaN", "cpu=inf", "cpu=+1", "cpu=.5", "cpu=1e999"]
        {
            assert!(read(text).is_err(), "{text}");
        }
        for text in ["eps=1,eps=2", "named_metrics.a=1,named_metrics.a=1"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&"x=1,".repeat(MAX_METRICS + 1)).is_err());
    }

    #[test]
    fn a_negative_latency_is_read_as_the_longest_one() {
        let report = read("named_metrics.evenkeel.in_flight=1,named_metrics.evenkeel.latency=-1");
        let load = report.unwrap().server_load.unwrap();
        assert_eq!(load.latency(), Duration::MAX);
    }
}
