//! A balancer that asks endpoints for their load.

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    attempt::Attempt,
    connect::Connect,
    load::{LoadReport, ServerLoad},
    node::Node,
    outcome::Outcome,
    policy::{ClientSideWeighted, Prequal},
    probe::LoadProbe,
    traffic::{Hints, Traffic},
};
use evenkeel_layers::balance::BalanceLayer;
use tokio::time::sleep;
use tower::{Layer, Service, service_fn, util::BoxCloneSyncService};

use crate::balance::probe::{Channel, World, ready};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What endpoints answer, by host, and how often they were asked.
#[derive(Clone, Default)]
struct Loads {
    millis: Arc<Mutex<HashMap<String, u64>>>,
    asked: Arc<AtomicUsize>,
}

impl Loads {
    fn set(&self, host: &str, millis: u64) {
        self.millis.lock().expect("no panic under the lock").insert(format!("{host}:80"), millis);
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

impl LoadProbe for Loads {
    async fn probe(&self, node: &Arc<Node>) -> Result<ServerLoad, BoxError> {
        self.asked.fetch_add(1, SeqCst);
        let millis = self
            .millis
            .lock()
            .expect("no panic under the lock")
            .get(&node.address().to_string())
            .copied();
        match millis.ok_or("the load is unknown")? {
            // Hangs.
            u64::MAX => pending().await,
            millis => {
                sleep(ms(1)).await;
                // Busier when slower, as servers are.
                Ok(ServerLoad::new(millis as f64 / 5.0, ms(millis)))
            }
        }
    }
}

const HOSTS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn loads(millis: u64) -> Loads {
    let loads = Loads::default();
    HOSTS.iter().for_each(|host| loads.set(host, millis));
    loads
}

/// How many of a hundred requests, two milliseconds apart, go to `host`.
async fn share<S>(client: &mut S, host: &str) -> usize
where
    S: Service<u32, Response = String>,
    S::Error: std::fmt::Debug,
{
    let mut count = 0;
    for _ in 0..100 {
        let ready = ready(client).await.expect("endpoints are known");
        let served_by = ready.call(1).await.expect("an answer");
        count += usize::from(served_by == format!("{host}:80"));
        sleep(ms(2)).await;
    }
    count
}

#[tokio::test(start_paused = true)]
async fn requests_leave_an_endpoint_that_says_it_has_become_slow_and_come_back() {
    let (world, loads) = (World::default(), loads(10));
    let layer = BalanceLayer::prequal(Channel::of(&HOSTS), loads.clone()).seed(1);
    let mut client = world.balance(&layer);
    share(&mut client, "c").await;
    let before = share(&mut client, "c").await;

    loads.set("c", 200);
    sleep(ms(5)).await;
    share(&mut client, "c").await;
    let slow = share(&mut client, "c").await;
    loads.set("c", 10);
    share(&mut client, "c").await;
    let after = share(&mut client, "c").await;

    assert!((8..35).contains(&before) && (8..35).contains(&after), "{before} and {after} of 100");
    assert!(slow <= 2, "{slow} of 100 while it was slow");
}

#[tokio::test(start_paused = true)]
async fn as_many_probes_are_sent_as_requests_ask_for_and_some_while_there_are_none() {
    let (world, loads) = (World::default(), loads(10));
    let layer = BalanceLayer::prequal(Channel::of(&HOSTS), loads.clone()).seed(1);
    let mut client = world.balance(&layer);
    ready(&mut client).await.unwrap();
    sleep(ms(10)).await;
    assert_eq!(loads.asked(), 5, "the pool is filled at first");

    share(&mut client, "a").await;
    let asked = loads.asked() - 5;
    assert!((298..=302).contains(&asked), "{asked} probes for 100 requests");

    let before = loads.asked();
    sleep(Duration::from_secs(10)).await;
    let idle = loads.asked() - before;
    assert!((95..=105).contains(&idle), "{idle} probes in ten idle seconds");
}

#[tokio::test(start_paused = true)]
async fn probes_end_with_the_last_clone() {
    let (world, loads) = (World::default(), loads(10));
    let layer = BalanceLayer::prequal(Channel::of(&HOSTS), loads.clone());
    let mut client = world.balance(&layer);
    ready(&mut client).await.unwrap().call(1).await.unwrap();
    sleep(ms(10)).await;
    let clone = client.clone();
    drop(client);
    sleep(Duration::from_secs(1)).await;
    let before = loads.asked();
    drop(clone);
    sleep(Duration::from_secs(10)).await;

    assert!(5 < before);
    assert_eq!(loads.asked(), before);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_do_not_answer_probes_are_left_alone_while_others_do() {
    let (world, loads) = (World::default(), loads(10));
    loads.set("b", u64::MAX);
    let channel = Channel::of(&["a", "b", "c", "d", "e", "f"]);
    let layer = BalanceLayer::prequal(channel, loads.clone()).probe_timeout(ms(20)).seed(1);
    let mut client = world.balance(&layer);
    share(&mut client, "b").await;
    assert_eq!(share(&mut client, "b").await, 0, "it hangs");
    assert_eq!(share(&mut client, "f").await, 0, "its probe fails");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_is_one_that_failed() {
    let probes = Arc::new(AtomicU64::new(0));
    let count = probes.clone();
    let probe = move |_: Arc<Node>| {
        let panics = count.fetch_add(1, SeqCst) < 3;
        async move {
            assert!(!panics, "the user's own");
            Ok::<_, BoxError>(ServerLoad::new(1.0, ms(1)))
        }
    };
    let world = World::default();
    let layer = BalanceLayer::prequal(Channel::of(&HOSTS), probe).seed(1);
    let mut client = world.balance(&layer);
    share(&mut client, "a").await;
    assert!(100 < probes.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn without_a_probe_requests_in_flight_decide() {
    let layer = BalanceLayer::with_policy(Channel::of(&["a", "b"]), Prequal::new()).seed(1);
    let mut client = layer.layer(|node: &Arc<Node>| {
        let is_slow = node.address().to_string() == "a:80";
        service_fn(move |_: u32| async move {
            sleep(ms(if is_slow { 1_000 } else { 1 })).await;
            Ok::<_, BoxError>(is_slow)
        })
    });
    ready(&mut client).await.unwrap();
    let mut slow = 0;
    let mut under_way = tokio::task::JoinSet::new();
    for _ in 0..100 {
        under_way.spawn(ready(&mut client).await.unwrap().call(1));
        sleep(ms(2)).await;
    }
    while let Some(answer) = under_way.join_next().await {
        slow += u32::from(answer.unwrap().unwrap());
    }
    assert!(slow < 5, "{slow} of 100 went to the slow one");
}

/// Endpoints that answer with their own addresses and report their load. `a` can do three times as
/// much.
struct Reporting;

#[derive(Clone)]
struct Reports;

impl Connect for Reporting {
    type Service = BoxCloneSyncService<u32, String, BoxError>;
    type Traffic = Reports;

    fn connect(&self, node: &Arc<Node>) -> Self::Service {
        let address = node.address().to_string();
        let answer = service_fn(move |_| {
            let address = address.clone();
            async move { Ok(address) }
        });
        BoxCloneSyncService::new(answer)
    }

    fn traffic(&self) -> Reports {
        Reports
    }
}

impl Traffic<u32, String, BoxError> for Reports {
    type Response = String;

    fn hints<'a>(&self, _: &'a u32) -> Hints<'a> {
        Hints::default()
    }

    fn finish(
        &self,
        attempt: Attempt,
        result: Result<String, BoxError>,
    ) -> Result<String, BoxError> {
        let served_by = result?;
        assert!(attempt.wants_report());
        let rps = if served_by == "a:80" { 30.0 } else { 10.0 };
        let report =
            LoadReport { requests_per_second: rps, cpu_utilization: 0.5, ..LoadReport::default() };
        attempt.report_load(&report);
        attempt.finish(Outcome::Success);
        Ok(served_by)
    }
}

#[tokio::test(start_paused = true)]
async fn shares_follow_what_endpoints_report_of_their_load() {
    let policy = ClientSideWeighted::new().blackout(ms(1_000));
    let layer = BalanceLayer::with_policy(Channel::of(&["a", "b"]), policy).seed(1);
    let mut client = layer.layer(Reporting);
    ready(&mut client).await.unwrap();

    assert_eq!(share(&mut client, "a").await, 50, "nothing is trusted at first");
    sleep(ms(2_000)).await;
    assert_eq!(share(&mut client, "a").await, 75);
}
