//! The forms in which a report travels, and the headers.

use evenkeel_core::load::LoadReport;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{invalid::InvalidReport, text};

/// ORCA's header, with a report in any form.
pub(super) const REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// The header with a report in binary form: gRPC's.
#[cfg(feature = "orca")]
pub(super) const REPORT_BIN: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// The header with a report as JSON, of older versions of Envoy.
#[cfg(feature = "orca")]
pub(super) const REPORT_JSON: HeaderName = HeaderName::from_static("endpoint-load-metrics-json");

/// The most bytes of a header that are read.
const MAX_HEADER: usize = 8 << 10;

/// The form of a report in a response.
///
/// | form | header | read by |
/// |---|---|---|
/// | `Text` | `endpoint-load-metrics: TEXT cpu_utilization=0.4,...` | Envoy, evenkeel |
/// | `Json` | `endpoint-load-metrics: JSON {"cpu_utilization":0.4,...}` | Envoy, evenkeel |
/// | `Binary` | `endpoint-load-metrics-bin`, of gRPC responses in the trailers | gRPC, Envoy, evenkeel |
///
/// The answer that a probe would get is included as the named metrics `evenkeel.in_flight` and
/// `evenkeel.latency`, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReportForm {
    /// `name=value`, separated by commas.
    Text,
    /// ProtoJSON.
    #[cfg(feature = "orca")]
    Json,
    /// A protocol buffer.
    #[cfg(feature = "orca")]
    Binary,
}

impl ReportForm {
    /// Reads a report from the part of a header after `TEXT ` or `JSON `, or from a message.
    ///
    /// # Errors
    /// If the bytes are not such a report.
    pub fn read(self, bytes: &[u8]) -> Result<LoadReport, InvalidReport> {
        match self {
            Self::Text => {
                let text = std::str::from_utf8(bytes);
                text::read(text.map_err(|_| InvalidReport::new("it is no text"))?)
            }
            #[cfg(feature = "orca")]
            Self::Json => super::json::read(bytes),
            #[cfg(feature = "orca")]
            Self::Binary => super::binary::read(bytes),
        }
    }

    /// The header that carries `report`.
    ///
    /// Numbers that are not finite are left out of text and JSON, which cannot express them.
    #[must_use]
    pub fn header(self, report: &LoadReport) -> (HeaderName, HeaderValue) {
        let (name, text) = match self {
            Self::Text => (REPORT, text::write(report)),
            #[cfg(feature = "orca")]
            Self::Json => (REPORT, format!("JSON {}", super::json::write(report))),
            #[cfg(feature = "orca")]
            Self::Binary => (REPORT_BIN, super::binary::write_base64(report)),
        };
        // In JSON a metric may have any name. If it is not valid in a header, the report is not sent.
        let value = HeaderValue::try_from(text);
        (name, value.unwrap_or(HeaderValue::from_static("TEXT ")))
    }
}

/// The report in these headers or trailers, as text: the answer to evenkeel's probes.
pub(crate) fn read_text(headers: &HeaderMap) -> Option<LoadReport> {
    let value = headers.get(REPORT)?.as_bytes();
    let value = value.strip_prefix(b"TEXT ").unwrap_or(value);
    ReportForm::Text.read(value.get(..MAX_HEADER).map_or(value, |_| b"")).ok()
}

/// The report in these headers or trailers, in any form; `None` if there is none or it is invalid.
#[cfg(feature = "orca")]
pub(crate) fn read_any(headers: &HeaderMap) -> Option<LoadReport> {
    let fits = |value: &HeaderValue| value.len() < MAX_HEADER;
    if let Some(value) = headers.get(REPORT_BIN) {
        return fits(value).then(|| super::binary::read_base64(value.as_bytes()).ok())?;
    }
    if let Some(value) = headers.get(REPORT_JSON) {
        return fits(value).then(|| ReportForm::Json.read(value.as_bytes()).ok())?;
    }
    let value = headers.get(REPORT).filter(|value| fits(value))?.as_bytes();
    let read = if let Some(json) = value.strip_prefix(b"JSON ") {
        ReportForm::Json.read(json)
    } else if let Some(binary) = value.strip_prefix(b"BIN ") {
        super::binary::read_base64(binary)
    } else {
        ReportForm::Text.read(value.strip_prefix(b"TEXT ").unwrap_or(value))
    };
    read.ok()
}
