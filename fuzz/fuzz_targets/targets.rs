//! No text makes the readers of addresses panic, and an address survives being written.

#![no_main]

use evenkeel_core::endpoint::Address;
use evenkeel_discovery::{Server, targets::Targets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse::<Address>().as_ref(), Ok(&address));
    }
    if let Ok(server) = text.parse::<Server>() {
        assert_eq!(server.to_string().parse::<Server>().as_ref(), Ok(&server));
    }
    if let Err(error) = Targets::new().discover(text) {
        assert!(!error.to_string().is_empty());
    }
    for scheme in ["consul://", "etcd://", "list:", "unix:"] {
        let _ = Targets::new().discover(&format!("{scheme}{text}"));
    }
});
