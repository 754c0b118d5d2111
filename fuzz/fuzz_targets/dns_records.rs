//! Whatever SRV records and addresses say, each address is there once, and none weighs nothing.

#![no_main]

use std::collections::HashSet;

use evenkeel_discovery::fuzzing::dns_services;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|records: Vec<(u16, u16, u16, Vec<[u8; 16]>)>| {
    let endpoints = dns_services(&records);
    let addresses: HashSet<_> = endpoints.iter().map(|endpoint| &endpoint.address).collect();
    assert_eq!(addresses.len(), endpoints.len());
    assert!(endpoints.iter().all(|endpoint| 0 < endpoint.weight));
});
