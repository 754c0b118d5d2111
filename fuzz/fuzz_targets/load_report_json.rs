//! No bytes make the parser of reports in this form panic, and what it takes can be used and written.

#![no_main]

use evenkeel_http::ReportForm;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = ReportForm::Json.read(bytes) {
        _ = report.weight(1.0);
        let (_, header) = ReportForm::Json.header(&report);
        let written = header.as_bytes().strip_prefix(b"JSON ");
        assert!(written.is_none_or(|written| ReportForm::Json.read(written).is_ok()));
    }
});
