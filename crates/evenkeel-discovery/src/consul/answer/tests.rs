#![allow(clippy::needless_pass_by_value, reason = "values are made where they are passed")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn reading() -> Reading {
    Reading {
        address: AddressOf::Service,
        zone_key: "zone".into(),
        warnings: true,
        is_ordered: false,
        is_micro: false,
    }
}

fn row(service: Value, statuses: &[&str]) -> Value {
    let checks: Vec<_> =
        statuses.iter().map(|status| json!({"CheckID": "c", "Status": status})).collect();
    let node = json!({"Node": "n1", "Address": "10.0.0.9", "Datacenter": "dc1",
        "Meta": {"zone": "of-node"}, "TaggedAddresses": {"wan": "192.0.2.9"}});
    json!({"Node": node, "Service": service, "Checks": checks})
}

fn found(rows: Value, reading: &Reading) -> Found {
    read(rows.to_string().as_bytes(), reading).unwrap()
}

fn weights(rows: Value, reading: &Reading) -> Vec<(String, u32)> {
    let endpoints = found(rows, reading).endpoints;
    endpoints.into_iter().map(|e| (e.address.to_string(), e.weight)).collect()
}

#[test]
fn the_worst_check_decides_and_its_weight_counts() {
    let service = |port: u16| json!({"ID": "a", "Address": "10.0.0.1", "Port": port, "Weights": {"Passing": 10, "Warning": 3}});
    let rows = json!([
        row(service(1), &["passing", "passing"]),
        row(service(2), &["passing", "warning"]),
        row(service(3), &["warning", "critical"]),
        row(service(4), &["unheard-of"]),
        row(service(5), &[]),
    ]);
    let expected = [("10.0.0.1:1", 10), ("10.0.0.1:2", 3), ("10.0.0.1:5", 10)];
    let expected: Vec<_> = expected.map(|(address, weight)| (address.to_owned(), weight)).into();
    assert_eq!(weights(rows.clone(), &reading()), expected);

    let passing_only = Reading { warnings: false, ..reading() };
    assert_eq!(weights(rows, &passing_only), [expected[0].clone(), expected[2].clone()]);
}

#[test]
fn an_endpoint_in_maintenance_is_drained_and_not_removed() {
    for id in ["_node_maintenance", "_service_maintenance:web-1"] {
        let mut row = row(json!({"ID": "web-1", "Address": "10.0.0.1", "Port": 1}), &["critical"]);
        row["Checks"][0]["CheckID"] = id.into();
        assert_eq!(weights(json!([row]), &reading()), [("10.0.0.1:1".to_owned(), 0)], "{id}");
    }
}

#[test]
fn addresses_are_those_of_the_service_its_node_or_a_tag() {
    let tagged =
        json!({"wan": {"Address": "192.0.2.1", "Port": 81}, "v6": {"address": "2001:db8::1"}});
    let own = json!({"ID": "a", "Address": "10.0.0.1", "Port": 80, "TaggedAddresses": tagged});
    let none = json!({"ID": "b", "Address": "", "Port": 80});
    let address = |service: &Value, which: AddressOf| {
        let reading = Reading { address: which, ..reading() };
        weights(json!([row(service.clone(), &[])]), &reading)[0].0.clone()
    };
    let wan = || AddressOf::Tagged("wan".into());

    assert_eq!(address(&own, AddressOf::Service), "10.0.0.1:80");
    assert_eq!(address(&none, AddressOf::Service), "10.0.0.9:80");
    assert_eq!(address(&own, AddressOf::Node), "10.0.0.9:80");
    assert_eq!(address(&own, wan()), "192.0.2.1:81");
    assert_eq!(address(&own, AddressOf::Tagged("v6".into())), "[2001:db8::1]:80");
    assert_eq!(address(&none, wan()), "192.0.2.9:80");
    assert_eq!(address(&own, AddressOf::Tagged("none".into())), "10.0.0.1:80");
}

#[test]
fn ipv6_host_names_and_sockets_are_addresses() {
    let address = |service: Value| weights(json!([row(service, &[])]), &reading())[0].0.clone();
    assert_eq!(address(json!({"Address": "2001:db8::7", "Port": 80})), "[2001:db8::7]:80");
    assert_eq!(address(json!({"Address": "web.internal", "Port": 80})), "web.internal:80");
    assert_eq!(address(json!({"SocketPath": "/run/web.sock"})), "unix:/run/web.sock");
}

#[test]
fn a_row_that_cannot_be_used_does_not_affect_the_others() {
    let service = |address: &str, port: i64| json!({"ID": "x", "Address": address, "Port": port});
    let rows = json!([
        row(service("10.0.0.1", 0), &[]),
        row(service("10.0.0.1", 65_536), &[]),
        row(service("10.0.0.1", -1), &[]),
        row(service("not a host", 80), &[]),
        row(service("10.0.0.1", 80), &[]),
    ]);
    let found = found(rows, &reading());
    assert_eq!(found.endpoints.len(), 1);
    let (reason, count) = found.skipped.unwrap();
    assert_eq!(count, 4);
    assert!(reason.contains("x: `10.0.0.1:0` is no address"), "{reason}");
}

