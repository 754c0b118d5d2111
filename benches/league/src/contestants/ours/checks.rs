//! Asks those who are ejected for their health, so that they come back when they are well again.

use std::time::Duration;

use bytes::Bytes;
use evenkeel::outlier::Ejected;
use futures_util::future::join_all;
use http::Request;
use http_body_util::Empty;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    task::{AbortHandle, spawn},
    time::{interval, timeout},
};

use crate::{
    endpoint::HEALTH_PATH,
    scene::{ENDPOINTS, Place},
};

const INTERVAL: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_millis(100);

/// The task that asks; it ends with this.
pub(super) struct Checks(AbortHandle);

impl Drop for Checks {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) fn start(ejected: Ejected, places: [Place; ENDPOINTS]) -> Checks {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(TIMEOUT));
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let asked = async move {
        let mut ticks = interval(INTERVAL);
        loop {
            ticks.tick().await;
            let out = ejected.list();
            let is_out =
                |place: &&Place| out.iter().any(|(address, _)| *address == place.requests.into());
            join_all(places.iter().filter(is_out).map(async |place| {
                if is_well(&client, place).await {
                    ejected.passed_check(&place.requests.into());
                }
            }))
            .await;
        }
    };
    Checks(spawn(asked).abort_handle())
}

async fn is_well(client: &Client<HttpConnector, Empty<Bytes>>, place: &Place) -> bool {
    let uri = format!("http://{}{HEALTH_PATH}", place.health);
    let Ok(request) = Request::get(uri).body(Empty::new()) else { return false };
    let answer = timeout(TIMEOUT, client.request(request)).await;
    matches!(answer, Ok(Ok(response)) if response.status().is_success())
}
