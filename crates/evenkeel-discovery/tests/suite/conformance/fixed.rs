//! A list that never changes.

use evenkeel_core::endpoint::Endpoint;
use evenkeel_discovery::Fixed;

use crate::conformance::harness::{Harness, Instance};

pub(crate) struct FixedList(Fixed);

impl Harness for FixedList {
    const CHANGES: bool = false;
    const HAS_TIERS: bool = true;

    type Source = Fixed;

    async fn start() -> Option<Self> {
        Some(Self(Fixed::new(Vec::<Endpoint>::new())))
    }

    fn discovery(&self) -> Fixed {
        self.0.clone()
    }

    async fn set(&mut self, instances: &[Instance]) {
        self.0 = Fixed::new(instances.iter().map(Instance::endpoint));
    }
}
