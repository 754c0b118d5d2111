//! The errors of a source.

use std::{error::Error, fmt, sync::Arc};

use evenkeel_core::BoxError;

/// A source of endpoints failed; its last endpoints stay in use.
///
/// The error of the source itself is found by [`cause`](evenkeel_core::error::cause).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SourceFailed {
    /// What failed, by its own name: `file /etc/app/endpoints.yaml`, `dns db.internal:5432`.
    pub origin: Arc<str>,
    /// How many endpoints are known and stay in use.
    pub kept: usize,
    cause: Arc<dyn Error + Send + Sync>,
}

impl SourceFailed {
    pub(crate) fn new(origin: Arc<str>, kept: usize, cause: BoxError) -> Self {
        Self { origin, kept, cause: cause.into() }
    }
}

impl fmt::Display for SourceFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, kept, cause } = self;
        write!(f, "{origin} failed (endpoints kept: {kept}): {}", chain(&**cause))
    }
}

impl Error for SourceFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}

/// The last answer misses endpoints, and is not believed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the last answer misses {missing} endpoints, which are kept until it is confirmed")]
#[non_exhaustive]
pub struct NotConfirmed {
    /// How many endpoints are missing.
    pub missing: usize,
}

/// An error and what caused it, in one line, for a log.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&error| error.source()) {
        let cause = cause.to_string();
        // Some errors repeat their causes.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use evenkeel_core::error::cause;

    use super::*;

    #[test]
    fn a_failure_says_which_endpoints_stay_in_use_and_has_its_cause() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);

        let failed = SourceFailed::new("dns db:1".into(), 3, refused.into());

        assert_eq!(failed.to_string(), "dns db:1 failed (endpoints kept: 3): connection refused");
        assert!(cause::<std::io::Error>(&failed).is_some());
        assert_eq!(chain(&failed), failed.to_string());
    }
}