#[test]
fn weights_are_bounded() {
    let service = |port: u16, weight: i64| json!({"Address": "10.0.0.1", "Port": port, "Weights": {"Passing": weight}});
    let rows = json!([
        row(service(1, -5), &[]),
        row(service(2, i64::MAX), &[]),
        row(service(3, 0), &[]),
        row(json!({"Address": "10.0.0.1", "Port": 4, "Weights": null}), &[]),
    ]);
    let weights: Vec<_> = weights(rows, &reading()).into_iter().map(|(_, weight)| weight).collect();
    assert_eq!(weights, [0, 65_535, 0, 1]);
}

#[test]
fn of_two_entries_with_one_address_the_better_counts() {
    let service =
        |weight: i64| json!({"Address": "10.0.0.1", "Port": 1, "Weights": {"Passing": weight}});
    let mut drained = row(service(9), &["critical"]);
    drained["Checks"][0]["CheckID"] = "_node_maintenance".into();
    for rows in [
        json!([row(service(2), &[]), drained, row(service(9), &["critical"])]),
        json!([drained, row(service(2), &[])]),
    ] {
        assert_eq!(weights(rows, &reading()), [("10.0.0.1:1".to_owned(), 2)]);
    }
}

#[test]
fn the_order_counts_only_where_it_means_distance() {
    let service = |port: u16| row(json!({"Address": "10.0.0.1", "Port": port}), &[]);
    let rows = json!([service(3), service(1), service(2)]);
    let ports = |reading: &Reading| {
        let endpoints = found(rows.clone(), reading).endpoints;
        endpoints.iter().filter_map(|e| e.address.port()).collect::<Vec<_>>()
    };
    assert_eq!(ports(&reading()), [1, 2, 3]);
    assert_eq!(ports(&Reading { is_ordered: true, ..reading() }), [3, 1, 2]);
}

#[test]
fn zone_tags_and_metadata_are_taken_over() {
    let service = json!({"ID": "web-1", "Address": "10.0.0.1", "Port": 1, "Tags": ["b", "a"],
        "Meta": {"version": "7", "zone": "eu-1"}});
    let endpoint = found(json!([row(service, &[])]), &reading()).endpoints.remove(0);
    let expected = "10.0.0.1:1".parse::<Endpoint>().unwrap().zone("eu-1");
    let expected = expected.metadata("consul.id", "web-1").metadata("consul.node", "n1");
    let expected = expected.metadata("consul.datacenter", "dc1").metadata("tags", "a,b");
    assert_eq!(endpoint, expected.metadata("version", "7").metadata("zone", "eu-1"));

    let plain = json!({"Address": "10.0.0.1", "Port": 1, "Tags": null, "Meta": null});
    let endpoint = found(json!([row(plain, &[])]), &reading()).endpoints.remove(0);
    assert_eq!(endpoint.zone.as_deref(), Some("of-node"));
}

#[test]
fn an_invalid_answer_is_an_error() {
    for body in ["", "[", "{}", "[{}]", "<html>", "[{\"Node\":{},\"Service\":", "[1]", "\u{0}"] {
        assert!(read(body.as_bytes(), &reading()).is_err(), "{body}");
    }
    assert_eq!(read(b"null", &reading()).unwrap(), Found::default());
    assert_eq!(read(b"[]", &reading()).unwrap(), Found::default());
}

#[test]
fn an_entry_of_go_micro_is_described_by_its_tags() {
    let told = BTreeMap::from([
        ("protocol".to_owned(), "grpc".to_owned()),
        ("zone".to_owned(), "eu-1a".to_owned()),
    ]);
    let tags = micro::write(&told, "latest", &["mine".to_owned()]).unwrap();
    let service = json!({"ID": "a", "Address": "10.0.0.1", "Port": 1, "Tags": tags});
    let reading = Reading { is_micro: true, ..reading() };

    let endpoint = found(json!([row(service, &["passing"])]), &reading).endpoints.remove(0);

    assert_eq!(endpoint.zone.as_deref(), Some("eu-1a"));
    let metadata = |key: &str| endpoint.metadata[key].as_str();
    let expected = ("grpc", "latest", "mine");
    assert_eq!((metadata("protocol"), metadata("version"), metadata("tags")), expected);
}

/// A text with some of its bytes replaced, to mislead the parser.
fn garbled(text: String, changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    for (place, byte) in changes {
        let place = place.index(bytes.len());
        bytes[place] = *byte;
    }
    bytes
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic_and_every_endpoint_can_be_connected_to(
        port in any::<i32>(),
        weight in any::<i64>(),
        host in "[0-9a-f:.\\[\\]-]{0,12}",
        tag in "[tev][-=][0-9a-f]{0,9}",
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        is_micro: bool,
    ) {
        let service = json!({"ID": "a", "Address": host, "Port": port, "Tags": [tag],
            "Weights": {"Passing": weight, "Warning": 1}});
        let body = json!([row(service.clone(), &["passing"]), row(service, &["warning"])]);
        let reading = Reading { is_micro, ..reading() };
        if let Ok(found) = read(&garbled(body.to_string(), &changes), &reading) {
            for endpoint in found.endpoints {
                prop_assert_ne!(endpoint.address.port(), Some(0));
                prop_assert!(i64::from(endpoint.weight) <= MAX_WEIGHT);
            }
        }
    }
}
