//! Callers: a fixed number of requests per second, some of which are cancelled.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel::core::rng::Rng;
use http::Request;
use http_body_util::Full;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tower::ServiceExt;

use crate::{
    args::Args,
    ledger::{End, Ledger, is_idempotent},
    pipeline::Client,
    server::NUMBER,
};

/// The number of requests in each batch.
const BURST: u32 = 10;

/// One of this many callers cancels its request soon.
const GIVE_UP: usize = 50;

/// No request may take longer, because the deadline is shorter.
const LOST_AFTER: Duration = Duration::from_secs(20);

/// Makes all requests, and waits until each has ended.
pub(crate) async fn run(client: Client, args: Args, ledger: Arc<Ledger>) {
    let mut rng = Rng::with_seed(args.seed);
    let mut ticks = interval(Duration::from_secs(1) * BURST / args.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    'load: loop {
        ticks.tick().await;
        for _ in 0..BURST {
            let Some(number) = ledger.next() else { break 'load };
            let patience = if rng.below(GIVE_UP) == 0 {
                Duration::from_micros(rng.below_u64(5_000))
            } else {
                LOST_AFTER
            };
            calls.spawn(call(client.clone(), number, patience, ledger.clone()));
        }
        while calls.try_join_next().is_some() {}
    }
    while calls.join_next().await.is_some() {}
}

async fn call(client: Client, number: usize, patience: Duration, ledger: Arc<Ledger>) {
    let method = if is_idempotent(number) { "GET" } else { "POST" };
    let body = if is_idempotent(number) { Bytes::new() } else { number.to_string().into() };
    let request = Request::builder()
        .method(method)
        .uri("/")
        .header(NUMBER, number)
        .body(Full::new(body.clone()))
        .expect("a sound request");
    let end = match timeout(patience, client.oneshot(request)).await {
        Ok(Ok(response)) if response.status().is_success() => {
            assert_eq!(response.into_body(), body, "the answer to another request");
            End::Answered
        }
        Ok(_) => End::Failed,
        Err(_) if patience == LOST_AFTER => return,
        Err(_) => End::Cancelled,
    };
    ledger.ended(number, end);
}
