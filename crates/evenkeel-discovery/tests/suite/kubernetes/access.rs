//! Credentials: how they are found, and what they permit.

use std::time::{Duration, Instant};

use evenkeel_core::error::cause;
use evenkeel_discovery::kubernetes::{ApiServer, Kubernetes, NoAccess, ServerRefused};
use needs::needs;
use serde_json::json;

use crate::kubernetes::{
    ms,
    real::{Cluster, address, install_cryptography},
    servers::free_ports,
    watching::Watching,
    web,
};

fn at(pod: u32) -> String {
    format!("{}:8080", address(pod))
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn missing_rights_are_a_failure_and_not_an_empty_set() {
    let cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-a", [1]).await;
    let mut stranger = Watching::new(&web(ApiServer::kubeconfig(cluster.kubeconfig("stranger"))));
    let failure = stranger.until_failure().await;
    let refused = cause::<ServerRefused>(&**failure).unwrap();
    assert_eq!((refused.status, &*refused.reason), (403, "Forbidden"));
    assert_eq!(stranger.least, usize::MAX, "nothing was told");

    // Rights that are withdrawn during a watch: the known set stays.
    cluster.permit("temporary shop");
    let mut watching =
        Watching::new(&web(ApiServer::kubeconfig(cluster.kubeconfig("temporary"))).wait(ms(1_000)));
    watching.until_addresses(&[&at(1)]).await;
    cluster.permit("temporary -");
    let failure = watching.until_failure().await;
    assert_eq!(cause::<ServerRefused>(&**failure).unwrap().status, 403);
    cluster.permit("temporary shop");
    cluster.put_pods("web-a", 1..=2).await;
    watching.until_addresses(&[&at(1), &at(2)]).await;
    assert_eq!(watching.least, 1);
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn a_token_that_is_not_known_any_more_is_read_again() {
    let cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-a", [1]).await;
    let file = cluster.path("token");
    std::fs::write(&file, "first\n").unwrap();
    cluster.permit("first shop");
    let kubeconfig = cluster.kubeconfig_at(&cluster.url(), &json!({ "tokenFile": file }));
    let mut watching = Watching::new(&web(ApiServer::kubeconfig(kubeconfig)).wait(ms(1_000)));
    watching.until_addresses(&[&at(1)]).await;

    // Renewed before the old one expires, as kubelets do: a client with the old one is refused
    // once.
    std::fs::write(&file, "second\n").unwrap();
    cluster.permit("second shop");
    let revoked = Instant::now();
    watching.during(ms(2_000)).await;
    cluster.put_pods("web-a", 1..=2).await;
    watching.until_addresses(&[&at(1), &at(2)]).await;
    assert!(revoked.elapsed() < Duration::from_secs(30), "{:?}", revoked.elapsed());
    assert_eq!(watching.least, 1);
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn a_client_that_the_program_already_has_is_used_as_it_is() {
    let cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-a", [1]).await;
    let own = Kubernetes::new(ApiServer::from_client(cluster.client()), "web").port("http");
    let mut watching = Watching::new(&own);
    watching.until_addresses(&[&at(1)]).await;
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn the_namespace_is_that_of_the_context_unless_told() {
    let cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-a", [1]).await;
    let mut watching = Watching::new(&Kubernetes::new(cluster.reader(), "web"));
    watching.until_addresses(&[&at(1)]).await;

    let elsewhere = Kubernetes::new(cluster.reader(), "web").namespace("kitchen");
    let mut refused = Watching::new(&elsewhere);
    let failure = refused.until_failure().await;
    assert_eq!(cause::<ServerRefused>(&**failure).unwrap().status, 403);
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn a_server_that_cannot_be_reached_at_the_start_is_a_typed_error_and_recovers() {
    let mut cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-a", [1]).await;
    cluster.server.kill();
    let mut watching = Watching::new(&web(cluster.reader()));
    let failure = watching.until_failure().await;
    let refused = cause::<std::io::Error>(&**failure).unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(watching.least, usize::MAX, "nothing was told");

    cluster.start_server_again().await;
    watching.until_addresses(&[&at(1)]).await;
}

#[tokio::test]
async fn missing_access_to_a_server_is_a_typed_error() {
    install_cryptography();
    let nowhere = ApiServer::kubeconfig("/nonexistent/kubeconfig");
    let mut watching = Watching::new(&web(nowhere));
    assert!(cause::<NoAccess>(&**watching.until_failure().await).is_some());

    let mut not_a_pod = Watching::new(&web(ApiServer::in_cluster()));
    assert!(cause::<NoAccess>(&**not_a_pod.until_failure().await).is_some());

    let [port] = free_ports();
    let refused = ApiServer::at(format!("http://127.0.0.1:{port}").parse().unwrap());
    let mut refused = Watching::new(&web(refused));
    assert!(cause::<std::io::Error>(&**refused.until_failure().await).is_some());
}
