//! No bytes make the parser of reports in this form panic, and what it takes can be used and written.

#![no_main]

use evenkeel_http::ReportForm;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = ReportForm::Binary.read(bytes) {
        _ = report.weight(1.0);
        // Numbers may be anything: a weight that follows from them is none or finite.
        assert!(report.weight(1.0).is_none_or(|weight| weight.is_finite() && 0.0 < weight));
    }
});
