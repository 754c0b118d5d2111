//! The spans and events that a subscriber of traces gets.
//!
//! A binary of its own, with one subscriber for all its tests. With one for each thread, the first
//! thread that reaches an event would decide for all whether a subscriber listens.

// clippy knows test functions, but not the functions that they share; the clock is the paused one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[allow(dead_code, reason = "shared with the tests of the balancer, which need more of it")]
#[path = "suite/balance/probe.rs"]
mod probe;
#[path = "suite/balance/scenes.rs"]
mod scenes;

use std::{
    cell::RefCell,
    fmt::{Debug, Write},
    sync::{Arc, Once},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    node::Gate,
    retry::{AnyRules, Budget},
};
use evenkeel_layers::{
    balance::BalanceLayer, breaker::CircuitBreakerLayer, deadline::DeadlineLayer,
    hedge::HedgeLayer, observe::ObserveLayer, outlier::OutlierLayer, retry::RetryLayer,
};
use tokio::time::sleep;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    Registry,
    layer::{Context, Layer, SubscriberExt},
    registry::LookupSpan,
};

use self::probe::{Answer, Channel, World, ready};

thread_local! {
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// What is traced on this thread, one event per line.
struct Lines(Level);

impl Lines {
    /// Listens to events at `level` and above. A test calls it before anything else.
    fn listen(level: Level) -> Self {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            tracing::subscriber::set_global_default(Registry::default().with(Recorder)).unwrap();
        });
        Self(level)
    }

    /// What was traced under `target`, with the target left out.
    fn of(&self, target: &str) -> Vec<String> {
        LINES.with_borrow(|lines| {
            let heard = lines.iter().filter(|(level, _)| *level <= self.0);
            let of_target =
                heard.filter_map(|(_, line)| line.strip_prefix(target)?.strip_prefix(' '));
            of_target.map(str::to_owned).collect()
        })
    }
}

struct Recorder;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        let metadata = attributes.metadata();
        let mut line = Line(format!("{} span {}", metadata.target(), metadata.name()));
        attributes.record(&mut line);
        LINES.with_borrow_mut(|lines| lines.push((*metadata.level(), line.0)));
    }

    fn on_record(&self, span: &span::Id, values: &span::Record<'_>, cx: Context<'_, S>) {
        let metadata = cx.metadata(span).unwrap();
        let mut line = Line(format!("recorded {}", metadata.name()));
        values.record(&mut line);
        LINES.with_borrow_mut(|lines| lines.push((*metadata.level(), line.0)));
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let metadata = event.metadata();
        let within = cx.event_span(event).map(|span| format!(" in {}", span.name()));
        let within = within.unwrap_or_default();
        let mut line = Line(format!("{} {}{within}", metadata.target(), metadata.level()));
        event.record(&mut line);
        LINES.with_borrow_mut(|lines| lines.push((*metadata.level(), line.0)));
    }
}

struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, " {}={value}", field.name()).unwrap();
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn an_attempt_has_a_span_with_its_endpoint_and_an_event_when_it_ends() {
    let lines = Lines::listen(Level::DEBUG);
    let endpoints = vec!["10.0.0.1:80".parse().unwrap()];
    let mut client = ServiceBuilder::new()
        .layer(ObserveLayer::new().client("greeter"))
        .layer(crate::probe::from_the_first(endpoints))
        .layer(ObserveLayer::new())
        .service(|_: &Arc<_>| {
            service_fn(|(): ()| {
                tracing::info!(target: "inner", "called");
                async {
                    sleep(ms(7)).await;
                    tracing::info!(target: "inner", "answers");
                    Err::<(), BoxError>("no".into())
                }
            })
        });

    client.ready().await.unwrap().call(()).await.unwrap_err();

    let inner = ["INFO in attempt message=called", "INFO in attempt message=answers"];
    assert_eq!(lines.of("inner"), inner);
    let expected = [
        "span call client=greeter",
        "span attempt endpoint=10.0.0.1:80 otel.kind=client",
        "DEBUG in call message=attempt ended endpoint=10.0.0.1:80 outcome=failure \
         error.type=server latency=7ms",
        "DEBUG message=call ended client=greeter outcome=failure error.type=server latency=7ms",
    ];
    assert_eq!(lines.of("evenkeel::observe"), expected);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_the_status_of_its_attempt_and_of_its_call() {
    let lines = Lines::listen(Level::DEBUG);
    let (world, channel) = (World::default(), Channel::of(&["a"]));
    let mut client = ServiceBuilder::new()
        .layer(ObserveLayer::new())
        .layer(BalanceLayer::round_robin(channel))
        .layer(ObserveLayer::new())
        .service(world.connector());

    ready(&mut client).await.unwrap().call(1).await.unwrap();
    assert_eq!(lines.of("recorded"), [""; 0]);

    world.host("a").answers(Answer::Error);
    ready(&mut client).await.unwrap().call(1).await.unwrap_err();
    let expected = ["attempt otel.status_code=ERROR", "call otel.status_code=ERROR"];
    assert_eq!(lines.of("recorded"), expected);
}

#[tokio::test(start_paused = true)]
async fn a_gate_is_logged_at_info_with_its_name_and_that_of_a_limit_is_not() {
    let lines = Lines::listen(Level::INFO);
    let (world, channel) = (World::default(), Channel::of(&["a"]));
    let mut client = ServiceBuilder::new()
        .layer(crate::probe::from_the_first(channel))
        .layer(ObserveLayer::new())
        .service(world.connector());
    ready(&mut client).await.unwrap().call(1).await.unwrap();

    let node = world.host("a").node();
    for gate in [Gate::Unhealthy, Gate::Limit] {
        node.close(gate);
        node.open(gate);
    }

    let expected = [
        "INFO message=gate closed endpoint=a:80 gate=unhealthy",
        "INFO message=gate opened endpoint=a:80 gate=unhealthy",
    ];
    assert_eq!(lines.of("evenkeel::observe"), expected);
}

#[tokio::test(start_paused = true)]
async fn a_retry_logs_cause_number_and_delay_and_its_end_logs_the_reason() {
    let lines = Lines::listen(Level::DEBUG);
    let retry =
        RetryLayer::new(Budget::default()).rules(AnyRules::idempotent()).max_attempts(2).seed(1);
    let client = ServiceBuilder::new()
        .layer(retry)
        .service(service_fn(|(): ()| async { Err::<(), BoxError>("broken pipe".into()) }));

    client.oneshot(()).await.unwrap_err();

    let [again, end] = &lines.of("evenkeel::retry")[..] else { panic!("two events") };
    let (again, delay) = again.split_once(" delay=").unwrap();
    let expected = "DEBUG message=another attempt attempt=2 error.type=failed error=broken pipe";
    assert_eq!(again, expected);
    assert!(delay.ends_with("ms"), "{delay}");
    let expected =
        "DEBUG message=no other attempt reason=exhausted error.type=failed error=broken pipe";
    assert_eq!(end, expected);
}

#[tokio::test(start_paused = true)]
async fn every_layer_has_a_target_of_its_own() {
    let lines = Lines::listen(Level::DEBUG);
    let (world, channel) = (World::default(), Channel::of(&["a", "b"]));
    let budget = Budget::default();
    let mut client = ServiceBuilder::new()
        .layer(DeadlineLayer::new(ms(100)))
        .layer(HedgeLayer::after(ms(10), budget).rules(AnyRules::idempotent()))
        .layer(crate::probe::from_the_first(channel))
        .layer(OutlierLayer::new())
        .layer(CircuitBreakerLayer::new().consecutive_failures(3))
        .service(world.connector());
    world.host("a").answers(Answer::Error);
    for _ in 0..8 {
        _ = ready(&mut client).await.unwrap().call(1).await;
    }
    for name in ["a", "b"] {
        world.host(name).answers(Answer::Held);
    }

    ready(&mut client).await.unwrap().call(1).await.unwrap_err();

    let breaker = lines.of("evenkeel::breaker");
    let opened = "INFO message=circuit breaker endpoint=a:80 state=open \
                  why=too many calls failed or were slow";
    assert_eq!(breaker, [opened]);
    assert!(lines.of("evenkeel::balance").iter().any(|line| line.contains("endpoint joined")));
    assert_eq!(lines.of("evenkeel::hedge"), ["DEBUG message=second attempt"]);
    let late = ["DEBUG message=deadline exceeded after=100ms"];
    assert_eq!(lines.of("evenkeel::deadline"), late);
}

#[tokio::test(start_paused = true)]
async fn an_ejection_logs_its_cause() {
    let lines = Lines::listen(Level::INFO);
    let (world, channel) = (World::default(), Channel::of(&["a", "b"]));
    let mut client = ServiceBuilder::new()
        .layer(crate::probe::from_the_first(channel))
        .layer(OutlierLayer::new())
        .service(world.connector());
    world.host("a").answers(Answer::Error);

    for _ in 0..10 {
        _ = ready(&mut client).await.unwrap().call(1).await;
    }

    let ejected = "INFO message=endpoint ejected endpoint=a:80 cause=consecutive_errors";
    assert_eq!(lines.of("evenkeel::outlier"), [ejected]);
}

#[tokio::test(start_paused = true)]
async fn health_checks_log_the_new_state_and_its_reason() {
    let lines = Lines::listen(Level::DEBUG);

    scenes::an_endpoint_is_ill_for_a_while().await;

    let failed = "DEBUG message=a health check failed endpoint=a:80 reason=connection refused";
    let expected = [
        failed,
        failed,
        "WARN message=endpoint fails its health check: closed endpoint=a:80 \
         reason=connection refused",
        "INFO message=endpoint passes its health check: open endpoint=a:80",
    ];
    assert_eq!(lines.of("evenkeel::active_health"), expected);
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_logs_when_it_is_reached_and_what_it_learns() {
    let lines = Lines::listen(Level::DEBUG);

    scenes::a_limit_is_reached_and_another_one_learns().await;

    let expected = [
        "DEBUG message=limit reached limit=1 waited=0ns",
        "DEBUG message=limit changed limit=18 before=20",
    ];
    assert_eq!(lines.of("evenkeel::concurrency"), expected);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_logs_which_quota_is_used_up_and_for_how_long() {
    let lines = Lines::listen(Level::DEBUG);

    scenes::rates_are_exceeded().await;

    let expected = [
        "DEBUG message=request refused scope=service retry_after=100ms",
        "DEBUG message=request refused scope=service retry_after=100ms",
        "DEBUG message=request refused scope=key retry_after=100ms",
        "DEBUG message=rate limit used up endpoint=a:80 wait=100ms",
        "DEBUG message=request refused scope=endpoint retry_after=100ms",
        "DEBUG message=rate limit used up endpoint=a:80 wait=100ms",
        "DEBUG message=rate limit used up endpoint=a:80 wait=100ms",
    ];
    assert_eq!(lines.of("evenkeel::rate_limit"), expected);
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_not_sent_or_shed_are_logged() {
    let lines = Lines::listen(Level::DEBUG);

    let throttled = scenes::too_much_is_asked_for().await;

    let mut told = lines.of("evenkeel::admission");
    let shed = told.pop().unwrap();
    assert_eq!(shed, "DEBUG message=request shed priority=4 waited=0ns");
    assert_eq!(told.len(), throttled as usize);
    for line in told {
        assert!(line.starts_with("DEBUG message=request not sent probability=0."), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_at_once_logs_for_how_long_no_endpoint_was_ready() {
    let lines = Lines::listen(Level::DEBUG);

    scenes::no_endpoint_is_ready().await;

    let told = "DEBUG message=call failed at once unready=100ms";
    assert_eq!(lines.of("evenkeel::fail_fast"), [told, told]);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_logs_what_was_not_mirrored_and_what_failed() {
    let lines = Lines::listen(Level::DEBUG);

    scenes::calls_are_mirrored().await;

    let expected = [
        "DEBUG message=a mirrored call failed error=no",
        "DEBUG message=a call was not mirrored reason=full",
        "DEBUG message=a mirrored call took too long",
    ];
    assert_eq!(lines.of("evenkeel::mirror"), expected);
}

#[tokio::test(start_paused = true)]
async fn every_event_and_span_of_a_stack_that_was_named_has_the_name() {
    let _lines = Lines::listen(Level::DEBUG);
    let (world, channel) = (World::default(), Channel::of(&["a", "b"]));
    let idempotent = AnyRules::idempotent();
    let mut client = evenkeel_metrics::named("orders", || {
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(ms(100)))
            .layer(ObserveLayer::new())
            .layer(RetryLayer::new(Budget::default()).rules(idempotent).max_attempts(2))
            .layer(HedgeLayer::after(ms(10), Budget::default()).rules(idempotent))
            .layer(BalanceLayer::round_robin(channel.clone()))
            .layer(OutlierLayer::new())
            .layer(CircuitBreakerLayer::new().consecutive_failures(5))
            .layer(ObserveLayer::new())
            .service(world.connector())
    });

    world.host("a").answers(Answer::Error);
    for _ in 0..12 {
        _ = ready(&mut client).await.unwrap().call(1).await;
    }
    world.host("b").answers(Answer::Held);
    _ = ready(&mut client).await.unwrap().call(1).await;

    let lines =
        LINES.with_borrow(|lines| lines.iter().map(|(_, line)| line.clone()).collect::<Vec<_>>());
    for target in ["balance", "breaker", "deadline", "hedge", "observe", "outlier", "retry"] {
        let target = format!("evenkeel::{target} ");
        assert!(lines.iter().any(|line| line.starts_with(&target)), "{target}: {lines:#?}");
    }
    let is_ours = |line: &&String| line.starts_with("evenkeel::");
    let nameless = lines.iter().filter(is_ours).filter(|line| !line.contains(" client=orders"));
    assert_eq!(nameless.collect::<Vec<_>>(), Vec::<&String>::new());
}
