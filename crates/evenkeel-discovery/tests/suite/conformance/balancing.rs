//! The rules about a balancer over a discovery.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    connect::Connect,
    node::{Gate, Node},
    retry::{AnyRules, Budget},
};
use evenkeel_layers::{
    active_health::ActiveHealthLayer,
    balance::{Balance, BalanceLayer},
    retry::RetryLayer,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::conformance::{
    harness::{Harness, Instance},
    servers::until,
};

/// The connections and requests, in order.
type Log = Arc<Mutex<Vec<String>>>;

fn ports() -> Vec<Instance> {
    Instance::ports([1, 2, 3])
}

/// Answers with the address. If `fails`, the endpoint at port 1 fails in a way that does not say
/// whether the request reached it.
fn connector(
    connected: Log,
    asked: Log,
    fails: bool,
) -> impl Fn(&Arc<Node>) -> Answering + Clone + Send + Sync + 'static {
    move |node: &Arc<Node>| {
        let address = node.address().to_string();
        connected.lock().unwrap().push(address.clone());
        Answering { address, asked: asked.clone(), fails }
    }
}

#[derive(Clone)]
struct Answering {
    address: String,
    asked: Log,
    fails: bool,
}

impl Service<u32> for Answering {
    type Response = String;
    type Error = BoxError;
    type Future = std::future::Ready<Result<String, BoxError>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        Ok(()).into()
    }

    fn call(&mut self, call: u32) -> Self::Future {
        self.asked.lock().unwrap().push(format!("{call} {}", self.address));
        let is_down = self.fails && self.address.ends_with(":1");
        std::future::ready(if is_down {
            Err(io::Error::from(io::ErrorKind::ConnectionReset).into())
        } else {
            Ok(self.address.clone())
        })
    }
}

/// A balancer over these instances that has had requests.
async fn balance<H: Harness, C>(harness: &H, connect: C, count: usize) -> Balance<C>
where
    C: Connect + Clone + Send + Sync + 'static,
    C::Service: Send + Sync + 'static,
    Balance<C>: Service<u32> + Clone,
{
    let balance = BalanceLayer::round_robin(harness.discovery())
        .max_wait(Duration::from_secs(60))
        .layer(connect);
    let mut first = balance.clone();
    assert!(first.ready().await.is_ok(), "an endpoint within a minute");
    until("all endpoints", || async { balance.nodes().len() == count }).await;
    balance
}

pub(crate) async fn a_change_of_metadata_costs_no_connection<H: Harness>(mut harness: H) {
    harness.set(&ports()).await;
    let connected = Log::default();
    let balance = balance(&harness, connector(connected.clone(), Log::default(), false), 3).await;
    let before = balance.nodes();

    let noted: Vec<_> = ports().into_iter().map(|instance| instance.note("new")).collect();
    harness.set(&noted).await;
    let is_noted =
        |node: &Arc<Node>| node.endpoint().metadata.get(H::NOTE).is_some_and(|note| note == "new");
    until("the metadata", || async { balance.nodes().iter().all(is_noted) }).await;

    assert_eq!(connected.lock().unwrap().len(), 3);
    let after = balance.nodes();
    assert!(before.iter().all(|node| after.iter().any(|other| Arc::ptr_eq(node, other))));
}

pub(crate) async fn what_is_known_of_an_endpoint_survives_changes<H: Harness>(mut harness: H) {
    harness.set(&ports()).await;
    let connected = Log::default();
    let balance = balance(&harness, connector(connected.clone(), Log::default(), false), 3).await;
    let before: BTreeMap<_, _> =
        balance.nodes().into_iter().map(|node| (node.address().clone(), node)).collect();
    let ejected = &before[&"10.0.0.1:2".parse().unwrap()];
    ejected.close(Gate::Ejected);

    // One joins, one leaves.
    harness.set(&Instance::ports([2, 3, 4])).await;
    until("the change", || async {
        let nodes = balance.nodes();
        nodes.len() == 3 && nodes.iter().any(|node| node.address().port() == Some(4))
    })
    .await;

    for node in balance.nodes().iter().filter(|node| node.address().port() != Some(4)) {
        assert!(Arc::ptr_eq(node, &before[node.address()]), "{} is the same", node.address());
    }
    assert!(ejected.is_closed_by(Gate::Ejected));
    assert_eq!(connected.lock().unwrap().len(), 4, "one connection for each that ever was");
    for call in 0..20 {
        let answered = balance.clone().oneshot(call).await.unwrap();
        assert_ne!(answered, "10.0.0.1:2");
    }
}

pub(crate) async fn a_retry_goes_where_the_call_has_not_been<H: Harness>(mut harness: H) {
    harness.set(&ports()).await;
    let asked = Log::default();
    let balance = balance(&harness, connector(Log::default(), asked.clone(), true), 3).await;
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(Budget::share(100.0)).rules(AnyRules::idempotent()))
        .service(balance);

    for call in 0..30 {
        let answered = client.clone().oneshot(call).await.unwrap();
        assert_ne!(answered, "10.0.0.1:1");
    }

    let asked = asked.lock().unwrap();
    assert!(30 < asked.len(), "some calls met the one that fails");
    let mut distinct = asked.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), asked.len(), "no call asked one endpoint twice: {asked:?}");
}

pub(crate) async fn no_request_comes_before_the_first_good_check<H: Harness>(mut harness: H) {
    harness.set(&ports()).await;
    let (permit, permitted) = tokio::sync::watch::channel(false);
    let probe = move |node: Arc<Node>| {
        let mut permitted = permitted.clone();
        async move {
            if node.address().port() == Some(2) {
                let _ = permitted.wait_for(|is_permitted| *is_permitted).await;
            }
            Ok::<_, BoxError>(())
        }
    };
    let health = ActiveHealthLayer::new(probe)
        .interval(Duration::from_millis(100))
        .timeout(Duration::from_secs(60))
        .closed_at_first(true);
    let served_by = |node: &Arc<Node>| {
        let address = node.address().to_string();
        service_fn(move |_: u32| std::future::ready(Ok::<_, BoxError>(address.clone())))
    };
    let client = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(harness.discovery()).max_wait(Duration::from_secs(60)))
        .layer(health)
        .service(served_by);
    let ask = || async { client.clone().oneshot(0).await.unwrap() };

    until("both others", || async { ask().await != ask().await }).await;
    for _ in 0..10 {
        assert_ne!(ask().await, "10.0.0.1:2", "its check has not passed yet");
    }
    permit.send_replace(true);
    until("the one that was checked", || async { ask().await == "10.0.0.1:2" }).await;
}
