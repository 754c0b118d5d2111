//! The header fields of quotas, written and read.

use std::time::Duration;

use evenkeel_core::{
    number::digits,
    quota::{QuotaState, Rate},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::delay;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// What a server says about the quota that it grants.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::http::ServerQuota;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("ratelimit", "\"burst\";r=90;t=1, \"daily\";r=7;t=3600".parse().unwrap());
/// let quota = ServerQuota::read(http::StatusCode::OK, &headers).unwrap();
/// assert_eq!((quota.remaining, quota.reset), (7, Duration::from_secs(3600)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerQuota {
    /// How many requests may still be sent.
    pub remaining: u32,
    /// The time until more requests may be sent.
    pub reset: Duration,
}

impl ServerQuota {
    /// Reads what a response says: `Retry-After` if its status is 429, else `RateLimit` (IETF draft
    /// of the httpapi group), else `RateLimit-Remaining` and `RateLimit-Reset` (its third version).
    ///
    /// If there are several quotas, the result is the one that allows the least until its reset. A reset
    /// that can only be a date, in seconds or milliseconds since 1970, is read as a date. A reset is a day
    /// at most.
    #[must_use]
    pub fn read(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        if status == StatusCode::TOO_MANY_REQUESTS
            && let Some(reset) = delay::retry_after(headers)
        {
            return Some(Self::new(0, reset));
        }
        let lines = headers.get_all(RATE_LIMIT).iter().filter_map(|line| line.to_str().ok());
        let items = lines.flat_map(|line| split(line, ','));
        let quotas = items.filter_map(|item| Self::read_item(item, headers));
        let tightest = quotas.min_by(|a, b| a.pace().total_cmp(&b.pace()));
        tightest.or_else(|| {
            let remaining = delay::number(headers, &REMAINING)?;
            Some(Self::new(remaining, delay::delay_of(headers, delay::number(headers, &RESET)?)))
        })
    }

    fn new(remaining: u64, reset: Duration) -> Self {
        let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
        Self { remaining, reset: reset.min(MAX_RESET) }
    }

    /// The same pace for no longer than `max_reset`.
    pub(super) fn within(self, max_reset: Duration) -> Self {
        if self.reset <= max_reset {
            return self;
        }
        let share = max_reset.as_secs_f64() / self.reset.as_secs_f64();
        let remaining = (f64::from(self.remaining) * share).ceil() as u32;
        Self { remaining, reset: max_reset }
    }

    /// Reads `"name";r=50;t=30`. Only the parameters matter.
    fn read_item(item: &str, headers: &HeaderMap) -> Option<Self> {
        let parameter = |name: &str| {
            let found = split(item, ';')
                .skip(1)
                .find_map(|parameter| parameter.trim().strip_prefix(name)?.strip_prefix('='));
            // An integer of RFC 9651 has fifteen digits at most, and these have no sign.
            digits(found?.trim()).filter(|&number: &u64| number < 1_000_000_000_000_000)
        };
        Some(Self::new(parameter("r")?, delay::delay_of(headers, parameter("t")?)))
    }

    /// Requests a second until the reset.
    fn pace(&self) -> f64 {
        f64::from(self.remaining) / self.reset.as_secs_f64().max(1e-9)
    }
}

/// The longest reset.
const MAX_RESET: Duration = Duration::from_secs(86_400);

/// Splits at `separator`, but not within quotation marks.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    text.split(move |c| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => return c == separator && !is_quoted,
        }
        false
    })
}

/// Writes `RateLimit-Policy` and `RateLimit`, beside those of other quotas.
pub(super) fn write(headers: &mut HeaderMap, name: &str, state: &QuotaState) {
    let (limit, window) = (state.rate.burst_size(), seconds(state.rate.window()));
    append(headers, POLICY, format!("\"{name}\";q={limit};w={window}"));
    let (remaining, reset) = (state.remaining, seconds(state.reset));
    append(headers, RATE_LIMIT, format!("\"{name}\";r={remaining};t={reset}"));
}

/// Writes `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset`.
pub(super) fn write_three(headers: &mut HeaderMap, state: &QuotaState) {
    headers.insert(LIMIT, HeaderValue::from(state.rate.burst_size()));
    headers.insert(REMAINING, HeaderValue::from(state.remaining));
    headers.insert(RESET, HeaderValue::from(seconds(state.reset)));
}

