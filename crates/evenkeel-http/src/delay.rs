//! For how long a server asks not to be asked again.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{
    clock,
    rate_limit::{self, ServerQuota},
};

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// `Retry-After`, else the reset of a quota of which nothing is left, else `RateLimit-Reset`.
pub(crate) fn asked_for(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers).or_else(|| match ServerQuota::read(StatusCode::OK, headers) {
        // What is left may be used: it was not the quota that failed the request.
        Some(quota) => (quota.remaining == 0).then_some(quota.reset),
        None => seconds(headers, &RATE_LIMIT_RESET),
    })
}

/// `Retry-After`: seconds, or a date.
///
/// A date counts from the response's own `Date`, so that it matters to nobody whose clock is right. Only
/// where a response has none this machine's has to be.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let date = |name| httpdate::parse_http_date(headers.get(name)?.to_str().ok()?.trim()).ok();
    seconds(headers, &header::RETRY_AFTER).or_else(|| {
        let until = date(header::RETRY_AFTER)?;
        let now = date(header::DATE).unwrap_or_else(clock::date);
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

/// Says when to try again: `Retry-After` in whole seconds, or gRPC's pushback. Both round up, since who
/// comes back too early is refused again.
pub(crate) fn tell(headers: &mut HeaderMap, after: Duration, is_grpc: bool) {
    if is_grpc {
        let milliseconds = after.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as u64;
        headers.insert(PUSHBACK, HeaderValue::from(milliseconds));
    } else {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(rate_limit::seconds(after)));
    }
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
        for form in ["Friday, 31-Dec-99 23:59:59 GMT", "Fri Dec 31 23:59:59 1999"] {
            assert_eq!(asked(&[date, ("retry-after", form)]), seconds(30), "{form}");
        }
        assert_eq!(asked(&[("ratelimit-reset", "9")]), seconds(9));
        assert_eq!(asked(&[("ratelimit", "\"a\";r=0;t=8"), ("ratelimit-reset", "9")]), seconds(8));
        assert_eq!(asked(&[("ratelimit", "\"a\";r=1;t=8"), ("ratelimit-reset", "9")]), None);
        assert_eq!(asked(&[("ratelimit-reset", "9"), ("retry-after", "3")]), seconds(3));
        for nonsense in ["", "-1", "1.5", "soon", "99999999999999999999"] {
            assert_eq!(asked(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
        let longest = u64::MAX.to_string();
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, longest.parse().unwrap())]);
        assert_eq!(asked_for(&headers), seconds(u64::MAX));
    }

    #[test]
    fn a_date_counts_from_now_where_the_response_does_not_say_when_it_is_from() {
        let after = |until| {
            let date = httpdate::fmt_http_date(until).parse().unwrap();
            asked_for(&HeaderMap::from_iter([(header::RETRY_AFTER, date)])).unwrap().as_secs()
        };
        // A date has whole seconds.
        assert!((58..=60).contains(&after(clock::date() + Duration::from_secs(60))));
        assert_eq!(after(clock::date() - Duration::from_secs(60)), 0);
    }

    #[test]
    fn a_pushback_is_a_number_of_milliseconds_of_which_nonsense_forbids() {
        for (text, expected) in [
            ("0", Some(0)),
            ("250", Some(250)),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", None),
            ("-1", None),
            ("-2147483648", None),
            ("", None),
            ("1.5", None),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(PUSHBACK, HeaderValue::from_static(text))]);
            assert_eq!(pushback(&headers), Some(expected.map(Duration::from_millis)), "{text:?}");
        }
        assert_eq!(pushback(&HeaderMap::new()), None);
    }
}
