//! Five axum servers that report their load, and a client under each of five policies. One server
//! is slowed down from outside. Which policies keep sending requests to it, and what does that
//! cost?
//!
//! `-- --picture FOLDER` also draws the result, as `prequal.svg`.
#![allow(clippy::disallowed_methods, reason = "an example may look at its watch")]

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, State},
    routing::{get, put},
};
use bytes::Bytes;
use clap::Parser;
use evenkeel::{
    balance::BalanceLayer,
    core::policy::ClientSideWeighted,
    discovery::Fixed,
    http::{HttpConnector, HttpLoadProbe, LoadMeter, ReportForm, ReportLoadLayer, ServedBy},
};
use evenkeel_sim::chart::{self, Line, Lines};
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use tokio::{sync::Semaphore, task::JoinSet, time::interval};
use tower::{Layer, Service, ServiceExt};

mod common;

const SERVERS: usize = 5;
/// How many requests a server works on at once, for ten milliseconds each: it answers 200 per
/// second.
const WORKERS: usize = 2;
const WORK: Duration = Duration::from_millis(10);
/// If the slow server is slower than this factor, its fair share overloads it.
const SLOWDOWN: u64 = 10;
/// The rate over all servers: a fifth of their capacity.
const PER_SECOND: u32 = 200;
const BEFORE: Duration = Duration::from_secs(2);
const SLOW: Duration = Duration::from_secs(3);
/// The interval between two points of the picture.
const POINT: Duration = Duration::from_millis(250);

#[derive(Parser)]
struct Arguments {
    /// The folder of the picture.
    #[arg(long, value_name = "FOLDER")]
    picture: Option<PathBuf>,
}

/// A server's workers, and the factor by which they are slowed down.
#[derive(Clone)]
struct Machine {
    workers: Arc<Semaphore>,
    slowdown: Arc<AtomicU64>,
    meter: LoadMeter,
}

async fn work(State(machine): State<Machine>) -> &'static str {
    let _worker = machine.workers.acquire().await;
    let slowdown = machine.slowdown.load(SeqCst);
    // The used share of the machine's capacity, as its own metrics would report it.
    let busy = WORKERS - machine.workers.available_permits();
    machine.meter.application_utilization(busy as f64 / WORKERS as f64);
    tokio::time::sleep(WORK * slowdown as u32).await;
    "done"
}

async fn slow_down(State(machine): State<Machine>, Path(slowdown): Path<u64>) {
    machine.slowdown.store(slowdown, SeqCst);
}

fn server() -> Router {
    let meter = LoadMeter::new();
    let machine = Machine {
        workers: Arc::new(Semaphore::new(WORKERS)),
        slowdown: Arc::new(AtomicU64::new(1)),
        meter: meter.clone(),
    };
    let service = Router::new()
        .route("/work", get(work))
        // The outermost layer, so that the wait for a worker counts. It also answers probes.
        .layer(ReportLoadLayer::new(meter).report(ReportForm::Binary));
    // The command that slows it down does not count as load.
    service.route("/slowdown/{times}", put(slow_down)).with_state(machine)
}

/// The results of the requests of one phase.
#[derive(Default)]
struct Phase {
    latencies: Vec<Duration>,
    at_slow: usize,
    /// When each request was sent, and whether it went to the slow server.
    sent: Vec<(Duration, bool)>,
}

impl Phase {
    fn share(&self) -> f64 {
        100.0 * self.at_slow as f64 / self.latencies.len().max(1) as f64
    }

    /// The slow server's share over time, for `span` seconds from `start` on.
    fn points(&self, start: Duration, span: Duration) -> Vec<(f64, f64)> {
        let points = (0..span.as_millis() / POINT.as_millis()).map(|point| POINT * point as u32);
        let share = |first: Duration| {
            let is_in = |sent: &&(Duration, bool)| first <= sent.0 && sent.0 < first + POINT;
            let sent: Vec<_> = self.sent.iter().filter(is_in).collect();
            let at_slow = sent.iter().filter(|sent| sent.1).count();
            let middle = start + first + POINT / 2;
            (middle.as_secs_f64(), 100.0 * at_slow as f64 / sent.len().max(1) as f64)
        };
        points.map(share).collect()
    }

    fn median(&self) -> Duration {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        latencies.get(latencies.len() / 2).copied().unwrap_or_default()
    }

    fn quantile(&mut self, quantile: f64) -> String {
        self.latencies.sort_unstable();
        let rank = (self.latencies.len() as f64 * quantile) as usize;
        match self.latencies.get(rank) {
            Some(latency) => format!("{} ms", latency.as_millis()),
            None => "-".to_owned(),
        }
    }
}

