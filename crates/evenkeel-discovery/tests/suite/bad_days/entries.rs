//! Entries that contradict each other, or are invalid.

use needs::needs;

/// Consul itself sets weights out of bounds to 1; how they are read is in `consul/answer/tests.rs`.
#[cfg(feature = "consul")]
#[needs("consul")]
#[tokio::test]
async fn odd_entries_in_consul_do_not_affect_the_others() {
    use serde_json::json;

    use crate::bad_days::{consul_real::Agent, watching::Watching};

    let agent = Agent::start().await.unwrap();
    for (node, service) in [
        ("n1", json!({ "Address": "10.0.0.1", "Port": 1 })),
        // Port 0 means that there is none.
        ("n2", json!({ "Address": "10.0.0.2", "Port": 0 })),
        ("n3", json!({ "Address": "10.0.0.3", "Port": 65_536 })),
        ("n4", json!({ "Address": "10.0.0.4", "Port": -1 })),
        ("n5", json!({ "Address": "a..b", "Port": 5 })),
        ("n6", json!({ "Address": "10.0.0.6/24", "Port": 6 })),
        ("n7", json!({ "Address": "db-1.internal", "Port": 7 })),
        // One address on two nodes, as after a reschedule: the greater weight counts.
        (
            "n8",
            json!({ "Address": "10.0.0.8", "Port": 8, "Weights": { "Passing": 3, "Warning": 1 } }),
        ),
        (
            "n9",
            json!({ "Address": "10.0.0.8", "Port": 8, "Weights": { "Passing": 9, "Warning": 1 } }),
        ),
    ] {
        let mut service = service;
        (service["ID"], service["Service"]) = ("web".into(), "web".into());
        let entry = json!({ "Node": node, "Address": "127.0.0.1", "Service": service });
        // Newer agents refuse some of these entries.
        let _ = agent.ask("PUT", "/v1/catalog/register", entry).await;
    }

    let mut watching = Watching::new(&crate::bad_days::consul::follow(&agent.url));
    watching.until(|set| 3 <= set.len()).await;

    let known = watching.addresses();
    for unusable in ["10.0.0.2", "10.0.0.3", "10.0.0.4", "a..b", "10.0.0.6"] {
        assert!(!known.iter().any(|address| address.starts_with(unusable)), "{known:?}");
    }
    let weight = |address: &str| watching.find(address).map(|endpoint| endpoint.weight);
    assert_eq!(weight("10.0.0.1:1"), Some(1));
    assert_eq!(weight("db-1.internal:7"), Some(1));
    assert_eq!(weight("10.0.0.8:8"), Some(9));
}

#[cfg(feature = "etcd")]
#[needs("etcd-3.5")]
#[tokio::test]
async fn odd_entries_in_etcd_do_not_affect_the_others() {
    use crate::bad_days::{
        etcd_real::{Etcd, VERSIONS},
        watching::Watching,
    };

    let etcd = Etcd::start(VERSIONS[1]).await.unwrap();
    for (id, value) in [
        ("1", "10.0.0.1:1"),
        ("2", "10.0.0.2:0"),
        ("3", "10.0.0.3:65536"),
        ("4", r#"{"address":"10.0.0.4:4","weight":-1}"#),
        ("5", r#"{"address":"10.0.0.5:5","weight":99999999999}"#),
        ("6", r#"{"address":"10.0.0.6:6","weight":4294967295}"#),
        ("7", "db-1.internal:7"),
        ("8", r#"{"address":"10.0.0.8:8","weight":3}"#),
        ("9", r#"{"address":"10.0.0.8:8","weight":9}"#),
        ("10", r#"{"address":"#),
        ("11", "a..b:1"),
        ("12/a/b", "10.0.0.12:12"),
    ] {
        etcd.put(id, value);
    }

    let mut watching = Watching::new(&evenkeel_discovery::Etcd::new(etcd.cluster(), "web"));
    let expected = [
        ("10.0.0.1:1", 1),
        ("10.0.0.6:6", u32::MAX),
        ("10.0.0.8:8", 9),
        ("10.0.0.12:12", 1),
        ("db-1.internal:7", 1),
    ];
    watching.until_weights(&expected).await;
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);

    // An entry that becomes unreadable is gone; one that becomes readable is there.
    etcd.put("1", "garbage");
    etcd.put("2", "10.0.0.2:2");
    watching
        .until(|set| {
            !set.contains_key(&"10.0.0.1:1".parse().unwrap())
                && set.contains_key(&"10.0.0.2:2".parse().unwrap())
        })
        .await;
}
