//! A request's priority, read from a header.

use evenkeel_core::{
    limit::{Priority, ReadPriority},
    number::digits,
};
use http::{HeaderName, HeaderValue, Request};

/// Reads a request's priority from a header, for load shedding on the server's side.
///
/// The value is a number from 0, the most important, to 15, or one of `CRITICAL_PLUS`, `CRITICAL`,
/// `SHEDDABLE_PLUS` and `SHEDDABLE`, in upper or lower case. Without a valid value a request is `CRITICAL`.
///
/// The caller is believed: set or remove the header where requests come from outside.
///
/// ```
/// use evenkeel::core::limit::{Priority, ReadPriority};
/// use evenkeel::http::HeaderPriority;
///
/// let request = http::Request::get("/report").header("x-priority", "sheddable").body(()).unwrap();
/// assert_eq!(HeaderPriority::default().priority(&request), Priority::SHEDDABLE);
/// ```
#[derive(Clone, Debug)]
pub struct HeaderPriority {
    name: HeaderName,
}

impl HeaderPriority {
    /// Reads the header `name`.
    #[must_use]
    pub const fn new(name: HeaderName) -> Self {
        Self { name }
    }
}

impl Default for HeaderPriority {
    /// Reads `x-priority`.
    fn default() -> Self {
        Self::new(HeaderName::from_static("x-priority"))
    }
}

impl<B> ReadPriority<Request<B>> for HeaderPriority {
    fn priority(&self, request: &Request<B>) -> Priority {
        request.headers().get(&self.name).and_then(parse).unwrap_or_default()
    }
}

const NAMES: [(&str, Priority); 4] = [
    ("critical_plus", Priority::CRITICAL_PLUS),
    ("critical", Priority::CRITICAL),
    ("sheddable_plus", Priority::SHEDDABLE_PLUS),
    ("sheddable", Priority::SHEDDABLE),
];

fn parse(value: &HeaderValue) -> Option<Priority> {
    let text = value.to_str().ok()?.trim();
    let by_name = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    by_name.map(|(_, priority)| *priority).or_else(|| digits(text).map(Priority::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read_and_nonsense_is_critical() {
        for (text, level) in [
            ("CRITICAL_PLUS", 0),
            (" critical ", 4),
            ("Sheddable_Plus", 8),
            ("sheddable", 12),
            ("0", 0),
            ("7", 7),
            ("15", 15),
            ("255", 15),
            ("256", 4),
            ("-1", 4),
            ("+7", 4),
            ("", 4),
            ("urgent", 4),
        ] {
            let request = Request::get("/").header("x-priority", text).body(()).unwrap();
            assert_eq!(HeaderPriority::default().priority(&request).level(), level, "{text:?}");
        }
        assert_eq!(HeaderPriority::default().priority(&Request::new(())), Priority::CRITICAL);
    }
}
