//! An open-loop load: calls start on time, independent of earlier ones.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel::http::ServedBy;
use http::{Request, Response};
use http_body_util::Empty;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tower::ServiceExt;

use crate::{BoxError, clock, pipeline::Client, stats::Stats};

/// Starts `rate` calls per second for `duration`, then waits for the last of them.
pub(crate) async fn run(client: Client, rate: u32, duration: Duration, stats: Arc<Stats>) {
    let start = clock::now();
    let mut ticks = interval(Duration::from_millis(2));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut calls = JoinSet::new();
    let mut started = 0;
    while start.elapsed() < duration && !stats.is_stopped() {
        ticks.tick().await;
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        for _ in started..due {
            calls.spawn(call(client.clone(), stats.clone()));
        }
        started = started.max(due);
        while calls.try_join_next().is_some() {}
    }
    calls.join_all().await;
}

async fn call(client: Client, stats: Arc<Stats>) {
    let request = Request::get("/work").body(Empty::<Bytes>::new()).expect("a valid request");
    let start = clock::now();
    let result = client.oneshot(request).await.and_then(|response| check(&response));
    stats.record(result, start.elapsed());
}

/// The endpoint that served the response, if the response is correct.
fn check(response: &Response<Bytes>) -> Result<String, BoxError> {
    let served_by =
        response.extensions().get::<ServedBy>().ok_or("the response names no endpoint")?;
    let endpoint = served_by.address().to_string();
    match (response.status().is_success(), &response.body()[..]) {
        (true, b"done\n") => Ok(endpoint),
        (status, body) => Err(format!("{endpoint} answered {status} {body:?}").into()),
    }
}
