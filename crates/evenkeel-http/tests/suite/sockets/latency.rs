//! What counts as latency, and what does not.

use std::time::Duration;

use ::http::{Request, Response};
use evenkeel_core::endpoint::{Address, Endpoint};
use evenkeel_http::{HttpConnector, Untimed};
use evenkeel_layers::balance::{Balance, BalanceLayer};
use http_body_util::{Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tower::{Layer, Service, ServiceExt};

use crate::sockets::support::{Payload, get, serve, text, within};

type Client = Balance<HttpConnector<Payload>>;

fn client(address: Address) -> Client {
    BalanceLayer::peak_ewma(vec![Endpoint::new(address)]).layer(HttpConnector::new())
}

fn estimate(client: &Client) -> Option<Duration> {
    client.nodes()[0].latency().estimate()
}

async fn send(client: &mut Client, request: Request<Payload>) -> String {
    let response = within(client.ready().await.unwrap().call(request)).await.unwrap();
    text(response).await
}

/// Lets this much time pass at once for the client and the server, which share a runtime.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Answers at once, unless asked to wait or to refuse.
async fn answer(request: Request<Incoming>) -> Response<Payload> {
    let mut response = Response::new(Full::from("hello"));
    match request.uri().path() {
        "/poll" => pass(Duration::from_millis(300)).await,
        path => {
            if let Ok(status) = path[1..].parse::<u16>() {
                *response.status_mut() = status.try_into().unwrap();
                response.headers_mut().insert("retry-after", 30.into());
            }
        }
    }
    response
}

#[tokio::test]
async fn a_server_costs_the_time_for_which_it_asks_to_be_spared() {
    let cost = |client: &Client| {
        Duration::from_nanos(client.nodes()[0].latency().cost(0, evenkeel_clock::now()) as u64)
    };
    for path in ["/429", "/503"] {
        let mut client = client(serve(answer).await);
        send(&mut client, get("/")).await;
        assert!(cost(&client) < Duration::from_secs(5));
        send(&mut client, get(path)).await;
        assert!(Duration::from_secs(25) <= cost(&client), "{path}");
        assert!(estimate(&client).unwrap() < Duration::from_secs(5), "{path}");
    }
}

#[tokio::test]
async fn a_request_marked_as_a_long_poll_gives_no_latency_sample() {
    let mut client = client(serve(answer).await);
    let mut poll = get("/poll");
    poll.extensions_mut().insert(Untimed);
    send(&mut client, poll).await;
    assert_eq!(estimate(&client), None);
    send(&mut client, get("/poll")).await;
    assert!(Duration::from_millis(300) <= estimate(&client).unwrap());
}

#[tokio::test]
async fn the_latency_of_a_stream_is_that_of_its_head() {
    let (frames, received) = mpsc::channel::<Bytes>(1);
    let received = std::sync::Mutex::new(Some(received));
    let received = std::sync::Arc::new(received);
    let address = serve(move |_| {
        let received = received.lock().unwrap().take().unwrap();
        let frames = ReceiverStream::new(received);
        let frames = frames.map(|data| Ok::<_, std::io::Error>(Frame::data(data)));
        async { Response::new(StreamBody::new(frames)) }
    })
    .await;
    let mut client = client(address);
    let response = within(client.ready().await.unwrap().call(get("/"))).await.unwrap();
    frames.send("news".into()).await.unwrap();
    pass(Duration::from_secs(2)).await;
    drop(frames);
    assert_eq!(text(response).await, "news");
    assert!(estimate(&client).unwrap() < Duration::from_secs(1));
}
