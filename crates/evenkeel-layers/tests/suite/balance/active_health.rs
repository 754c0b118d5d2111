//! Active health checks below a balancer.

// clippy knows test functions, but not the functions that they share; the clock is tokio's, paused.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    endpoint::Address,
    health::check::{News, NotServing, Probe, Standing},
    node::{Gate, Node},
};
use evenkeel_layers::{
    active_health::{ActiveHealthConnect, ActiveHealthLayer},
    balance::{Balance, BalanceLayer},
    outlier::OutlierLayer,
};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, sleep},
};
use tower::{Layer, Service, ServiceBuilder};

use crate::balance::probe::{
    Answer, Channel, Connector, World, address, endpoint, ready, set, tick,
};

const NAMES: [&str; 3] = ["a", "b", "c"];

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What endpoints answer to probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Health {
    #[default]
    Well,
    Ill,
    /// It reports itself as unhealthy.
    Denies,
    Hangs,
    Panics,
}

/// Answers probes as a test says, and records them.
#[derive(Clone, Default)]
struct Doctor(Arc<DoctorState>);

#[derive(Default)]
struct DoctorState {
    health: Mutex<BTreeMap<Address, Health>>,
    probes: Mutex<Vec<(Instant, Address)>>,
    under_way: AtomicUsize,
    /// The streams of reports by endpoint, if endpoints may be followed.
    wires: Mutex<BTreeMap<Address, mpsc::UnboundedSender<Result<(), BoxError>>>>,
    is_followed: bool,
    follows: AtomicUsize,
}

type Client = Balance<ActiveHealthConnect<Connector, Doctor>>;

impl Doctor {
    fn followed() -> Self {
        Self(Arc::new(DoctorState { is_followed: true, ..DoctorState::default() }))
    }

    fn finds(&self, name: &str, health: Health) {
        self.0.health.lock().unwrap().insert(address(name), health);
    }

    fn probes(&self) -> usize {
        self.0.probes.lock().unwrap().len()
    }

    fn probes_of(&self, name: &str) -> usize {
        let probes = self.0.probes.lock().unwrap();
        probes.iter().filter(|(_, probed)| *probed == address(name)).count()
    }

    fn layer(&self) -> ActiveHealthLayer<Self> {
        ActiveHealthLayer::new(self.clone()).seed(1)
    }

    /// The endpoint reports its health.
    fn says(&self, name: &str, said: Result<(), BoxError>) {
        self.0.wires.lock().unwrap()[&address(name)].send(said).unwrap();
    }

    fn wires(&self) -> usize {
        self.0.wires.lock().unwrap().values().filter(|wire| !wire.is_closed()).count()
    }
}

struct UnderWay(Arc<DoctorState>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, SeqCst);
    }
}

impl Probe for Doctor {
    fn probe(&self, node: &Arc<Node>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let health = self.0.health.lock().unwrap().get(node.address()).copied();
        self.0.probes.lock().unwrap().push((Instant::now(), node.address().clone()));
        self.0.under_way.fetch_add(1, SeqCst);
        let under_way = UnderWay(self.0.clone());
        async move {
            let _under_way = under_way;
            match health.unwrap_or_default() {
                Health::Well => Ok(()),
                Health::Ill => Err("connection refused".into()),
                Health::Denies => Err(NotServing::new("503").into()),
                Health::Hangs => std::future::pending().await,
                Health::Panics => panic!("the probe panics because the test says so"),
            }
        }
    }

    fn follow(&self, node: &Arc<Node>) -> Option<News> {
        if !self.0.is_followed {
            return None;
        }
        self.0.follows.fetch_add(1, SeqCst);
        let (sender, mut receiver) = mpsc::unbounded_channel();
        self.0.wires.lock().unwrap().insert(node.address().clone(), sender);
        Some(Box::pin(futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))))
    }
}

fn client(world: &World, channel: &Channel, layer: &ActiveHealthLayer<Doctor>) -> Client {
    crate::balance::probe::from_the_first(channel.clone()).layer(layer.layer(world.connector()))
}