/// Sends requests at a steady rate for `span`, independent of earlier answers.
async fn send<S, B>(client: &S, slow: SocketAddr, span: Duration) -> Result<Phase, common::BoxError>
where
    S: Service<Request<Empty<Bytes>>, Response = http::Response<B>, Error = common::BoxError>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<common::BoxError>> + Send,
{
    let mut pace = interval(Duration::from_secs(1) / PER_SECOND);
    let mut calls = JoinSet::new();
    let began = Instant::now();
    while began.elapsed() < span {
        pace.tick().await;
        let call = client.clone().oneshot(Request::get("/work").body(Empty::new())?);
        let sent = began.elapsed();
        calls.spawn(async move {
            let began = Instant::now();
            let response = call.await?;
            let served_by = response.extensions().get::<ServedBy>().cloned();
            response.into_body().collect().await.map_err(Into::into)?;
            let is_at_slow = served_by.is_some_and(|by| *by.address() == slow.into());
            Ok::<_, common::BoxError>((sent, began.elapsed(), is_at_slow))
        });
    }
    let mut phase = Phase::default();
    while let Some(call) = calls.join_next().await {
        let (sent, latency, is_at_slow) = call??;
        phase.sent.push((sent, is_at_slow));
        phase.latencies.push(latency);
        phase.at_slow += usize::from(is_at_slow);
    }
    Ok(phase)
}

/// Reads reports with long timeouts: the machine may be busy, and connections are not measured
/// here.
fn connector() -> HttpConnector<Empty<Bytes>> {
    HttpConnector::new().load_reports().connect_timeout(Duration::from_secs(5))
}

async fn set_slowdown(server: SocketAddr, times: u64) -> Result<(), common::BoxError> {
    let client = BalanceLayer::pick_first(Fixed::new([server])).layer(connector());
    let request = Request::builder().method(Method::PUT).uri(format!("/slowdown/{times}"));
    let response = client.oneshot(request.body(Empty::<Bytes>::new())?).await?;
    assert!(response.status().is_success());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    type Choose = fn(Fixed) -> BalanceLayer;
    let arguments = Arguments::parse();
    let policies: [(&str, Choose); 5] = [
        ("round_robin", BalanceLayer::round_robin),
        ("client_side_weighted_round_robin", |servers| {
            let policy = ClientSideWeighted::new().blackout(Duration::from_secs(1));
            BalanceLayer::with_policy(servers, policy)
        }),
        ("p2c", BalanceLayer::p2c),
        ("peak_ewma", BalanceLayer::peak_ewma),
        ("prequal", |servers| BalanceLayer::prequal(servers, HttpLoadProbe::new())),
    ];
    println!(
        "{SERVERS} servers, {PER_SECOND} requests a second; one server becomes {SLOWDOWN} times as slow."
    );
    println!("{:34}{:>28}{:>28}", "", "before", "while it is slow");
    let columns = ["its share", "p50", "p99"].map(|column| format!("{column:>10}")).concat();
    println!("{:32}{columns}{columns}", "policy");
    let title = "After two seconds, one of five servers becomes ten times as slow";
    let mut picture = Lines::new(title, "seconds", "% of requests sent to it");
    let mut shares = Vec::new();
    let mut is_busy = false;
    for (name, choose) in policies {
        let mut servers = Vec::new();
        for _ in 0..SERVERS {
            servers.push(common::serve(server()).await?);
        }
        let slow = servers[0];
        let client = choose(Fixed::new(servers)).layer(connector());
        let mut before = send(&client, slow, BEFORE).await?;
        set_slowdown(slow, SLOWDOWN).await?;
        let mut after = send(&client, slow, SLOW).await?;

        // If the machine had no time for the servers, the figures do not show anything about
        // policies.
        is_busy |= Duration::from_millis(40) < before.median();
        print!("{name:32}");
        for phase in [&mut before, &mut after] {
            let (p50, p99) = (phase.quantile(0.5), phase.quantile(0.99));
            print!("{:>8.1} %{p50:>10}{p99:>10}", phase.share());
        }
        println!();
        shares.push((name, after.share()));
        let points = before.points(Duration::ZERO, BEFORE).into_iter();
        let points = points.chain(after.points(BEFORE, SLOW));
        picture = picture.line(Line::new(name, points));
    }
    if let Some(folder) = arguments.picture {
        chart::write_svg(&picture, &folder, "prequal")?;
    }
    if is_busy {
        println!("This machine was too busy for these figures to say anything.");
        return Ok(());
    }
    for (name, share) in shares {
        match name {
            "round_robin" => assert!(15.0 < share, "it does not look where it sends"),
            "peak_ewma" | "prequal" => assert!(share < 10.0, "{name} moves away: {share}"),
            _ => {}
        }
    }
    Ok(())
}
