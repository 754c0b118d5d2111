//! What a real agent reports is followed.

use std::time::Instant;

use evenkeel_discovery::consul::AddressOf;
use needs::needs;
use serde_json::{Value, json};

use crate::consul::{
    at, ms,
    real::{Agent, VERSIONS},
    watching::Watching,
    web,
};

#[needs("consul")]
#[tokio::test]
async fn endpoints_join_and_leave() {
    let agent = Agent::start().await.unwrap();
    let mut watching = Watching::new(&web(at(&agent.url)));
    watching.until_addresses(&[]).await;

    agent.enter(1).await;
    watching.until_addresses(&["10.0.0.1:1"]).await;
    let entered_at = Instant::now();
    agent.enter(2).await;
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
    assert!(entered_at.elapsed() < ms(1_500), "pushed, and not found after the wait");
    agent.leave(1).await;
    watching.until_addresses(&["10.0.0.1:2"]).await;
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);
}

#[needs("consul", "consul-1.14")]
#[tokio::test]
async fn health_weights_and_maintenance_are_followed() {
    for version in VERSIONS {
        let agent = Agent::start_of(version).await.unwrap();
        let check = json!({ "Check": { "TTL": "600s", "Status": "passing" },
        "Weights": { "Passing": 10, "Warning": 3 } });
        agent.enter_with(1, check.clone()).await;
        agent.enter(2).await;
        let mut watching = Watching::new(&web(at(&agent.url)));
        let mut only = Watching::new(&web(at(&agent.url)).passing_only());
        watching.until_weights(&[("10.0.0.1:1", 10), ("10.0.0.1:2", 1)]).await;
        only.until_weights(&[("10.0.0.1:1", 10), ("10.0.0.1:2", 1)]).await;

        agent.put("/v1/agent/check/warn/service:web-1", Value::Null).await;
        watching.until_weights(&[("10.0.0.1:1", 3), ("10.0.0.1:2", 1)]).await;
        only.until_weights(&[("10.0.0.1:2", 1)]).await;
        agent.put("/v1/agent/check/fail/service:web-1", Value::Null).await;
        watching.until_weights(&[("10.0.0.1:2", 1)]).await;
        agent.put("/v1/agent/check/pass/service:web-1", Value::Null).await;
        watching.until_weights(&[("10.0.0.1:1", 10), ("10.0.0.1:2", 1)]).await;

        agent.put("/v1/agent/service/maintenance/web-1?enable=true", Value::Null).await;
        watching.until_weights(&[("10.0.0.1:1", 0), ("10.0.0.1:2", 1)]).await;
        agent.put("/v1/agent/service/maintenance/web-1?enable=false", Value::Null).await;
        watching.until_weights(&[("10.0.0.1:1", 10), ("10.0.0.1:2", 1)]).await;
        agent.put("/v1/agent/maintenance?enable=true", Value::Null).await;
        watching.until_weights(&[("10.0.0.1:1", 0), ("10.0.0.1:2", 0)]).await;
        agent.put("/v1/agent/maintenance?enable=false", Value::Null).await;

        agent.enter_with(1, json!({ "Weights": { "Passing": 77, "Warning": 1 } })).await;
        watching.until(|set| set.values().any(|endpoint| endpoint.weight == 77)).await;
    }
}

#[needs("consul")]
#[tokio::test]
async fn a_ttl_check_that_is_not_passed_in_time_takes_its_endpoint_out() {
    let agent = Agent::start().await.unwrap();
    agent.enter(2).await;
    agent.enter_with(1, json!({ "Check": { "TTL": "1s", "Status": "passing" } })).await;
    let mut watching = Watching::new(&web(at(&agent.url)));
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;

    watching.until_addresses(&["10.0.0.1:2"]).await;
}

#[needs("consul", "consul-1.14")]
#[tokio::test]
async fn addresses_are_found_as_they_are_entered() {
    for version in VERSIONS {
        let agent = Agent::start_of(version).await.unwrap();
        agent.enter_with(1, json!({ "Address": "2001:db8::1" })).await;
        agent.enter_with(2, json!({ "Address": "" })).await;
        agent.enter_with(3, json!({ "Address": "web.internal" })).await;
        let tagged = json!({ "wan": { "Address": "192.0.2.4", "Port": 44 } });
        agent.enter_with(4, json!({ "TaggedAddresses": tagged })).await;

        let mut own = Watching::new(&web(at(&agent.url)));
        let expected = ["[2001:db8::1]:1", "127.0.0.1:2", "web.internal:3", "10.0.0.1:4"];
        own.until_addresses(&expected).await;
        let mut wan = Watching::new(&web(at(&agent.url)).address(AddressOf::Tagged("wan".into())));
        wan.until(|set| set.keys().any(|address| address.to_string() == "192.0.2.4:44")).await;
        let mut node = Watching::new(&web(at(&agent.url)).address(AddressOf::Node));
        node.until(|set| set.keys().all(|address| address.to_string().starts_with("127.0.0.1:")))
            .await;
    }
}

