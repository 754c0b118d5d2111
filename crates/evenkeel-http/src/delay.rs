//! The delay that a server asks for before another attempt.

use std::time::{Duration, SystemTime};

use evenkeel_core::number::digits;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{
    clock,
    rate_limit::{self, ServerQuota},
};

/// The longest delay that a server is believed, by default.
///
/// Envoy's bound for the wait of a rate-limited request (`RateLimitedRetryBackOff`). A server that needs
/// longer says so again.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(300);

/// Numbers from here on are dates: more than 31 years in seconds are counted since 1970.
const MIN_EPOCH_SECONDS: u64 = 1_000_000_000;

/// The same in milliseconds.
const MIN_EPOCH_MILLISECONDS: u64 = MIN_EPOCH_SECONDS * 1_000;

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// `Retry-After`, else the reset of a quota that is used up, else `RateLimit-Reset`.
pub(crate) fn asked_for(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers).or_else(|| match ServerQuota::read(StatusCode::OK, headers) {
        // If some of the quota is left, the quota did not cause the failure.
        Some(quota) => (quota.remaining == 0).then_some(quota.reset),
        None => seconds(headers, &RATE_LIMIT_RESET),
    })
}

/// `Retry-After`: seconds, or a date.
///
/// A date is compared with the response's own `Date`, so that clocks need not agree. Without that
/// header it is compared with this machine's clock.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    seconds(headers, &header::RETRY_AFTER)
        .or_else(|| Some(time_until(headers, date(headers, header::RETRY_AFTER)?)))
}

/// A delay of `seconds`, or until that time if the number can only be seconds since 1970.
pub(crate) fn delay_of(headers: &HeaderMap, seconds: u64) -> Duration {
    let since_epoch = match seconds {
        ..MIN_EPOCH_SECONDS => return Duration::from_secs(seconds),
        MIN_EPOCH_SECONDS..MIN_EPOCH_MILLISECONDS => Duration::from_secs(seconds),
        _ => Duration::from_millis(seconds),
    };
    match SystemTime::UNIX_EPOCH.checked_add(since_epoch) {
        Some(until) => time_until(headers, until),
        None => Duration::MAX,
    }
}

fn time_until(headers: &HeaderMap, until: SystemTime) -> Duration {
    let now = date(headers, header::DATE).unwrap_or_else(clock::date);
    until.duration_since(now).unwrap_or_default()
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?.trim()).ok()
}

/// `grpc-retry-pushback-ms`: a delay, or `Some(None)` if the server wants no further attempt.
///
/// A negative or unreadable value means the latter (gRFC A6).
pub(crate) fn pushback(trailers: &HeaderMap) -> Option<Option<Duration>> {
    trailers.get(PUSHBACK)?;
    // gRPC's value is a signed 32-bit number.
    let milliseconds = number(trailers, &PUSHBACK).filter(|&number| number <= i32::MAX as u64);
    Some(milliseconds.map(Duration::from_millis))
}

/// Says when to try again: `Retry-After` in whole seconds, or gRPC's pushback. Both round up, since a
/// caller that tries again too early is refused again.
pub(crate) fn tell(headers: &mut HeaderMap, after: Duration, is_grpc: bool) {
    if is_grpc {
        let milliseconds = after.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as u64;
        headers.insert(PUSHBACK, HeaderValue::from(milliseconds));
    } else {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(rate_limit::seconds(after)));
    }
}

/// The number in a header, `1*DIGIT` and nothing else.
pub(crate) fn number<T: TryFrom<u64>>(headers: &HeaderMap, name: &HeaderName) -> Option<T> {
    digits(headers.get(name)?.as_bytes().trim_ascii())
}

fn seconds(headers: &HeaderMap, name: &HeaderName) -> Option<Duration> {
    Some(delay_of(headers, number(headers, name)?))
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
        for nonsense in ["", "-1", "+3", "1.5", "0x3", "soon", "99999999999999999999"] {
            assert_eq!(asked(&[("retry-after", nonsense)]), None, "{nonsense}");
            assert_eq!(asked(&[("ratelimit-reset", nonsense)]), None, "{nonsense}");
        }
    }

    #[test]
    fn a_delay_of_decades_is_read_as_a_unix_time() {
        let date = ("date", "Fri, 31 Dec 1999 23:59:29 GMT"); // 946684769
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(asked(&[date, ("retry-after", "999999999")]), seconds(999_999_999));
        assert_eq!(
            asked(&[date, ("retry-after", "1000000000")]),
            seconds(1_000_000_000 - 946_684_769)
        );
        assert_eq!(asked(&[date, ("ratelimit-reset", "1000000000000")]), seconds(53_315_231));
        // A date in the past means no delay.
        let now = ("date", "Tue, 05 Jan 2021 11:00:01 GMT");
        assert_eq!(asked(&[now, ("retry-after", "1609844400")]), seconds(0));
        assert_eq!(asked(&[now, ("ratelimit", "\"a\";r=0;t=1609844411")]), seconds(10));
        let longest = u64::MAX.to_string();
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, longest.parse().unwrap())]);
        assert!(asked_for(&headers).is_some());
    }

    #[test]
    fn a_date_counts_from_now_if_the_response_has_no_date_of_its_own() {
        let after = |until| {
            let date = httpdate::fmt_http_date(until).parse().unwrap();
            asked_for(&HeaderMap::from_iter([(header::RETRY_AFTER, date)])).unwrap().as_secs()
        };
        // A date has whole seconds.
        assert!((58..=60).contains(&after(clock::date() + Duration::from_secs(60))));
        assert_eq!(after(clock::date() - Duration::from_secs(60)), 0);
    }

    #[test]
    fn a_pushback_is_in_milliseconds_and_an_invalid_one_forbids_a_retry() {
        for (text, expected) in [
            ("0", Some(0)),
            ("250", Some(250)),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", None),
            ("-1", None),
            ("-2147483648", None),
            ("+250", None),
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