/// A running balancer over three endpoints.
async fn running(world: &World, layer: &ActiveHealthLayer<Doctor>) -> (Client, Channel) {
    let channel = Channel::of(&NAMES);
    let mut client = client(world, &channel, layer);
    ready(&mut client).await.unwrap();
    sleep(ms(10)).await;
    (client, channel)
}

async fn call(client: &mut Client) -> String {
    ready(client).await.unwrap().call(1).await.unwrap()
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_its_checks_gets_no_requests_until_it_recovers() {
    let (world, doctor) = (World::default(), Doctor::default());
    let (mut client, _channel) = running(&world, &doctor.layer()).await;

    for (health, after) in
        [(Health::Ill, ms(3_001)), (Health::Denies, ms(2_001)), (Health::Hangs, ms(6_001))]
    {
        doctor.finds("a", health);
        sleep(after).await;
        assert!(world.host("a").node().is_closed_by(Gate::Unhealthy), "{health:?}");
        let before = world.host("a").calls();
        for _ in 0..30 {
            call(&mut client).await;
        }
        assert_eq!(world.host("a").calls(), before, "{health:?}");

        doctor.finds("a", Health::Well);
        sleep(ms(3_501)).await;
        for _ in 0..30 {
            call(&mut client).await;
        }
        assert_eq!(world.host("a").calls(), before + 10, "{health:?}");
    }
    world.assert_contract_kept();
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_has_failed_and_others_go_on() {
    let (world, doctor) = (World::default(), Doctor::default());
    let (_client, _channel) = running(&world, &doctor.layer()).await;
    doctor.finds("a", Health::Panics);

    sleep(ms(10_000)).await;

    assert!(world.host("a").node().is_closed_by(Gate::Unhealthy));
    assert!(world.host("b").node().is_open());
    assert!(5 <= doctor.probes_of("b"));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_in_follow_is_still_made() {
    struct Careless(Arc<AtomicUsize>);

    impl Probe for Careless {
        async fn probe(&self, _: &Arc<Node>) -> Result<(), BoxError> {
            self.0.fetch_add(1, SeqCst);
            Ok(())
        }

        fn follow(&self, _: &Arc<Node>) -> Option<News> {
            panic!("because the test says so")
        }
    }

    let probes = Arc::new(AtomicUsize::new(0));
    let layer = ActiveHealthLayer::new(Careless(probes.clone()));
    let connect = layer.layer(World::default().connector());
    let mut client = crate::balance::probe::from_the_first(Channel::of(&NAMES)).layer(connect);
    ready(&mut client).await.unwrap();

    sleep(ms(10_000)).await;

    assert!(15 <= probes.load(SeqCst), "{probes:?}");
}

/// Records what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("evenkeel::active_health")
            && *metadata.level() <= tracing::Level::INFO
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                _ = write!(self.0, "{field}={value:?} ");
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn closing_and_opening_are_told_with_the_reason() {
    let log = Log::default();
    // While one dispatcher is alone, the thread that meets an event first decides for all whether it is recorded.
    let _second = tracing::Dispatch::new(Log::default());
    let _listening = tracing::subscriber::set_default(log.clone());
    let (world, doctor) = (World::default(), Doctor::default());
    let (_client, _channel) = running(&world, &doctor.layer()).await;
    assert_eq!(log.0.lock().unwrap().len(), 0, "nothing has changed");

    doctor.finds("a", Health::Hangs);
    sleep(ms(10_000)).await;
    doctor.finds("a", Health::Well);
    sleep(ms(10_000)).await;

    let log = log.0.lock().unwrap();
    let [closed, opened] = &**log else { panic!("{log:?}") };
    assert!(closed.contains("closed"), "{closed}");
    assert!(closed.contains("a:80"), "{closed}");
    assert!(closed.contains("no answer to the probe within 1s"), "{closed}");
    assert!(opened.contains("open"), "{opened}");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_endpoint_delays_no_other_and_is_probed_once_at_a_time() {
    let (world, doctor) = (World::default(), Doctor::default());
    doctor.finds("a", Health::Hangs);
    let layer = doctor.layer().timeout(ms(60_000));
    let (_client, _channel) = running(&world, &layer).await;

    sleep(ms(20_000)).await;

    assert_eq!(doctor.probes_of("a"), 1);
    assert!((10..13).contains(&doctor.probes_of("b")));
    assert_eq!(doctor.0.under_way.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn if_endpoints_are_closed_at_first_a_request_waits_for_the_first_passing_probe() {
    let (world, doctor) = (World::default(), Doctor::default());
    for name in NAMES {
        doctor.finds(name, Health::Hangs);
    }
    let layer = doctor.layer().closed_at_first(true);
    let mut client = client(&world, &Channel::of(&NAMES), &layer);
    let mut waiting = tokio_test::task::spawn(call(&mut client));
    assert!(waiting.poll().is_pending());
    sleep(ms(900)).await;
    assert!(waiting.poll().is_pending());
    doctor.finds("b", Health::Well);

    let began = Instant::now();
    assert_eq!(waiting.await, "b:80");

    assert!(began.elapsed() < ms(2_200), "{:?}", began.elapsed());
    assert_eq!(world.host("a").calls() + world.host("c").calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn if_endpoints_are_open_at_first_the_first_request_waits_for_nothing() {
    let (world, doctor) = (World::default(), Doctor::default());
    for name in NAMES {
        doctor.finds(name, Health::Hangs);
    }
    let began = Instant::now();
    let mut client = client(&world, &Channel::of(&NAMES), &doctor.layer());
    call(&mut client).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_endpoints_are_never_probed_in_a_burst() {
    let (world, doctor) = (World::default(), Doctor::default());
    let channel = Channel::default();
    let names: Vec<String> = (0..10_000).map(|n| format!("n{n}")).collect();
    channel.send(set(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    let mut client = client(&world, &channel, &doctor.layer());
    call(&mut client).await;

    sleep(Duration::from_secs(45)).await;

    let probes = doctor.0.probes.lock().unwrap();
    let mut window = std::collections::VecDeque::new();
    for (at, _) in &*probes {
        window.push_back(*at);
        while ms(1_000) <= *at - window[0] {
            window.pop_front();
        }
        assert!(window.len() <= 506, "{} in a second", window.len());
    }
    assert!(22_000 < probes.len(), "and not fewer than allowed: {}", probes.len());
    let first: std::collections::BTreeSet<_> = probes.iter().map(|(_, address)| address).collect();
    assert_eq!(first.len(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn results_outlive_a_flap_of_discovery_and_a_balancer_that_is_made_again() {
    let (world, doctor) = (World::default(), Doctor::default());
    let layer = doctor.layer();
    let (client_before, channel) = running(&world, &layer).await;
    doctor.finds("a", Health::Ill);
    sleep(ms(3_001)).await;
    assert_eq!(layer.results().of(&address("a")), Standing::Down);

    channel.remove("a");
    sleep(ms(10_000)).await;
    assert_eq!(world.host("a").connections(), 0);
    channel.insert(endpoint("a"));
    sleep(ms(1)).await;
    assert_eq!(world.host("a").nodes().len(), 2, "it is another node");
    assert!(world.host("a").node().is_closed_by(Gate::Unhealthy));

    drop((client_before, channel));
    tick().await;
    assert_eq!(tasks(), 0);
    let mut client = client(&world, &Channel::of(&NAMES), &layer);
    for _ in 0..30 {
        call(&mut client).await;
    }
    assert_eq!(world.host("a").calls(), 0);
    doctor.finds("a", Health::Well);
    sleep(ms(3_000)).await;
    for _ in 0..30 {
        call(&mut client).await;
    }
    assert_eq!(world.host("a").calls(), 10, "the task runs again");
}

#[tokio::test(start_paused = true)]
async fn two_balancers_of_one_layer_probe_each_endpoint_once() {
    let (world, doctor) = (World::default(), Doctor::default());
    let layer = doctor.layer();
    let (first, _channel) = running(&world, &layer).await;
    let (second, _channel) = running(&world, &layer.clone()).await;
    sleep(ms(20_000)).await;
    assert!(doctor.probes_of("a") < 14, "{}", doctor.probes_of("a"));

    doctor.finds("a", Health::Denies);
    sleep(ms(2_001)).await;

    for client in [&first, &second] {
        let nodes = client.nodes();
        assert!(nodes[0].is_closed_by(Gate::Unhealthy));
        assert!(nodes[1].is_open());
    }
}

#[tokio::test(start_paused = true)]
async fn the_tasks_end_with_the_last_clone_even_if_nodes_are_kept() {
    let (world, doctor) = (World::default(), Doctor::followed());
    doctor.finds("a", Health::Hangs);
    let layer = doctor.layer().timeout(ms(60_000));
    let (client, channel) = running(&world, &layer).await;
    let (other, kept) = (client.clone(), client.nodes());
    sleep(ms(100)).await;
    assert_eq!(tasks(), 5, "the pool, the checks, a probe that hangs, two that are followed");
    drop(client);
    tick().await;
    assert_eq!(tasks(), 5);

    drop((other, channel));
    for _ in 0..3 {
        tick().await;
    }

    assert_eq!(tasks(), 0);
    assert_eq!(doctor.0.under_way.load(SeqCst), 0);
    assert_eq!(doctor.wires(), 0);
    drop((kept, layer));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_was_cut_off_with_its_balancer_is_made_again_by_the_next() {
    let (world, doctor) = (World::default(), Doctor::default());
    doctor.finds("a", Health::Hangs);
    let layer = doctor.layer();
    let (client, channel) = running(&world, &layer).await;
    assert_eq!(doctor.0.under_way.load(SeqCst), 1);
    drop((client, channel));
    for _ in 0..3 {
        tick().await;
    }
    assert_eq!(doctor.0.under_way.load(SeqCst), 0);

    let (_client, _channel) = running(&world, &layer).await;

    assert_eq!(doctor.probes_of("a"), 2);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_leaves_is_not_probed_any_more() {
    let (world, doctor) = (World::default(), Doctor::followed());
    let (_client, channel) = running(&world, &doctor.layer()).await;
    assert_eq!(doctor.wires(), 3);
    channel.remove("a");
    tick().await;
    let before = doctor.probes_of("a");

    sleep(ms(30_000)).await;

    assert_eq!(doctor.probes_of("a"), before);
    assert_eq!(doctor.wires(), 2);
    assert!(10 < doctor.probes_of("b"));
}

#[tokio::test(start_paused = true)]
async fn what_an_endpoint_reports_of_itself_counts_at_once() {
    let (world, doctor) = (World::default(), Doctor::followed());
    let (_client, _channel) = running(&world, &doctor.layer()).await;

    doctor.says("a", Err("not serving".into()));
    doctor.says("b", Ok(()));
    sleep(ms(1)).await;
    assert!(world.host("a").node().is_closed_by(Gate::Unhealthy));
    assert!(world.host("b").node().is_open());

    doctor.says("a", Ok(()));
    sleep(ms(1)).await;
    assert!(world.host("a").node().is_open());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_causes_a_probe_at_once_and_is_opened_again() {
    let (world, doctor) = (World::default(), Doctor::followed());
    let (_client, _channel) = running(&world, &doctor.layer()).await;
    doctor.says("a", Ok(()));
    sleep(ms(100)).await;
    let before = doctor.probes_of("a");
    let follows = || doctor.0.follows.load(SeqCst);
    assert_eq!(follows(), 3);

    doctor.0.wires.lock().unwrap().remove(&address("a"));
    sleep(ms(1)).await;
    assert_eq!(doctor.probes_of("a"), before + 1);
    assert!(world.host("a").node().is_open());
    sleep(ms(3_001)).await;
    assert_eq!(follows(), 4);

    // A stream that breaks again and again is opened less and less often.
    for _ in 0..100 {
        sleep(ms(6_000)).await;
        doctor.0.wires.lock().unwrap().remove(&address("a"));
    }
    assert!((6..25).contains(&follows()), "{}", follows());
}

#[tokio::test(start_paused = true)]
async fn probes_that_pass_end_an_ejection() {
    for (ends, calls) in [(true, 5 + 10), (false, 5)] {
        let (world, doctor) = (World::default(), Doctor::default());
        let channel = Channel::of(&NAMES);
        let outlier = OutlierLayer::new();
        let mut client = crate::balance::probe::from_the_first(channel.clone()).layer(
            ServiceBuilder::new()
                .layer(outlier.clone())
                .layer(doctor.layer().ends_ejections(ends))
                .service(world.connector()),
        );
        world.host("a").answers(Answer::Error);
        for _ in 0..15 {
            _ = ready(&mut client).await.unwrap().call(1).await;
        }
        assert_eq!(outlier.ejected().list().len(), 1);
        world.host("a").answers(Answer::AtOnce);

        sleep(ms(4_100)).await;

        for _ in 0..30 {
            ready(&mut client).await.unwrap().call(1).await.unwrap();
        }
        assert_eq!(world.host("a").calls(), calls, "{ends}");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_endpoints_are_probed_rarely_until_a_request_comes() {
    let (world, doctor) = (World::default(), Doctor::default());
    let layer = doctor.layer().interval_idle(ms(60_000));
    let (mut client, _channel) = running(&world, &layer).await;
    sleep(ms(50_000)).await;
    assert_eq!(doctor.probes(), 3);

    call(&mut client).await;
    sleep(ms(2_000)).await;
    assert!(6 <= doctor.probes(), "{}", doctor.probes());
    sleep(ms(20_000)).await;
    assert!(30 < doctor.probes(), "{}", doctor.probes());
}

#[tokio::test(start_paused = true)]
async fn if_all_endpoints_fail_all_are_closed_by_a_gate_of_health_and_open_again() {
    let (world, doctor) = (World::default(), Doctor::default());
    let (mut client, _channel) = running(&world, &doctor.layer()).await;
    for name in NAMES {
        doctor.finds(name, Health::Denies);
    }
    sleep(ms(2_001)).await;
    for node in client.nodes() {
        assert_eq!(node.closed_by().collect::<Vec<_>>(), [Gate::Unhealthy]);
    }

    for name in NAMES {
        doctor.finds(name, Health::Well);
    }
    sleep(ms(2_600)).await;

    for _ in 0..30 {
        call(&mut client).await;
    }
    assert_eq!(world.host("a").calls(), 10);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_allocated_on_the_way_through() {
    let doctor = Doctor::default();
    let connect =
        |_: &Arc<Node>| tower::service_fn(|n: u32| std::future::ready(Ok::<_, BoxError>(n)));
    let mut client = ServiceBuilder::new()
        .layer(BalanceLayer::p2c(Channel::of(&NAMES)))
        .layer(doctor.layer().interval_idle(ms(60_000)))
        .service(connect);
    ready(&mut client).await.unwrap();
    for n in 0..1_000 {
        client.call(n).await.unwrap();
    }

    let allocated = allocation_counter::measure(|| {
        for n in 0..1_000 {
            let answer = futures_util::FutureExt::now_or_never(client.call(n));
            assert_eq!(answer.unwrap().unwrap(), n);
        }
    });

    assert_eq!(allocated.count_total, 0);
}

#[test]
fn a_layer_needs_no_runtime_before_it_is_used() {
    let doctor = Doctor::default();
    let world = World::default();
    let client = client(&world, &Channel::of(&NAMES), &doctor.layer());
    drop(client);
    assert_eq!(doctor.probes(), 0);
}