#[needs("consul", "consul-1.14")]
#[tokio::test]
async fn tags_filter_and_data_centre_choose() {
    for version in VERSIONS {
        let agent = Agent::start_of(version).await.unwrap();
        agent
            .enter_with(1, json!({ "Tags": ["a", "b"], "Meta": { "zone": "eu", "v": "1" } }))
            .await;
        agent.enter_with(2, json!({ "Tags": ["a"], "Meta": { "v": "2" } })).await;
        agent.enter_with(3, json!({ "Tags": ["odd \"tag\""] })).await;

        let mut a = Watching::new(&web(at(&agent.url)).tag("a"));
        a.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
        let mut both = Watching::new(&web(at(&agent.url)).tag("a").tag("b").datacenter("dc1"));
        both.until_addresses(&["10.0.0.1:1"]).await;
        let found = both.find("10.0.0.1:1").unwrap();
        assert_eq!((found.zone.as_deref(), found.metadata["tags"].as_str()), (Some("eu"), "a,b"));
        let mut second = Watching::new(&web(at(&agent.url)).filter("Service.Meta.v == 2"));
        second.until_addresses(&["10.0.0.1:2"]).await;
        let mut odd = Watching::new(&web(at(&agent.url)).tag("odd \"tag\"").near("_agent"));
        odd.until_addresses(&["10.0.0.1:3"]).await;

        let nowhere = web(at(&agent.url)).datacenter("nowhere");
        let failed = Watching::new(&nowhere).until_failure().await.to_string();
        assert!(failed.contains("endpoints kept: 0"), "{failed}");
    }
}

#[needs("consul")]
#[tokio::test]
async fn several_nodes_make_one_set() {
    let agent = Agent::start().await.unwrap();
    for node in 1..=3 {
        let entry = json!({ "Node": format!("other-{node}"), "Address": format!("10.0.0.{node}"),
            "Service": { "ID": "web", "Service": "web", "Port": 80 } });
        agent.put("/v1/catalog/register", entry).await;
    }
    let mut watching = Watching::new(&web(at(&agent.url)));
    watching.until_addresses(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]).await;
    assert_eq!(watching.least, 3, "never a part of it");
}

#[needs("consul")]
#[tokio::test]
async fn many_changes_at_once_all_arrive() {
    let agent = Agent::start().await.unwrap();
    let entries = |verb: &str, range: std::ops::Range<u16>| {
        let service = |port| json!({ "ID": format!("web-{port}"), "Service": "web", "Port": port });
        let one = |port| json!({ "Service": { "Verb": verb, "Node": "other", "Service": service(port) } });
        Value::from(range.map(one).collect::<Vec<_>>())
    };
    let node = json!({ "Node": "other", "Address": "10.0.0.1" });
    agent.put("/v1/catalog/register", node).await;
    let mut watching = Watching::new(&web(at(&agent.url)));
    for start in (1..=190).step_by(63) {
        agent.put("/v1/txn", entries("set", start..start + 63)).await;
    }
    watching.until(|set| set.len() == 252).await;

    agent.put("/v1/txn", entries("delete", 1..64)).await;
    watching
        .until(|set| set.len() == 189 && !set.contains_key(&"10.0.0.1:63".parse().unwrap()))
        .await;
}

#[needs("consul")]
#[tokio::test]
async fn a_service_is_not_taken_for_one_with_a_longer_name() {
    let agent = Agent::start().await.unwrap();
    agent.enter_with(1, json!({ "Name": "web-admin" })).await;
    agent.enter(2).await;
    let mut watching = Watching::new(&web(at(&agent.url)));
    watching.until_addresses(&["10.0.0.1:2"]).await;
}

#[needs("consul")]
#[tokio::test]
async fn a_service_that_ends_is_empty_after_a_while() {
    let agent = Agent::start().await.unwrap();
    agent.enter(1).await;
    let mut watching = Watching::new(&web(at(&agent.url)));
    watching.until_addresses(&["10.0.0.1:1"]).await;

    let left_at = Instant::now();
    agent.leave(1).await;
    watching.until_addresses(&[]).await;
    assert!(ms(350) < left_at.elapsed(), "{:?}", left_at.elapsed());
    assert!(watching.failures[0].to_string().contains("endpoints kept: 1"));
}
