//! A list of endpoints that never changes.
//!
//! A `Vec<Endpoint>` is already a discovery. [`Fixed`] is the cheap handle for a list that is
//! shared or written as text.
//!
//! ```
//! use evenkeel::discovery::Fixed;
//!
//! let fixed = Fixed::parse(["10.0.0.1:80", "10.0.0.2:80"])?;
//! assert_eq!(fixed.endpoints().len(), 2);
//! assert!(Fixed::parse(["10.0.0.1"]).is_err(), "the port is missing");
//! # Ok::<(), evenkeel::core::endpoint::AddressError>(())
//! ```

use std::sync::Arc;

use evenkeel_core::{
    discover::{Discovery, Update, Watch},
    endpoint::{AddressError, Endpoint},
};
use futures_util::stream;

/// Endpoints that are known when the program starts and never change.
#[derive(Clone, Debug)]
pub struct Fixed {
    endpoints: Arc<[Endpoint]>,
}

impl Fixed {
    /// These endpoints. Of two with one address, the later counts.
    #[must_use]
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<Endpoint>>) -> Self {
        Self { endpoints: endpoints.into_iter().map(Into::into).collect() }
    }

    /// The endpoints of these addresses, each of weight 1.
    ///
    /// # Errors
    /// If one of them is no address.
    pub fn parse(addresses: impl IntoIterator<Item: AsRef<str>>) -> Result<Self, AddressError> {
        let endpoints = addresses
            .into_iter()
            .map(|address| address.as_ref().parse())
            .collect::<Result<_, _>>()?;
        Ok(Self { endpoints })
    }

    /// The endpoints as they were given.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }
}

impl Discovery for Fixed {
    fn watch(&self) -> Watch {
        let endpoints = self.endpoints.to_vec();
        Box::pin(stream::iter([Ok(Update::Set(endpoints))]))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    #[test]
    fn a_fixed_list_is_announced_once_to_each_watcher() {
        let fixed = Fixed::new(["10.0.0.1:80".parse::<Endpoint>().unwrap()]);
        for _ in 0..2 {
            let told: Vec<_> = fixed.watch().collect().now_or_never().expect("it never waits");
            assert_eq!(told.len(), 1);
            assert_eq!(told[0].as_ref().unwrap(), &Update::Set(fixed.endpoints().to_vec()));
        }
    }
}
