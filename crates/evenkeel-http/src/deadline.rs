//! How requests carry their deadline.

use std::time::Duration;

use evenkeel_core::{
    deadline::{CallDeadline, CarryDeadline},
    number,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use crate::{classify::is_grpc, delay};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// Carries deadlines in HTTP requests, for a deadline layer on either side.
///
/// Within a process the request's extension [`CallDeadline`] says when the caller gives up. Retries and hedges
/// read it there. Between processes a header says how much time is left when the attempt is made:
/// `grpc-timeout` for a gRPC request, else `x-envoy-expected-rq-timeout-ms`, which Envoy also sets. So a
/// timeout that a tonic client sets with `Request::set_timeout` is respected as well.
///
/// On the server's side the caller's deadline applies, up to the time that the layer grants.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{deadline::{CarryDeadline, CallDeadline}, time::Timestamp};
/// use evenkeel::http::HttpDeadline;
///
/// let mut request = http::Request::new(());
/// let deadline = CallDeadline(Timestamp::from_nanos(1_000));
/// HttpDeadline.carry(&mut request, deadline, Duration::from_millis(250));
///
/// assert_eq!(request.headers()["x-envoy-expected-rq-timeout-ms"], "250");
/// assert_eq!(HttpDeadline.given(&request), Some(Duration::from_millis(250)));
/// assert_eq!(HttpDeadline.deadline(&request), Some(deadline));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpDeadline;

impl<B> CarryDeadline<Request<B>> for HttpDeadline {
    fn deadline(&self, request: &Request<B>) -> Option<CallDeadline> {
        request.extensions().get::<CallDeadline>().copied()
    }

    fn given(&self, request: &Request<B>) -> Option<Duration> {
        let headers = request.headers();
        match headers.get(GRPC_TIMEOUT) {
            Some(timeout) => parse_grpc(timeout),
            None => delay::number(headers, &TIMEOUT_MS).map(Duration::from_millis),
        }
    }

    fn carry(&self, request: &mut Request<B>, deadline: CallDeadline, remaining: Duration) {
        request.extensions_mut().insert(deadline);
        set_remaining(request.headers_mut(), remaining);
    }
}

/// Sets the header that says how much time is left.
pub(crate) fn set_remaining(headers: &mut HeaderMap, remaining: Duration) {
    if is_grpc(headers) {
        headers.insert(GRPC_TIMEOUT, format_grpc(remaining));
    } else {
        let milliseconds = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
        headers.insert(TIMEOUT_MS, HeaderValue::from(milliseconds));
    }
}

/// The units of gRPC over HTTP/2, in nanoseconds, the finest first.
const UNITS: [(char, u128); 6] = [
    ('n', 1),
    ('u', 1_000),
    ('m', 1_000_000),
    ('S', 1_000_000_000),
    ('M', 60_000_000_000),
    ('H', 3_600_000_000_000),
];

/// At most eight digits, in the finest unit that fits.
fn format_grpc(timeout: Duration) -> HeaderValue {
    let nanos = timeout.as_nanos();
    let fits = |(_, unit): &&(char, u128)| nanos / unit < 100_000_000;
    let text = match UNITS.iter().find(fits) {
        Some((name, unit)) => format!("{}{name}", nanos / unit),
        None => "99999999H".to_owned(),
    };
    HeaderValue::try_from(text).expect("digits and a letter")
}

fn parse_grpc(timeout: &HeaderValue) -> Option<Duration> {
    let text = timeout.to_str().ok()?;
    let (digits, name) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let (_, unit) = UNITS.iter().find(|(unit, _)| name.chars().eq([*unit]))?;
    let amount: u64 = number::digits(digits).filter(|_| digits.len() <= 8)?;
    let nanos = u128::from(amount) * unit;
    let subsecond = u32::try_from(nanos % 1_000_000_000).ok()?;
    Some(Duration::new(u64::try_from(nanos / 1_000_000_000).ok()?, subsecond))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_written_in_the_finest_unit_that_fits() {
        for (timeout, text) in [
            (Duration::ZERO, "0n"),
            (Duration::from_millis(99), "99000000n"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_secs(30), "30000000u"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(1_000_000), "1000000S"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(format_grpc(timeout), text);
        }
    }

    #[test]
    fn milliseconds_are_digits() {
        for (text, expected) in [("250", Some(250)), ("+250", None), ("-1", None), ("2.5", None)] {
            let request = Request::get("/").header(TIMEOUT_MS, text).body(()).unwrap();
            assert_eq!(HttpDeadline.given(&request), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn grpc_timeouts_are_read_in_any_unit_and_nonsense_is_not() {
        let parse = |text: &'static str| parse_grpc(&HeaderValue::from_static(text));
        assert_eq!(parse("1H"), Some(Duration::from_secs(3_600)));
        assert_eq!(parse("2M"), Some(Duration::from_secs(120)));
        assert_eq!(parse("3S"), Some(Duration::from_secs(3)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("7u"), Some(Duration::from_micros(7)));
        assert_eq!(parse("9n"), Some(Duration::from_nanos(9)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for nonsense in ["", "S", "1", "-1S", "+1S", "1.5S", "100000000S", "1s", "1 S"] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }
}