/// What is left after a refusal.
pub(super) fn exhausted(rate: Rate, retry_after: Duration) -> QuotaState {
    let mut state = QuotaState::new(rate, 0);
    state.reset = retry_after;
    state
}

/// Whole seconds, rounded up: a caller that tries again too early is refused again.
pub(crate) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(0 < duration.subsec_nanos())
}

fn append(headers: &mut HeaderMap, name: HeaderName, text: String) {
    headers
        .append(name, HeaderValue::try_from(text).expect("a name that was checked, and numbers"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Option<(u32, u64)> {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let quota = ServerQuota::read(StatusCode::OK, &pairs.collect())?;
        Some((quota.remaining, quota.reset.as_secs()))
    }

    #[test]
    fn the_tightest_of_several_quotas_counts() {
        assert_eq!(read(&[("ratelimit", r#""a";r=50;t=30"#)]), Some((50, 30)));
        assert_eq!(read(&[("ratelimit", r#""a";r=50;t=30, "b"; r=9 ;t=60"#)]), Some((9, 60)));
        assert_eq!(read(&[("ratelimit", r#""a,b;r=1;t=1";r=5;t=3"#)]), Some((5, 3)));
        assert_eq!(read(&[("ratelimit", r#""a\";r=1";r=5;t=3"#)]), Some((5, 3)));
        assert_eq!(read(&[("ratelimit", r#"default;r=0;t=10;pk=:YQ==:"#)]), Some((0, 10)));
    }

    #[test]
    fn the_three_headers_are_read_where_there_is_no_other() {
        let three = [("ratelimit-remaining", "3"), ("ratelimit-reset", "7")];
        assert_eq!(read(&three), Some((3, 7)));
        assert_eq!(read(&three[..1]), None);
        assert_eq!(read(&[three[0], three[1], ("ratelimit", r#""a";r=1;t=2"#)]), Some((1, 2)));
    }

    #[test]
    fn nonsense_is_ignored_and_every_wait_is_bounded() {
        for nonsense in [
            "",
            "\"a",
            ";r=1",
            "\"a\";r=-1;t=1",
            "\"a\";r=+1;t=1",
            "\"a\";r=1;t=+1",
            "\"a\";r=1;t=1000000000000000",
            "\"a\";r=1;t=x",
            "\\",
            "\"a\";r;t",
        ] {
            assert_eq!(read(&[("ratelimit", nonsense)]), None, "{nonsense}");
        }
        assert_eq!(read(&[("ratelimit-remaining", "+1"), ("ratelimit-reset", "7")]), None);
        let huge = r#""a";r=99999999999;t=999999999"#;
        assert_eq!(read(&[("ratelimit", huge)]), Some((u32::MAX, 86_400)));
    }

    #[test]
    fn a_quota_that_is_believed_for_less_time_keeps_its_pace() {
        let quota = |remaining, seconds| ServerQuota::new(remaining, Duration::from_secs(seconds));
        let within = |quota: ServerQuota| quota.within(Duration::from_secs(300));
        assert_eq!(within(quota(7, 300)), quota(7, 300));
        assert_eq!(within(quota(120, 3_600)), quota(10, 300));
        assert_eq!(within(quota(7, 86_400)), quota(1, 300));
        assert_eq!(within(quota(0, 86_400)), quota(0, 300));
    }

    #[test]
    fn a_refusal_counts_for_as_long_as_it_says() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static("4"));
        headers.insert("ratelimit", HeaderValue::from_static(r#""a";r=5;t=30"#));
        let refused = ServerQuota::read(StatusCode::TOO_MANY_REQUESTS, &headers).unwrap();
        assert_eq!((refused.remaining, refused.reset.as_secs()), (0, 4));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut headers = HeaderMap::new();
        let rate = Rate::per_minute(60).burst(10);
        write(&mut headers, "a", &QuotaState::new(rate, 4));
        write_three(&mut headers, &QuotaState::new(rate, 4));
        assert_eq!(headers["ratelimit-policy"], r#""a";q=10;w=10"#);
        assert_eq!(headers["ratelimit"], r#""a";r=4;t=6"#);
        assert_eq!(headers["ratelimit-limit"], "10");
        assert_eq!(headers["ratelimit-reset"], "6");
        let read = ServerQuota::read(StatusCode::OK, &headers).unwrap();
        assert_eq!((read.remaining, read.reset.as_secs()), (4, 6));
    }
}
