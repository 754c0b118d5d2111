//! What callers see while the process of an endpoint is stopped: its kernel accepts connections,
//! but the process does not answer.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, process::Stdio, time::Duration};

use bytes::Bytes;
use evenkeel::{
    active_health::ActiveHealthLayer,
    balance::{Balance, BalanceLayer},
    core::{
        error::cause,
        health::check::{Probe, Standing},
        traffic::Tried,
    },
    discovery::Fixed,
    http::{HttpConnector, HttpProbe, RequestError, ServedBy, TcpProbe},
    per_endpoint::PerEndpoint,
};
use http::Request;
use http_body_util::{BodyExt, Empty};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, timeout::TimeoutLayer};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Far longer than any step here takes.
const BOUND: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    process: Child,
}

impl Server {
    async fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_server"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let address = output.lines().next_line().await.unwrap().unwrap().parse().unwrap();
        Self { address, process }
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }
}

fn request() -> Request<Empty<Bytes>> {
    Request::get("/").body(Empty::new()).unwrap()
}

/// Makes a call, reads the body, and returns the endpoint that served it.
async fn ask<S, B>(client: &S, request: Request<Empty<Bytes>>) -> Result<String, BoxError>
where
    S: Service<Request<Empty<Bytes>>, Response = http::Response<B>, Error = BoxError> + Clone,
    B: http_body::Body<Error: Into<BoxError>>,
{
    let response = timeout(BOUND, client.clone().oneshot(request)).await.expect("never hangs")?;
    let served_by = response.extensions().get::<ServedBy>().unwrap().address().to_string();
    response.into_body().collect().await.map_err(Into::into)?;
    Ok(served_by)
}

#[tokio::test]
async fn a_call_over_http2_fails_within_seconds_without_any_timeout_of_the_caller() {
    let server = Server::start().await;
    let client =
        BalanceLayer::p2c(Fixed::new([server.address])).layer(HttpConnector::new().http2());
    ask(&client, request()).await.unwrap();

    server.signal(Signal::STOP);
    let error =
        timeout(Duration::from_secs(5), ask(&client, request())).await.expect("pings notice");

    assert!(cause::<RequestError>(&*error.unwrap_err()).is_some());
    server.signal(Signal::CONT);
    ask(&client, request()).await.expect("it answers again");
}

#[tokio::test]
async fn a_timeout_per_attempt_and_a_second_attempt_hide_a_stopped_process_over_http1() {
    let (stopped, other) = (Server::start().await, Server::start().await);
    let client = ServiceBuilder::new()
        .layer(BalanceLayer::pick_first(Fixed::new([stopped.address, other.address])))
        .layer(PerEndpoint::new(TimeoutLayer::new(Duration::from_millis(200))))
        .service(HttpConnector::new().http1());
    assert_eq!(ask(&client, request()).await.unwrap(), stopped.address.to_string());

    stopped.signal(Signal::STOP);
    let tried = Tried::default();
    let attempt = || {
        let mut request = request();
        request.extensions_mut().insert(tried.clone());
        request
    };
    let first = ask(&client, attempt()).await.unwrap_err();
    let second = ask(&client, attempt()).await.unwrap();

    assert!(cause::<tower::timeout::error::Elapsed>(&*first).is_some(), "{first}");
    assert_eq!(second, other.address.to_string());
    assert!(client.nodes().iter().all(|node| node.in_flight() == 0));
    stopped.signal(Signal::CONT);
    assert_eq!(ask(&client, request()).await.unwrap(), stopped.address.to_string());
}

#[tokio::test]
async fn a_killed_process_costs_an_error_at_once_and_the_next_attempt_goes_elsewhere() {
    let (mut killed, other) = (Server::start().await, Server::start().await);
    let endpoints = Fixed::new([killed.address, other.address]);
    let client: Balance<_> = BalanceLayer::pick_first(endpoints).layer(HttpConnector::new());
    ask(&client, request()).await.unwrap();

    killed.process.kill().await.unwrap();
    let tried = Tried::default();
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        let mut request = request();
        request.extensions_mut().insert(tried.clone());
        outcomes.push(ask(&client, request).await.ok());
    }

    assert_eq!(outcomes, [None, Some(other.address.to_string())]);
}

#[tokio::test]
async fn health_checks_notice_a_stopped_process_and_its_recovery_without_any_request() {
    let (stopped, other) = (Server::start().await, Server::start().await);
    let checks = ActiveHealthLayer::new(HttpProbe::new("/"))
        .interval(Duration::from_millis(100))
        .interval_edge(Duration::from_millis(20))
        .timeout(Duration::from_millis(200));
    let results = checks.results();
    let client = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(Fixed::new([stopped.address, other.address])))
        .layer(checks)
        .service(HttpConnector::new());
    ask(&client, request()).await.unwrap();
    let becomes = async |standing| {
        let reached = async {
            while results.of(&stopped.address.into()) != standing {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(BOUND, reached).await.expect("checks notice");
    };
    becomes(Standing::Up).await;

    stopped.signal(Signal::STOP);
    becomes(Standing::Down).await;
    for _ in 0..10 {
        assert_eq!(ask(&client, request()).await.unwrap(), other.address.to_string());
    }
    let node = &client.nodes()[0];
    timeout(BOUND, TcpProbe::new().probe(node)).await.unwrap().expect("its kernel accepts for it");

    stopped.signal(Signal::CONT);
    becomes(Standing::Up).await;
    let served = [(); 2].map(|()| ask(&client, request()));
    let [first, second] = served;
    assert_ne!(first.await.unwrap(), second.await.unwrap());
}
