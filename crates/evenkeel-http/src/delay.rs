//! For how long a server asks not to be asked again.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// `Retry-After`, else `RateLimit-Reset`.
pub(crate) fn asked_for(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers).or_else(|| seconds(headers, &RATE_LIMIT_RESET))
}

/// `Retry-After`: seconds, or a date.
///
/// A date counts from the response's own `Date`, so that it matters to nobody whose clock is right.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let date = |name| httpdate::parse_http_date(headers.get(name)?.to_str().ok()?.trim()).ok();
    seconds(headers, &header::RETRY_AFTER).or_else(|| {
        let until = date(header::RETRY_AFTER)?;
        let now = date(header::DATE)?;
        Some(until.duration_since(now).unwrap_or_default())
    })
}

/// `grpc-retry-pushback-ms`: a delay, or nothing inside if the server wants no other attempt.
///
/// That is what a negative or unreadable one means (gRFC A6).
pub(crate) fn pushback(trailers: &HeaderMap) -> Option<Option<Duration>> {
    let pushback = trailers.get(PUSHBACK)?;
    // gRPC's is a 32-bit number, with a sign.
    let milliseconds = pushback.to_str().ok().and_then(|text| text.parse::<i32>().ok());
    let delay = milliseconds.and_then(|milliseconds| u64::try_from(milliseconds).ok());
    Some(delay.map(Duration::from_millis))
}

/// Says in `Retry-After` after how many seconds it is worth trying again, at least one.
pub(crate) fn set_retry_after(headers: &mut HeaderMap, after: Duration) {
    let seconds = after.as_secs() + u64::from(0 < after.subsec_nanos());
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
}

/// Says the same in `grpc-retry-pushback-ms`.
pub(crate) fn set_pushback(headers: &mut HeaderMap, after: Duration) {
    let milliseconds = i32::try_from(after.as_millis()).unwrap_or(i32::MAX);
    headers.insert(PUSHBACK, HeaderValue::from(milliseconds));
}

fn seconds(headers: &HeaderMap, name: &HeaderName) -> Option<Duration> {
    let seconds = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&'static str, &'static str)]) -> Option<Duration> {
        let pairs = headers.iter().map(|(name, value)| {
            (HeaderName::from_static(name), http::HeaderValue::from_static(value))
        });
        asked_for(&pairs.collect())
    }

    #[test]
    fn a_delay_is_read_in_seconds_or_as_a_date() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let date = ("date", "Fri, 31 Dec 1999 23:59:29 GMT");
        let later = ("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT");
        let earlier = ("retry-after", "Fri, 31 Dec 1999 23:59:00 GMT");
        assert_eq!(asked(&[("retry-after", " 7")]), seconds(7));
        assert_eq!(asked(&[date, later]), seconds(30));
        assert_eq!(asked(&[date, earlier]), seconds(0));
        assert_eq!(asked(&[later]), None);
        assert_eq!(asked(&[("ratelimit-reset", "9")]), seconds(9));
        assert_eq!(asked(&[("ratelimit-reset", "9"), ("retry-after", "3")]), seconds(3));
        for nonsense in ["", "-1", "1.5", "soon", "99999999999999999999"] {
            assert_eq!(asked(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }
}
