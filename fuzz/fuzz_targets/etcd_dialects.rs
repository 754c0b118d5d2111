//! No value makes the reader of a layout panic; what it takes can be connected to, and be written again.

#![no_main]

use evenkeel_discovery::{
    etcd::dialect::{Dialect, Kit, Kratos, Micro, Naming, Plain, Zero},
    register::Entry,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (String, &[u8])| {
    let (key, value) = input;
    let (kit, kratos) = (Kit::new("/web"), Kratos::new("grpc"));
    let all: [&dyn Dialect; 6] = [&Plain, &Naming, &Micro, &kit, &Zero, &kratos];
    for dialect in all {
        let Ok(endpoints) = dialect.read("web", &key, value) else { continue };
        for endpoint in endpoints {
            assert_ne!(endpoint.address.port(), Some(0));
            let entry = Entry::new("web", endpoint.address.clone()).weight(endpoint.weight);
            let (key, value) = dialect.write(&entry, 7).expect("what was read can be written");
            let again = dialect.read("web", &key, &value).expect("what was written can be read");
            assert_eq!(again[0].address, endpoint.address);
        }
    }
});
