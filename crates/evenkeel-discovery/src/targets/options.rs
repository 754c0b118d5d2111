//! What the addresses of registries have in common.

use std::time::Duration;

use evenkeel_core::BoxError;

use super::Target;

/// Refuses options other than `known`, between which are spaces.
pub(super) fn only(target: &Target, known: &str) -> Result<(), BoxError> {
    target.only(&known.split_whitespace().collect::<Vec<_>>())
}

/// Sets what an address says, and leaves the rest.
pub(super) fn with<T, V>(made: T, value: Option<V>, set: impl FnOnce(T, V) -> T) -> T {
    match value {
        Some(value) => set(made, value),
        None => made,
    }
}

/// The path, which names the service.
pub(super) fn service(target: &Target) -> Result<&str, BoxError> {
    if target.path.is_empty() {
        return Err(
            format!("the service is missing: write {}://host/service", target.scheme).into()
        );
    }
    Ok(&target.path)
}

/// A time that is more than nothing.
pub(super) fn positive(target: &Target, key: &str) -> Result<Option<Duration>, BoxError> {
    let time = target.time(key)?;
    if time.is_some_and(|time| time.is_zero()) {
        return Err(format!("`{key}` is more than nothing").into());
    }
    Ok(time)
}
