//! Servers that end, hang, forget, and come back.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use evenkeel_discovery::kubernetes::ApiServer;
use needs::needs;

use crate::kubernetes::{
    ms,
    proxy::Proxy,
    real::{Cluster, address},
    servers::until,
    watching::Watching,
    web,
};

fn at(pod: u32) -> String {
    format!("{}:8080", address(pod))
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn an_expired_version_is_answered_by_a_fresh_list() {
    let mut cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-a", 1..=2).await;
    cluster.put_pods("web-a", 2..=3).await;
    cluster.server.kill();
    cluster.compact();
    cluster.start_server_again().await;
    assert!(cluster.changes_after(1).await.contains("\"code\":410"), "the server has forgotten it");
    let proxy = Proxy::to(cluster.client()).await;
    let brief = web(ApiServer::at(proxy.url.parse().unwrap())).wait(ms(1_000));
    let mut watching = Watching::new(&brief);
    watching.until_addresses(&[&at(2), &at(3)]).await;

    // The next watch asks for changes after a version that is no longer remembered.
    proxy.is_late.store(true, Relaxed);
    until("an expired version", || async { proxy.expired.load(Relaxed) == 1 }).await;
    cluster.put_pods("web-a", 2..=4).await;
    watching.until_addresses(&[&at(2), &at(3), &at(4)]).await;
    assert_eq!(watching.least, 2, "no moment with fewer");
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn a_server_that_restarts_costs_no_endpoint() {
    let mut cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-a", 1..=3).await;
    let mut watching = Watching::new(&web(cluster.reader()));
    watching.until(|set| set.len() == 3).await;

    cluster.server.kill();
    let failed = watching.until_failure().await.to_string();
    assert!(failed.contains("endpoints kept: 3"), "{failed}");
    watching.during(ms(500)).await;
    cluster.start_server_again().await;
    cluster.put_pods("web-a", 1..=4).await;

    watching.until(|set| set.len() == 4).await;
    assert_eq!(watching.least, 3);
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn a_server_that_restarts_without_data_empties_nothing() {
    let mut cluster = Cluster::start().await.unwrap();
    for _ in 0..5 {
        cluster.put_pods("web-a", 1..=2).await;
        cluster.put_pods("web-a", 1..=3).await;
    }
    let mut watching = Watching::new(&web(cluster.reader()).hold(ms(4_000)));
    watching.until(|set| set.len() == 3).await;

    cluster.forget();
    watching.until_failure().await;
    cluster.start_server_again().await;
    // The controllers write slices again, in which one pod is missing and one is new.
    cluster.put_pods("web-b", [1]).await;
    cluster.put_pods("web-b", [1, 2, 4]).await;

    watching.until(|set| set.len() == 4).await;
    watching.until_addresses(&[&at(1), &at(2), &at(4)]).await;
    assert_eq!(watching.least, 3, "there was no moment with fewer");
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn a_server_that_hangs_is_noticed_by_pings_and_followed_again() {
    let cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-a", [1]).await;
    let mut watching = Watching::new(&web(cluster.reader()));
    watching.until_addresses(&[&at(1)]).await;

    cluster.server.pause();
    let paused = Instant::now();
    watching.until_failure().await;
    // Pings of 5 s and 5 s, on a busy machine.
    assert!(paused.elapsed() < ms(20_000), "{:?}", paused.elapsed());
    cluster.server.resume();
    cluster.put_pods("web-a", 1..=2).await;

    watching.until_addresses(&[&at(1), &at(2)]).await;
    assert_eq!(watching.least, 1);
}

#[needs("apiserver", "etcd-3.5")]
#[tokio::test]
async fn a_server_that_is_asked_for_fresh_news_and_hangs_is_noticed_within_its_time() {
    use evenkeel_core::discover::Discovery;

    let cluster = Cluster::start().await.unwrap();
    cluster.put_pods("web-a", [1]).await;
    let discovery = web(cluster.reader().timeout(ms(500)));
    let mut watching = Watching::new(&discovery);
    watching.until_addresses(&[&at(1)]).await;

    // A refresh while all is well is answered, and watchers get no update.
    discovery.refresh();
    watching.during(ms(300)).await;
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);

    cluster.server.pause();
    discovery.refresh();
    let failed = watching.until_failure().await.to_string();
    assert!(failed.contains("endpoints kept: 1"), "{failed}");
    cluster.server.resume();
    cluster.put_pods("web-a", 1..=2).await;
    watching.until_addresses(&[&at(1), &at(2)]).await;
    assert_eq!(watching.least, 1);
}
