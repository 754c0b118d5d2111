//! No answer of an agent makes its reader panic; what it takes can be connected to, and each address once.

#![no_main]

use std::collections::HashSet;

use evenkeel_discovery::{consul::AddressOf, fuzzing::consul_answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (is_micro, which, body) = input;
    let address = match which % 3 {
        0 => AddressOf::Service,
        1 => AddressOf::Node,
        _ => AddressOf::Tagged("wan".into()),
    };
    let Some(endpoints) = consul_answer(body, is_micro, address) else { return };
    let addresses: HashSet<_> = endpoints.iter().map(|endpoint| &endpoint.address).collect();
    assert_eq!(addresses.len(), endpoints.len());
    for endpoint in endpoints {
        assert_ne!(endpoint.address.port(), Some(0));
        assert!(endpoint.weight <= 65_535);
    }
});
