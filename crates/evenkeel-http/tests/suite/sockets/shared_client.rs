//! Existing clients.

use evenkeel_core::{connect::Connect, endpoint::Address, error::cause, why::Why};
use evenkeel_http::{InvalidRequest, ServedBy, SharedClient, error_status};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::ServiceExt;

use crate::sockets::support::{Payload, echo, get, node, serve, stack, text, within};

#[tokio::test]
async fn a_hyper_client_goes_to_the_endpoint_and_keeps_the_host() {
    let client: Client<_, Payload> = Client::builder(TokioExecutor::new()).build_http();
    let connect = SharedClient::new(client);
    for (uri, host) in [("http://a.b/x", Some("a.b")), ("/x", None)] {
        let (node, _) = node(serve(echo).await);

        let mut request = get(uri);
        request.extensions_mut().insert(Why::new());
        let response = within(stack(&connect, &node).oneshot(request)).await.unwrap();

        assert_eq!(response.extensions().get::<ServedBy>().unwrap().address(), node.address());
        assert!(response.extensions().get::<Why>().is_some(), "what it asked for comes back");
        let host = host.map_or(node.address().to_string(), str::to_owned);
        assert_eq!(text(response).await, format!("HTTP/1.1 {host} /x "));
        assert_eq!(node.in_flight(), 0);
    }
}

#[tokio::test]
async fn a_unix_socket_is_refused() {
    let client: Client<_, Payload> = Client::builder(TokioExecutor::new()).build_http();
    let (node, _) = node(Address::unix("/run/none.sock"));

    let service = SharedClient::new(client).connect(&node);
    let error = within(service.oneshot(get("/"))).await.unwrap_err();

    assert_eq!(cause::<InvalidRequest>(error.as_ref()), Some(&InvalidRequest::Address));
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn reqwest_is_used_with_its_own_types() {
    let (node, _) = node(serve(echo).await);
    let client = reqwest::Client::new();
    let stack = stack(&SharedClient::reqwest(client.clone()), &node);

    let request = client.post("http://a.b/x").body("hello").build().unwrap();
    let request: http::Request<reqwest::Body> = request.try_into().unwrap();
    let response: reqwest::Response = within(stack.oneshot(request)).await.unwrap().into();

    assert!(response.extensions().get::<ServedBy>().is_some());
    assert_eq!(node.in_flight(), 1);
    assert_eq!(within(response.text()).await.unwrap(), "HTTP/1.1 a.b /x hello");
    assert_eq!(node.in_flight(), 0);
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn a_timeout_of_reqwests_client_is_a_gateway_timeout() {
    let silent = |_| std::future::pending::<http::Response<Payload>>();
    let (node, _) = node(serve(silent).await);
    let client = reqwest::Client::builder().timeout(std::time::Duration::from_millis(100));
    let stack = stack(&SharedClient::reqwest(client.build().unwrap()), &node);
    let request = http::Request::get("http://a.b/x").body(reqwest::Body::default()).unwrap();

    let error = within(stack.oneshot(request)).await.unwrap_err();

    assert_eq!(error_status(error.as_ref()), http::StatusCode::GATEWAY_TIMEOUT, "{error:?}");
}
