//! What real members report is followed.

use std::time::Instant;

use evenkeel_discovery::etcd::dialect::{Kratos, Naming, Zero};
use needs::needs;

use crate::etcd::{
    ms,
    real::{Etcd, VERSIONS},
    watching::{Watching, endpoint},
    web,
};

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn endpoints_join_change_and_leave() {
    for version in VERSIONS {
        let etcd = Etcd::start(version).await.unwrap();
        etcd.put("1", "10.0.0.1:1");
        let mut watching = Watching::new(&web(etcd.cluster()));
        watching.until_addresses(&["10.0.0.1:1"]).await;

        let put_at = Instant::now();
        etcd.put("2", r#"{"address":"[2001:db8::1]:2","weight":5,"zone":"eu"}"#);
        watching.until_weights(&[("10.0.0.1:1", 1), ("[2001:db8::1]:2", 5)]).await;
        assert!(put_at.elapsed() < ms(3_000), "pushed");
        assert_eq!(watching.find("[2001:db8::1]:2").unwrap().zone.as_deref(), Some("eu"));
        etcd.put("2", r#"{"address":"[2001:db8::1]:2","weight":0}"#);
        watching.until_weights(&[("10.0.0.1:1", 1), ("[2001:db8::1]:2", 0)]).await;
        etcd.put("1", "10.0.0.9:1");
        watching.until_addresses(&["10.0.0.9:1", "[2001:db8::1]:2"]).await;
        etcd.delete("1");
        watching.until_addresses(&["[2001:db8::1]:2"]).await;
        assert!(watching.failures.is_empty(), "{:?}", watching.failures);
    }
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn an_empty_service_is_announced_at_once_and_one_that_ends_after_a_while() {
    for version in VERSIONS {
        let etcd = Etcd::start(version).await.unwrap();
        let mut watching = Watching::new(&web(etcd.cluster()));
        watching.until_addresses(&[]).await;
        etcd.put("1", "10.0.0.1:1");
        watching.until_addresses(&["10.0.0.1:1"]).await;

        let deleted_at = Instant::now();
        etcd.delete("1");
        watching.until_addresses(&[]).await;

        assert!(ms(350) < deleted_at.elapsed(), "{:?}", deleted_at.elapsed());
        assert!(watching.failures[0].to_string().contains("endpoints kept: 1"));
    }
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn in_doubt_the_last_endpoints_are_kept_whatever_else_lies_under_the_prefix() {
    for version in VERSIONS {
        let etcd = Etcd::start(version).await.unwrap();
        etcd.put("README", "keys of the service web");
        etcd.put("a", "10.0.0.1:1");
        let mut watching = Watching::new(&web(etcd.cluster()).hold(ms(3_000)));
        watching.until_addresses(&["10.0.0.1:1"]).await;
        etcd.put("b", "10.0.0.1:2");
        etcd.delete("a");
        watching.until_addresses(&["10.0.0.1:2"]).await;

        etcd.delete("b");
        watching.until_failure().await;
        assert_eq!(watching.addresses(), ["10.0.0.1:2"], "and not the one that left before");
        etcd.put("c", "10.0.0.1:3");
        watching.until(|set| set.contains_key(&"10.0.0.1:3".parse().unwrap())).await;

        assert_eq!(watching.addresses(), ["10.0.0.1:2", "10.0.0.1:3"]);
        watching.until_addresses(&["10.0.0.1:3"]).await;
    }
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn every_event_of_a_batch_is_applied() {
    for version in VERSIONS {
        let etcd = Etcd::start(version).await.unwrap();
        let mut watching = Watching::new(&web(etcd.cluster()));
        watching.until_addresses(&[]).await;
        let lines = |verb: &str, range: std::ops::Range<u16>| {
            let value = |n| if verb == "put" { format!(" 10.0.0.1:{n}") } else { String::new() };
            range.map(|n| format!("{verb} /evenkeel/web/{n}{}\n", value(n))).collect::<String>()
        };

        etcd.transact(&lines("put", 1..101));
        watching.until(|set| set.len() == 100).await;
        etcd.transact(&lines("del", 1..91));
        watching.until(|set| set.len() == 10).await;
        assert!(watching.find("10.0.0.1:91").is_some());
    }
}

#[needs("etcd-3.5")]
#[tokio::test]
async fn a_list_of_many_pages_is_one_set() {
    let etcd = Etcd::start(VERSIONS[1]).await.unwrap();
    for start in (1..2_500).step_by(100) {
        let lines: String =
            (start..start + 100).map(|n| format!("put /evenkeel/web/{n} 10.0.0.1:{n}\n")).collect();
        etcd.transact(&lines);
    }
    let mut watching = Watching::new(&web(etcd.cluster()));
    watching.next().await;
    assert_eq!(watching.least, 2_500, "at once");
}

#[needs("etcd-3.5")]
#[tokio::test]
async fn a_service_is_not_taken_for_one_with_a_longer_name() {
    let etcd = Etcd::start(VERSIONS[1]).await.unwrap();
    etcd.control(&["put", "/evenkeel/web-admin/1", "10.0.0.1:1"]);
    etcd.control(&["put", "/evenkeel/webs", "10.0.0.1:2"]);
    etcd.put("3", "10.0.0.1:3");
    etcd.put("4", "no address");
    let mut watching = Watching::new(&web(etcd.cluster()));
    watching.until_addresses(&["10.0.0.1:3"]).await;
}

#[needs("etcd-3.4")]
#[tokio::test]
async fn the_entries_of_other_frameworks_are_followed() {
    let etcd = Etcd::start(VERSIONS[0]).await.unwrap();
    etcd.control(&["put", "web/a", r#"{"Op":0,"Addr":"10.0.0.1:1","Metadata":{"weight":3}}"#]);
    let mut naming = Watching::new(&web(etcd.cluster()).dialect(Naming));
    naming.until_weights(&[("10.0.0.1:1", 3)]).await;

    etcd.control(&["del", "web/a"]);
    etcd.control(&["put", "web/7587862094", "10.0.0.1:2"]);
    let mut zero = Watching::new(&web(etcd.cluster()).dialect(Zero));
    zero.until_addresses(&["10.0.0.1:2"]).await;

    let instance = r#"{"id":"1","name":"web","version":"v1","metadata":{},
        "endpoints":["grpc://10.0.0.1:3?isSecure=false","http://10.0.0.1:4"]}"#;
    etcd.control(&["put", "/microservices/web/1", instance]);
    let mut kratos = Watching::new(&web(etcd.cluster()).dialect(Kratos::new("grpc")));
    kratos.until_addresses(&["10.0.0.1:3"]).await;
    let expected = endpoint("10.0.0.1:3").metadata("version", "v1");
    assert_eq!(kratos.find("10.0.0.1:3"), Some(&expected));
}
