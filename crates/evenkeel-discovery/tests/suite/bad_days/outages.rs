//! Failures of the connection and of whole answers.

use std::{
    fmt::{Debug, Write},
    sync::{Arc, LazyLock, Mutex},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use evenkeel_core::{
    BoxError,
    error::{NoEndpoints, cause},
    node::Node,
};
use evenkeel_discovery::register::Entry;
use evenkeel_layers::balance::BalanceLayer;
use tower::{Layer, ServiceExt, service_fn};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::bad_days::{
    faulty::{Fault, Faulty},
    harness::{HOLD, Harness, Instance},
    servers::until,
    slow_motion::Motion,
    watching::Watching,
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Two instances, and a watch that follows them.
async fn two<H: Harness>(harness: &mut H) -> Watching {
    harness.set(&Instance::ports([1, 2])).await;
    let mut watching = Watching::new(&harness.discovery());
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
    watching
}

/// Enters a third instance, which is found.
async fn recovers<H: Harness>(harness: &mut H, watching: &mut Watching) {
    harness.set(&Instance::ports([1, 2, 3])).await;
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"]).await;
    assert!(2 <= watching.least, "a moment with {}", watching.least);
}

pub(crate) async fn a_registry_that_is_away_at_the_start_is_found_when_it_comes<H: Harness>(
    mut harness: H,
) {
    harness.set(&Instance::ports([1])).await;
    harness.way().shut();
    let balance = BalanceLayer::round_robin(harness.discovery()).max_wait(ms(700)).layer(
        |node: &Arc<Node>| {
            let address = node.address().to_string();
            service_fn(move |_: ()| std::future::ready(Ok::<_, BoxError>(address.clone())))
        },
    );

    let refused = balance.clone().oneshot(()).await.unwrap_err();
    assert!(cause::<NoEndpoints>(&*refused).is_some(), "{refused:?}");

    harness.way().open();
    until("an answer", || async { balance.clone().oneshot(()).await.is_ok() }).await;
}

pub(crate) async fn bytes_that_come_late_or_one_by_one_make_the_same_set<H: Harness>(
    mut harness: H,
) {
    let instances = Instance::ports(1..=5);
    harness.set(&instances).await;
    let expected: Vec<_> = instances.iter().map(|instance| &*instance.address).collect();
    for motion in [Motion::Single, Motion::Late(ms(100))] {
        harness.way().set(motion);
        let mut watching = Watching::new(&harness.discovery());
        watching.until_addresses(&expected).await;
        assert_eq!(watching.least, 5, "{motion:?}: never a part of it");

        harness.set(&Instance::ports(1..=6)).await;
        watching.until(|set| set.len() == 6).await;
        assert!(watching.failures.is_empty(), "{motion:?}: {:?}", watching.failures);
        harness.set(&instances).await;
        watching.until(|set| set.len() == 5).await;
    }
}

pub(crate) async fn an_answer_that_is_held_is_given_up<H: Harness>(mut harness: H) {
    let mut watching = two(&mut harness).await;

    harness.way().set(Motion::Held);
    let failed = watching.until_failure().await.to_string();
    assert!(failed.contains("endpoints kept: 2"), "{failed}");
    harness.way().open();

    recovers(&mut harness, &mut watching).await;
}

pub(crate) async fn an_answer_that_is_cut_off_anywhere_empties_nothing<H: Harness>(mut harness: H) {
    let mut watching = two(&mut harness).await;
    for bytes in [0, 1, 9, 30, 100, 200, 350, 500, 900] {
        harness.way().set(Motion::CutAfter(bytes));
        harness.way().cut();
        watching.during(ms(150)).await;
        assert!(2 <= watching.least, "cut off after {bytes} bytes");
    }
    harness.way().open();
    recovers(&mut harness, &mut watching).await;
}

pub(crate) async fn garbled_bytes_empty_nothing<H: Harness>(mut harness: H) {
    let mut watching = two(&mut harness).await;

    harness.way().set(Motion::Garbled);
    harness.way().cut();
    watching.until_failure().await;
    watching.during(ms(500)).await;
    assert_eq!(watching.addresses(), ["10.0.0.1:1", "10.0.0.1:2"]);
    harness.way().open();

    recovers(&mut harness, &mut watching).await;
}

pub(crate) async fn connections_that_are_closed_each_second_lose_no_change<H: Harness>(
    mut harness: H,
) {
    let mut watching = two(&mut harness).await;
    let before = harness.way().tried().len();
    for port in 3..=8 {
        harness.set(&Instance::ports(1..=port)).await;
        watching.during(ms(1_000)).await;
        harness.way().cut();
    }

    watching.until(|set| set.len() == 8).await;
    assert_eq!(watching.least, 2);
    let tried = harness.way().tried().len() - before;
    assert!(tried <= 60, "{tried} connections for 6 that were closed");
}

pub(crate) async fn the_last_set_stays_whatever_answers_in_its_place<H: Harness>(mut harness: H) {
    for fault in [
        Fault::Status(403),
        Fault::Status(429),
        Fault::Status(500),
        Fault::Status(503),
        Fault::Redirect,
        Fault::Page,
        Fault::Nothing,
        Fault::Half,
        Fault::Endless,
        Fault::Huge,
        Fault::Garbage,
        Fault::Refusal(7),
        Fault::Refusal(8),
        Fault::Refusal(14),
        Fault::Refusal(16),
        Fault::Silence,
    ] {
        let mut watching = two(&mut harness).await;
        let faulty = Faulty::start(fault).await;
        harness.way().lead_to(&faulty.url);
        let failed = watching.until_failure().await.to_string();
        assert!(failed.contains("endpoints kept: 2"), "{fault:?}: {failed}");
        watching.during(ms(200)).await;
        assert_eq!(watching.addresses(), ["10.0.0.1:1", "10.0.0.1:2"], "{fault:?}");

        harness.way().lead_to(&harness.url());
        recovers(&mut harness, &mut watching).await;
    }
}

/// Leases expire while they cannot be renewed, and are gone one after the other when the registry
/// is back.
pub(crate) async fn an_endpoint_missing_soon_after_an_outage_is_kept_for_a_while<H: Harness>(
    mut harness: H,
) {
    let mut watching = two(&mut harness).await;
    harness.way().shut();
    watching.until_failure().await;
    watching.during(ms(4_000)).await;
    harness.way().open();
    recovers(&mut harness, &mut watching).await;

    harness.set(&Instance::ports([1, 3, 4])).await;
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3", "10.0.0.1:4"]).await;
    harness.set(&Instance::ports([3, 4])).await;
    watching.during(ms(1_000)).await;
    assert_eq!(watching.addresses().len(), 4, "missing ones are kept, new ones used at once");

    watching.until_addresses(&["10.0.0.1:3", "10.0.0.1:4"]).await;
    harness.set(&Instance::ports([4])).await;
    let start = Instant::now();
    watching.until_addresses(&["10.0.0.1:4"]).await;
    assert!(start.elapsed() < HOLD / 2, "afterwards the set is as before: {:?}", start.elapsed());
}

pub(crate) async fn an_endpoint_that_left_in_an_outage_is_kept_for_a_bounded_time<H: Harness>(
    mut harness: H,
) {
    let mut watching = two(&mut harness).await;
    harness.way().shut();
    watching.until_failure().await;
    harness.set(&Instance::ports([2])).await;
    watching.during(ms(4_000)).await;
    harness.way().open();
    let start = Instant::now();
    watching.until_addresses(&["10.0.0.1:2"]).await;
    assert!((HOLD..HOLD * 2).contains(&start.elapsed()), "{:?}", start.elapsed());
}

pub(crate) async fn an_outage_is_logged_when_it_begins_and_when_it_ends<H: Harness>(
    mut harness: H,
) {
    // One for the whole process: a subscriber on one thread alone may miss events that another
    // thread met first.
    static LINES: LazyLock<Lines> = LazyLock::new(Lines::default);
    let _ = tracing::subscriber::set_global_default(LINES.clone());
    let mut watching = two(&mut harness).await;

    harness.way().shut();
    watching.until_failure().await;
    watching.during(ms(2_500)).await;
    harness.way().open();
    recovers(&mut harness, &mut watching).await;

    let lines = LINES.0.lock().unwrap();
    let here = thread::current().id();
    let of = |start: &str| {
        lines.iter().filter(|(thread, line)| *thread == here && line.starts_with(start)).count()
    };
    assert_eq!(of("WARN discovery fails"), 1, "{lines:?}");
    assert_eq!(of("INFO discovery works again"), 1, "{lines:?}");
}

pub(crate) async fn a_registration_heals_after_outages_and_holds_up_no_service<H: Harness>(
    harness: H,
) {
    let entry = Entry::new("web", "10.0.0.1:80".parse().unwrap());
    let registered = harness.register_at(&harness.way().url, entry);
    registered.entered().await;
    for motion in [Motion::Held, Motion::Garbled, Motion::CutAfter(20), Motion::Shut] {
        harness.way().set(motion);
        if motion != Motion::Held {
            harness.way().cut();
        }
        registered.failing().await;
        harness.way().open();
        registered.entered().await;
    }
    let mut watching = Watching::new(&harness.discovery());
    watching.until_addresses(&["10.0.0.1:80"]).await;

    harness.way().set(Motion::Held);
    let start = Instant::now();
    registered.leave().await;
    // The try under way, and the one to leave, 3 s each.
    assert!(start.elapsed() < ms(8_000), "{:?}", start.elapsed());
}

/// The log from INFO on, with the thread of each line: each test has its own thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(ThreadId, String)>>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("evenkeel") && *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                if field.name() == "message" {
                    write!(self.0, "{value:?}").unwrap();
                }
            }
        }
        let mut message = Message(format!("{} ", event.metadata().level()));
        event.record(&mut message);
        self.0.lock().unwrap().push((thread::current().id(), message.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
