//! In real etcd, of all versions.

use std::time::{Duration, Instant};

use evenkeel_core::{backoff::Backoff, error::cause};
use evenkeel_discovery::{
    etcd::{
        Cluster, Etcd as Discovery,
        dialect::{Naming, Zero},
    },
    register::{Entry, EtcdRegistry, Kept, Registered, Registration, Registry, Status, Taken},
};
use needs::needs;

use crate::register::{
    etcd_real::{Etcd, VERSIONS},
    servers::until,
    slow_motion::Proxy,
    watching::Watching,
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn web(cluster: Cluster) -> Discovery {
    let web = Discovery::new(cluster.timeout(ms(1_000)), "web");
    web.backoff(Backoff::new(ms(20), ms(100))).hold(ms(10_000)).quiet(ms(500))
}

fn entry(port: u16) -> Entry {
    Entry::new("web", format!("10.0.0.1:{port}").parse().unwrap())
}

fn registration(etcd: &Etcd, entry: Entry) -> Registration<EtcdRegistry> {
    let registry = EtcdRegistry::new(etcd.cluster().timeout(ms(1_000)));
    Registration::new(registry, entry).ttl(ms(3_000)).propagation(ms(10))
}

/// Whether another instance has its id.
async fn is_taken(registered: &Registered) -> bool {
    matches!(registered.status(), Status::Failing(e) if cause::<Taken>(e.inner()).is_some())
}

fn keys(etcd: &Etcd) -> String {
    etcd.control(&["get", "--prefix", "--keys-only", ""]).trim().to_owned()
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn a_service_enters_changes_is_maintained_and_leaves() {
    for version in VERSIONS {
        let etcd = Etcd::start(version).await.unwrap();
        let mut watching = Watching::new(&web(etcd.cluster()).hold(ms(50)));
        let registered = registration(&etcd, entry(80).weight(10).zone("eu").version("2")).start();
        watching.until_weights(&[("10.0.0.1:80", 10)]).await;
        let found = watching.find("10.0.0.1:80").unwrap();
        assert_eq!((found.zone.as_deref(), found.metadata["version"].as_str()), (Some("eu"), "2"));

        registered.weight(3);
        watching.until_weights(&[("10.0.0.1:80", 3)]).await;
        registered.maintenance(Some("upgrade".into()));
        watching.until_weights(&[("10.0.0.1:80", 0)]).await;
        registered.maintenance(None);
        watching.until_weights(&[("10.0.0.1:80", 3)]).await;
        // Longer than the TTL, so that heartbeats were needed.
        watching.during(ms(5_000)).await;
        assert_eq!(watching.addresses().len(), 1);

        registered.leave().await;
        assert_eq!(keys(&etcd), "", "gone before leaving is over");
        watching.until_addresses(&[]).await;
    }
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn a_service_enters_itself_again_whatever_was_lost() {
    for version in VERSIONS {
        let mut etcd = Etcd::start(version).await.unwrap();
        let mut watching = Watching::new(&web(etcd.cluster()));
        let registered = registration(&etcd, entry(80)).start();
        watching.until_addresses(&["10.0.0.1:80"]).await;
        watching.least = 1;

        etcd.control(&["del", "--prefix", "/evenkeel/"]);
        until("the key again", || async { !keys(&etcd).is_empty() }).await;

        let leases = etcd.control(&["lease", "list"]);
        let lease = leases.lines().last().unwrap().trim().to_owned();
        etcd.control(&["lease", "revoke", &lease]);
        until("another lease", || async { !keys(&etcd).is_empty() }).await;

        etcd.members[0].kill();
        etcd.members[0].forget();
        registered.failing().await;
        etcd.members[0].start_again();
        etcd.until_ready().await;
        until("the key in a new cluster", || async { !keys(&etcd).is_empty() }).await;
        registered.entered().await;
        watching.during(ms(500)).await;
        assert_eq!(watching.least, 1, "no caller saw a moment without it");
    }
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn a_process_that_dies_is_gone_when_its_ttl_is_over() {
    for version in VERSIONS {
        let etcd = Etcd::start(version).await.unwrap();
        let process = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let registered = {
            let _in_it = process.enter();
            registration(&etcd, entry(80)).start()
        };
        until("the key", || async { !keys(&etcd).is_empty() }).await;

        let died_at = Instant::now();
        process.shutdown_background();
        until("the end of the lease", || async { keys(&etcd).is_empty() }).await;

        let gone_after = died_at.elapsed();
        assert!((ms(1_500)..ms(6_000)).contains(&gone_after), "{gone_after:?} of a TTL of 3 s");
        drop(registered);
    }
}

#[needs("etcd-3.5")]
#[tokio::test]
async fn of_two_services_under_one_id_the_later_counts_and_each_removes_only_its_own_entry() {
    let etcd = Etcd::start(VERSIONS[1]).await.unwrap();
    let mut watching = Watching::new(&web(etcd.cluster()));
    let first = registration(&etcd, entry(80).weight(1)).start();
    first.entered().await;
    let second = registration(&etcd, entry(80).weight(2)).start();
    watching.until_weights(&[("10.0.0.1:80", 2)]).await;
    until("the first to notice", || is_taken(&first)).await;
    let third = registration(&etcd, entry(80).weight(3)).start();
    watching.until_weights(&[("10.0.0.1:80", 3)]).await;
    until("the second to notice", || is_taken(&second)).await;

    second.leave().await;
    watching.during(ms(300)).await;
    assert_eq!(watching.find("10.0.0.1:80").unwrap().weight, 3, "the entry of another stays");
    third.leave().await;
    watching.until_weights(&[("10.0.0.1:80", 1)]).await;
}

#[needs("etcd-3.5")]
#[tokio::test]
async fn two_hundred_registrations_share_a_few_connections() {
    let etcd = Etcd::start(VERSIONS[1]).await.unwrap();
    let way = Proxy::to(&etcd.members[0].url).await;
    let enter = |port| {
        let cluster = Cluster::at([&*way.url]).unwrap();
        let registration = Registration::new(EtcdRegistry::new(cluster), entry(port));
        // With a timeout long enough that a busy member has answered all of them.
        registration.ttl(ms(60_000)).timeout(ms(30_000)).start()
    };
    let held: Vec<_> = (1..=200).map(enter).collect();
    for registered in &held {
        registered.entered().await;
    }

    let connections = way.tried().len();
    assert!((1..=4).contains(&connections), "{connections} connections");

    // A connection that is cut is made again by the first registration that needs it, once for all.
    way.cut();
    for registered in &held {
        registered.weight(7);
    }
    let mut watching = Watching::new(&web(etcd.cluster()));
    watching.until(|set| set.len() == 200 && set.values().all(|e| e.weight == 7)).await;
    let connections = way.tried().len();
    assert!(connections <= 8, "{connections} connections");
}

#[needs("etcd-3.5")]
#[tokio::test]
async fn a_registration_goes_on_when_the_runtime_of_another_ends() {
    let etcd = Etcd::start(VERSIONS[1]).await.unwrap();
    let other = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let of_other = {
        let _in_it = other.enter();
        registration(&etcd, entry(81)).start()
    };
    of_other.entered().await;
    let registered = registration(&etcd, entry(80)).start();
    registered.entered().await;

    other.shutdown_background();
    registered.weight(7);

    let mut watching = Watching::new(&web(etcd.cluster()));
    watching.until(|set| set.values().any(|e| e.weight == 7)).await;
    assert!(matches!(registered.status(), Status::Entered));
}

#[needs("etcd-3.5")]
#[tokio::test]
async fn an_entry_that_another_took_while_the_lease_ran_out_is_taken_and_not_lost() {
    let etcd = Etcd::start(VERSIONS[1]).await.unwrap();
    let mut registry = EtcdRegistry::new(etcd.cluster());
    let ours = entry(80).weight(1);
    registry.enter(&ours, ms(60_000)).await.unwrap();
    let lease = etcd.control(&["lease", "list"]).lines().last().unwrap().trim().to_owned();

    etcd.control(&["lease", "revoke", &lease]);
    let mut other = EtcdRegistry::new(etcd.cluster());
    other.enter(&entry(80).weight(2), ms(60_000)).await.unwrap();

    for _ in 0..3 {
        assert_eq!(registry.keep(&ours, ms(60_000)).await.unwrap(), Kept::Taken);
    }
    other.leave(&entry(80)).await.unwrap();
    assert_eq!(registry.keep(&ours, ms(60_000)).await.unwrap(), Kept::Lost);
}

#[needs("etcd-3.5")]
#[tokio::test]
async fn etcd_that_is_down_keeps_no_service_from_starting_or_stopping() {
    let mut etcd = Etcd::start(VERSIONS[1]).await.unwrap();
    etcd.members[0].kill();
    let start = Instant::now();
    let registered = registration(&etcd, entry(80)).timeout(ms(500)).start();
    registered.failing().await;
    registered.leave().await;
    assert!(start.elapsed() < ms(5_000), "{:?}", start.elapsed());

    let registered = registration(&etcd, entry(80)).timeout(ms(500)).start();
    registered.failing().await;
    etcd.members[0].start_again();
    registered.entered().await;
    etcd.members[0].process.pause();
    let start = Instant::now();
    registered.leave().await;
    assert!(start.elapsed() < ms(5_000), "{:?}", start.elapsed());
    etcd.members[0].process.resume();
}

#[needs("etcd-3.5")]
#[tokio::test]
async fn the_loss_of_a_member_costs_no_registration() {
    let mut etcd = Etcd::start_three(VERSIONS[1]).await.unwrap();
    let registered = registration(&etcd, entry(80)).start();
    registered.entered().await;
    etcd.members[0].kill();
    let cluster = Cluster::at([&*etcd.members[1].url]).unwrap();
    let mut watching = Watching::new(&web(cluster));
    watching.until_addresses(&["10.0.0.1:80"]).await;
    let mut watching = Watching::new(&web(etcd.cluster()).hold(ms(0)));
    watching.until_addresses(&["10.0.0.1:80"]).await;
    watching.during(ms(7_000)).await;
    assert_eq!(watching.least, 1, "the key never went");
    registered.entered().await;
}

#[needs("etcd-3.5")]
#[tokio::test]
async fn leaving_goes_on_at_another_member_where_one_hangs_or_has_ended() {
    for hangs in [false, true] {
        let mut etcd = Etcd::start_three(VERSIONS[1]).await.unwrap();
        // Long enough for another leader to be elected.
        let registered = registration(&etcd, entry(80)).ttl(ms(60_000)).timeout(ms(20_000)).start();
        registered.entered().await;
        if hangs {
            etcd.members[0].process.pause();
        } else {
            etcd.members[0].kill();
        }

        registered.deregister().await.unwrap();

        etcd.members.remove(0);
        assert_eq!(keys(&etcd), "", "gone long before its TTL is over");
    }
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn a_key_that_is_put_by_hand_is_taken_over() {
    for version in VERSIONS {
        let etcd = Etcd::start(version).await.unwrap();
        let mut watching = Watching::new(&web(etcd.cluster()));
        let registered = registration(&etcd, entry(80).weight(7)).start();
        watching.until_weights(&[("10.0.0.1:80", 7)]).await;

        etcd.put("web-10.0.0.1-80", "10.0.0.1:80");
        watching.until_weights(&[("10.0.0.1:80", 1)]).await;
        watching.until_weights(&[("10.0.0.1:80", 7)]).await;
        registered.leave().await;
        assert_eq!(keys(&etcd), "", "it hangs on the lease again");
    }
}

#[needs("etcd-3.4")]
#[tokio::test]
async fn entries_are_written_as_other_frameworks_read_them() {
    let etcd = Etcd::start(VERSIONS[0]).await.unwrap();
    let naming = EtcdRegistry::new(etcd.cluster()).dialect(Naming);
    let naming = Registration::new(naming, entry(80)).propagation(ms(1)).start();
    naming.entered().await;
    let written = etcd.control(&["get", "web/web-10.0.0.1-80"]);
    let expected = "web/web-10.0.0.1-80\n{\"Op\":0,\"Addr\":\"10.0.0.1:80\",\"Metadata\":null}\n";
    assert_eq!(written, expected);
    naming.leave().await;

    let zero = EtcdRegistry::new(etcd.cluster()).dialect(Zero);
    let zero = Registration::new(zero, entry(80)).propagation(ms(1)).start();
    zero.entered().await;
    assert!(keys(&etcd).starts_with("web/"), "{}", keys(&etcd));
    // The layout has no weights, so the entry of a service in maintenance is removed.
    zero.maintenance(Some("upgrade".into()));
    until("the key to go", || async { keys(&etcd).is_empty() }).await;
    zero.maintenance(None);
    until("the key to come back", || async { !keys(&etcd).is_empty() }).await;
    zero.leave().await;
    assert_eq!(keys(&etcd), "");
}
