//! A list that never changes.

use evenkeel_core::endpoint::Endpoint;
use evenkeel_discovery::Fixed;

use crate::harness::{Harness, Instance, Rule};

pub(crate) struct FixedList(Fixed);

impl Harness for FixedList {
    const EXEMPT: &'static [(Rule, &'static str)] = &[
        (Rule::C2, "a list does not change"),
        (Rule::C4, "a list does not change"),
        (Rule::C5, "a list has no past"),
        (Rule::C6, "a list does not change"),
        (Rule::C7, "a list has no position"),
        (Rule::C8, "a list does not fail"),
        (Rule::C9, "a list does not fail"),
        (Rule::C10, "a list has no name"),
        (Rule::C12, "nobody enters himself in a list"),
        (Rule::C14, "a list does not change"),
        (Rule::C15, "who fails is not put into a list"),
        (Rule::C16, "a list does not change"),
    ];
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
