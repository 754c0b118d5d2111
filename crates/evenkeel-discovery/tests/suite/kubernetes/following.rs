//! What slices state, and how it is followed.

use evenkeel_core::error::cause;
use evenkeel_discovery::kubernetes::{Family, NoSuchPort};
use needs::needs;
use serde_json::{Value, json};

use crate::kubernetes::{
    ms,
    real::{Cluster, address, ready},
    watching::Watching,
    web,
};

fn at(pod: u32) -> String {
    format!("{}:8080", address(pod))
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn all_slices_of_a_service_are_one_set() {
    let cluster = Cluster::start().await.unwrap();
    for (name, pods) in [("web-a", 0..100), ("web-b", 100..200), ("web-c", 200..250)] {
        cluster.put_pods(name, pods).await;
    }
    cluster.put_of("web-admin", "web-admin-a", json!({ "endpoints": [ready(300, true)] })).await;

    let mut watching = Watching::new(&web(cluster.reader()));
    watching.until(|set| set.len() == 250).await;
    let first = watching.find(&at(0)).unwrap();
    assert_eq!(first.metadata["kubernetes.pod"], "web-0");
    assert_eq!(first.metadata["kubernetes.port"], "http");

    // One slice changes, another goes: the others stay.
    cluster.put_pods("web-c", 200..260).await;
    watching.until(|set| set.len() == 260).await;
    cluster.delete("web-a").await;
    watching.until(|set| set.len() == 160).await;
    assert_eq!(watching.least, 160);
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn an_endpoint_that_moves_between_slices_is_never_missing_and_is_no_news() {
    let cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-a", 1..=2).await;
    let mut watching = Watching::new(&web(cluster.reader()));
    watching.until(|set| set.len() == 2).await;

    // The pod is in both slices for a while, and the new slice is right about it.
    cluster.put_pods("web-b", [2]).await;
    cluster.put_pods("web-a", [1]).await;
    cluster.put_pods("web-b", [2, 3]).await;
    watching.next().await;
    assert_eq!(watching.addresses(), [at(1), at(2), at(3)], "the first news is the third pod");

    // The old slice is behind: it still reports a pod as ready that is not.
    cluster.put("web-b", json!({ "endpoints": [ready(2, true), ready(3, true)] })).await;
    cluster.put_pods("web-a", [1, 2]).await;
    cluster.put("web-b", json!({ "endpoints": [ready(2, false), ready(3, true)] })).await;
    watching.until_addresses(&[&at(1), &at(3)]).await;
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn ready_endpoints_serve_terminating_ones_drain_and_the_others_are_removed() {
    let cluster = Cluster::start().await.unwrap();
    let in_state = |pod: u32, conditions: Value| {
        let mut endpoint = ready(pod, true);
        endpoint["conditions"] = conditions;
        endpoint
    };
    let ending = json!({ "ready": false, "serving": true, "terminating": true });
    let states = json!({ "endpoints": [
        in_state(1, json!({ "ready": true, "serving": true, "terminating": false })),
        in_state(2, ending.clone()),
        in_state(3, json!({ "ready": false, "serving": false, "terminating": true })),
        in_state(4, json!({ "ready": false, "serving": false, "terminating": false })),
        in_state(5, json!({})),
        in_state(6, Value::Null),
        in_state(7, json!({ "ready": false })),
        in_state(8, json!({ "ready": false, "terminating": true })),
    ]});
    cluster.put("web-a", states).await;
    let mut watching = Watching::new(&web(cluster.reader()));
    let (one, two, five, six, eight) = (at(1), at(2), at(5), at(6), at(8));
    watching.until_weights(&[(&one, 1), (&two, 0), (&five, 1), (&six, 1), (&eight, 0)]).await;

    // While none is ready, terminating pods are better than none.
    let last = json!({ "endpoints": [in_state(2, ending.clone()), ready(4, false)] });
    cluster.put("web-a", last).await;
    watching.until_weights(&[(&two, 1)]).await;
    assert_eq!(watching.find(&two).unwrap().metadata["kubernetes.terminating"], "true");

    let next = json!({ "endpoints": [in_state(2, ending), ready(4, true)] });
    cluster.put("web-a", next).await;
    let four = at(4);
    watching.until_weights(&[(&two, 0), (&four, 1)]).await;
    assert_eq!(watching.least, 1);
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn ports_are_found_by_name_and_by_number() {
    let cluster = Cluster::start().await.unwrap();
    // A named target port can have another number in other pods, which then have a slice of their
    // own.
    let ports = json!([{ "name": "http", "port": 8080, "appProtocol": "kubernetes.io/h2c" }, { "name": "metrics", "port": 9100 }]);
    cluster.put("web-a", json!({ "endpoints": [ready(1, true)], "ports": ports })).await;
    let ports =
        json!([{ "name": "http", "port": 8081 }, { "name": "dns", "port": 53, "protocol": "UDP" }]);
    cluster.put("web-b", json!({ "endpoints": [ready(2, true)], "ports": ports })).await;

    let mut by_name = Watching::new(&web(cluster.reader()));
    let two = format!("{}:8081", address(2));
    by_name.until_addresses(&[&at(1), &two]).await;
    let metadata = &by_name.find(&at(1)).unwrap().metadata;
    assert_eq!(metadata["kubernetes.app_protocol"], "kubernetes.io/h2c");

    let mut by_number = Watching::new(&web(cluster.reader()).port_number(9_100));
    by_number.until_addresses(&[&format!("{}:9100", address(1))]).await;

    let mut not_tcp = Watching::new(&web(cluster.reader()).port("dns"));
    let failure = not_tcp.until_failure().await;
    let no_such_port = cause::<NoSuchPort>(&**failure).unwrap().to_string();
    let expected = "no endpoint of web has a port dns; there are http (8080), metrics (9100), \
                    dns (53, not TCP), http (8081)";
    assert_eq!(no_such_port, expected);

    // A port that all endpoints lose is a mistake, and no reason to have no endpoints.
    let ports = json!([{ "name": "web", "port": 8080 }]);
    cluster.put("web-b", json!({ "endpoints": [ready(2, true)], "ports": ports })).await;
    cluster.put("web-a", json!({ "endpoints": [ready(1, true)], "ports": ports })).await;
    by_name.until_failure().await;
    assert!(0 < by_name.least, "{:?}", by_name.addresses());
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn a_pod_with_two_addresses_counts_once() {
    let cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-4", 1..=2).await;
    let with_address = |pod: u32, address: &str| {
        let mut endpoint = ready(pod, true);
        endpoint["addresses"] = json!([address]);
        endpoint
    };
    let endpoints = [with_address(2, "fd00::2"), with_address(3, "fd00::3")];
    cluster.put("web-6", json!({ "addressType": "IPv6", "endpoints": endpoints })).await;

    for (family, expected) in [
        (Family::PreferIpv4, &[&*at(1), &at(2), "[fd00::3]:8080"][..]),
        (Family::PreferIpv6, &[&at(1), "[fd00::2]:8080", "[fd00::3]:8080"]),
        (Family::Ipv4, &[&at(1), &at(2)]),
        (Family::Ipv6, &["[fd00::2]:8080", "[fd00::3]:8080"]),
        (Family::Both, &[&at(1), &at(2), "[fd00::3]:8080"]),
    ] {
        let mut watching = Watching::new(&web(cluster.reader()).family(family));
        watching.until_addresses(expected).await;
        let stands_by = watching.find(&at(2)).map(|endpoint| endpoint.alternatives.to_vec());
        let other = (family == Family::Both).then(|| "[fd00::2]:8080".parse().unwrap());
        assert_eq!(stands_by.unwrap_or_default(), other.into_iter().collect::<Vec<_>>());
    }
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn hints_are_followed_where_all_have_them() {
    let cluster = Cluster::start().await.unwrap();
    let hinted = |pod: u32, zone: &str, hints: Value| {
        let mut endpoint = ready(pod, true);
        endpoint["zone"] = zone.into();
        endpoint["nodeName"] = format!("node-{pod}").into();
        endpoint["hints"] = hints;
        endpoint
    };
    let in_zone = |pod, zone: &str| hinted(pod, zone, json!({ "forZones": [{ "name": zone }] }));
    let all = json!({ "endpoints": [in_zone(1, "a"), in_zone(2, "a"), in_zone(3, "b")] });
    cluster.put("web-1", all).await;

    let mut in_a = Watching::new(&web(cluster.reader()).zone("a"));
    in_a.until_addresses(&[&at(1), &at(2)]).await;
    assert_eq!(in_a.find(&at(1)).unwrap().zone.as_deref(), Some("a"));
    assert_eq!(in_a.find(&at(1)).unwrap().metadata["kubernetes.node"], "node-1");
    let mut in_c = Watching::new(&web(cluster.reader()).zone("c"));
    in_c.until(|set| set.len() == 3).await;
    let mut anywhere = Watching::new(&web(cluster.reader()));
    anywhere.until(|set| set.len() == 3).await;

    // One has no hint: hints are being set, or the controller has given up on them.
    let one_without = [in_zone(1, "a"), hinted(2, "a", Value::Null), in_zone(3, "b")];
    cluster.put("web-1", json!({ "endpoints": one_without })).await;
    in_a.until(|set| set.len() == 3).await;

    let on_node = |pod: u32| {
        let hints = json!({ "forZones": [{ "name": "a" }], "forNodes": [{ "name": format!("node-{pod}") }] });
        hinted(pod, "a", hints)
    };
    cluster.put("web-1", json!({ "endpoints": [on_node(1), on_node(2), on_node(3)] })).await;
    let mut on_two = Watching::new(&web(cluster.reader()).zone("a").node("node-2"));
    on_two.until_addresses(&[&at(2)]).await;
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn an_empty_service_is_announced_at_once_and_one_that_ends_after_a_while() {
    let cluster = Cluster::start().await.unwrap();
    let mut watching = Watching::new(&web(cluster.reader()));
    watching.until(std::collections::BTreeMap::is_empty).await;

    cluster.put_pods("web-a", [1]).await;
    watching.until_addresses(&[&at(1)]).await;
    cluster.put("web-a", json!({ "endpoints": [ready(1, false)] })).await;
    let failed = watching.until_failure().await.to_string();
    assert!(failed.contains("endpoints kept: 1"), "{failed}");
    watching.until(std::collections::BTreeMap::is_empty).await;
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn many_changes_at_once_are_all_applied() {
    let cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-a", 0..10).await;
    let mut watching = Watching::new(&web(cluster.reader()));
    watching.until(|set| set.len() == 10).await;

    let names: Vec<_> = (0..20).map(|slice| format!("web-{slice}")).collect();
    let puts = names.iter().zip(1_u32..).map(|(name, slice)| {
        let first = slice * 50;
        cluster.put_pods(name, first..first + 50)
    });
    futures_util::future::join_all(puts).await;
    watching.until(|set| set.len() == 1_010).await;
    assert_eq!(watching.least, 10);
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn balancers_that_share_a_handle_share_one_watch() {
    let cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-a", [1]).await;
    let discovery = web(cluster.reader());
    let clones: Vec<_> = (0..10).map(|_| discovery.clone()).collect();
    let mut watching: Vec<_> = clones.iter().map(Watching::new).collect();
    for one in &mut watching {
        one.until_addresses(&[&at(1)]).await;
    }
    cluster.put_pods("web-a", 1..=2).await;
    for one in &mut watching {
        one.until_addresses(&[&at(1), &at(2)]).await;
    }
    assert!((cluster.watches().await - 1.0).abs() < 0.1, "one watch");

    drop(watching);
    crate::kubernetes::servers::until("no watch", || async { cluster.watches().await < 0.5 }).await;
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn a_watch_that_ends_as_agreed_goes_on_at_once_and_is_no_failure() {
    let cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-a", [1]).await;
    let brief = web(cluster.reader()).wait(ms(1_000)).backoff(never());
    let mut watching = Watching::new(&brief);
    watching.until_addresses(&[&at(1)]).await;
    for pod in 2..=4 {
        watching.during(ms(1_000)).await;
        cluster.put_pods("web-a", 1..=pod).await;
        watching.until(|set| set.len() == pod as usize).await;
    }
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);
    assert_eq!(watching.least, 1);
}

/// A rest longer than any test: nothing may fail.
fn never() -> evenkeel_core::backoff::Backoff {
    evenkeel_core::backoff::Backoff::new(ms(600_000), ms(600_000))
}
