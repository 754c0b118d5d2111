//! Tokens that have rights, lose them, and are replaced.

use evenkeel_core::error::cause;
use evenkeel_discovery::consul::{Consul, NotPermitted};
use needs::needs;
use serde_json::{Value, json};

use crate::consul::{
    at, ms,
    real::{Agent, VERSIONS},
    watching::Watching,
    web,
};

const ROOT: &str = "8a6f2c1e-0000-4000-8000-000000000001";

async fn start(version: &str) -> Option<Agent> {
    let acl = json!({ "acl": { "enabled": true, "default_policy": "deny",
        "tokens": { "master": ROOT, "agent": ROOT } } });
    Agent::with_of(version, acl, &["-dev"], Some(ROOT)).await
}

/// Creates or changes a policy with these rules.
async fn policy(agent: &Agent, id: Option<&Value>, rules: &str) -> Value {
    let mut body = json!({ "Name": "reader", "Rules": rules });
    let path = match id {
        Some(id) => {
            body["ID"] = id.clone();
            format!("/v1/acl/policy/{}", id.as_str().unwrap())
        }
        None => "/v1/acl/policy".to_owned(),
    };
    agent.ask("PUT", &path, body).await.unwrap()["ID"].clone()
}

async fn token(agent: &Agent) -> (String, String) {
    let body = json!({ "Policies": [{ "Name": "reader" }] });
    let token = agent.ask("PUT", "/v1/acl/token", body).await.unwrap();
    let text = |key: &str| token[key].as_str().unwrap().to_owned();
    (text("SecretID"), text("AccessorID"))
}

const READ: &str = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;

fn reader(agent: &Agent, file: &tempfile::NamedTempFile) -> Consul {
    web(at(&agent.url).token_file(file.path())).wait(ms(500)).hold(ms(200))
}

#[needs("consul", "consul-1.14")]
#[tokio::test]
async fn a_token_that_is_revoked_empties_nothing_and_its_successor_is_read_from_the_file() {
    for version in VERSIONS {
        let agent = start(version).await.unwrap();
        policy(&agent, None, READ).await;
        let (secret, accessor) = token(&agent).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), secret).unwrap();
        agent.enter(1).await;
        let mut watching = Watching::new(&reader(&agent, &file));
        watching.until_addresses(&["10.0.0.1:1"]).await;

        agent.ask("DELETE", &format!("/v1/acl/token/{accessor}"), Value::Null).await.unwrap();
        watching.until_failure().await;
        watching.during(ms(1_000)).await;
        assert_eq!(watching.addresses(), ["10.0.0.1:1"]);

        std::fs::write(file.path(), token(&agent).await.0).unwrap();
        agent.enter(2).await;
        watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
        assert_eq!(watching.least, 1);
    }
}

#[needs("consul", "consul-1.14")]
#[tokio::test]
async fn rights_that_are_taken_away_empty_nothing() {
    let less = [
        r#"node_prefix "" { policy = "read" }"#,
        r#"service_prefix "" { policy = "read" }"#,
        r#"service "other" { policy = "read" }"#,
    ];
    for (version, less) in VERSIONS.into_iter().flat_map(|version| less.map(|less| (version, less)))
    {
        let agent = start(version).await.unwrap();
        let id = policy(&agent, None, READ).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), token(&agent).await.0).unwrap();
        agent.enter(1).await;
        let mut watching = Watching::new(&reader(&agent, &file));
        watching.until_addresses(&["10.0.0.1:1"]).await;

        policy(&agent, Some(&id), less).await;
        // The agent's own cache of policies lags behind.
        while cause::<NotPermitted>(&**watching.until_failure().await).is_none() {}
        watching.during(ms(1_000)).await;
        assert_eq!(watching.addresses(), ["10.0.0.1:1"], "{less}");

        policy(&agent, Some(&id), READ).await;
        agent.enter(2).await;
        watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
        assert_eq!(watching.least, 1, "{less}");
    }
}

#[needs("consul", "consul-1.14")]
#[tokio::test]
async fn without_any_token_the_failure_says_what_is_missing() {
    for version in VERSIONS {
        let agent = start(version).await.unwrap();
        agent.enter(1).await;
        let mut watching = Watching::new(&web(at(&agent.url)));
        let failed = watching.until_failure().await;
        let denied = cause::<NotPermitted>(&**failed).unwrap().to_string();
        assert!(denied.contains("may not read the service `web`"), "{denied}");
    }
}
