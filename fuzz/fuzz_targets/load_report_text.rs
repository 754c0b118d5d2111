//! No bytes make the parser of reports in this form panic, and what it takes can be used and written.

#![no_main]

use evenkeel_http::ReportForm;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = ReportForm::Text.read(bytes) {
        _ = report.weight(1.0);
        let (_, header) = ReportForm::Text.header(&report);
        let written = &header.as_bytes()["TEXT ".len()..];
        assert!(written.is_empty() || ReportForm::Text.read(written).is_ok());
    }
});
