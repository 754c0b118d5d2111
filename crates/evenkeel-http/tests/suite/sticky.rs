//! Sessions stay on their server, and find another one when it is gone.

use std::{collections::HashSet, time::Duration};

use evenkeel_core::{
    endpoint::{Address, Endpoint},
    node::{Gate, Node},
    traffic::Tried,
};
use evenkeel_http::{HttpConnector, Prefer, SameSite, Sticky, StickyLayer};
use evenkeel_layers::balance::{Balance, BalanceLayer};
use http::{HeaderValue, Request, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use tower::{Layer, ServiceExt};

use crate::fleet;

const SECRET: &str = "a secret of 16 bytes or more";

type Payload = Empty<Bytes>;
type Client = Sticky<Balance<HttpConnector<Payload>>>;

fn client(layer: &StickyLayer, endpoints: Vec<Endpoint>) -> Client {
    layer.layer(BalanceLayer::round_robin(endpoints).layer(HttpConnector::new()))
}

fn request(path: &str, cookie: Option<&str>) -> Request<Payload> {
    let mut request = Request::get(path).body(Payload::new()).unwrap();
    if let Some(cookie) = cookie {
        request.headers_mut().insert(header::COOKIE, HeaderValue::from_str(cookie).unwrap());
    }
    request
}

/// The server that answered, and the cookie that was set.
async fn send(client: &Client, request: Request<Payload>) -> (String, Option<String>) {
    let response = client.clone().oneshot(request).await.unwrap();
    let set = response
        .headers()
        .get(header::SET_COOKIE)
        .map(|line| line.to_str().unwrap().split(';').next().unwrap().to_owned());
    (fleet::name(response).await, set)
}

#[tokio::test]
async fn a_session_stays_where_it_began() {
    let endpoints = fleet::endpoints(3).await;
    for layer in [StickyLayer::signed(SECRET), StickyLayer::opaque(SECRET)] {
        let client = client(&layer, endpoints.clone());
        let mut homes = HashSet::new();
        for _ in 0..3 {
            let (home, cookie) = send(&client, request("/", None)).await;
            let cookie = cookie.expect("a session begins");
            for _ in 0..5 {
                let again = send(&client, request("/", Some(&cookie))).await;
                assert_eq!(again, (home.clone(), None), "a cookie that is there is not set again");
            }
            homes.insert(home);
        }
        assert_eq!(homes.len(), 3, "sessions begin where the policy says");
    }
}

#[tokio::test]
async fn a_session_moves_when_its_endpoint_closes_and_stays_there() {
    let layer = StickyLayer::signed(SECRET);
    let balance = BalanceLayer::round_robin(fleet::endpoints(3).await).layer(HttpConnector::new());
    let nodes = balance.clone();
    let client: Client = layer.layer(balance);
    let (home, cookie) = send(&client, request("/", None)).await;
    let cookie = cookie.unwrap();

    let of = |node: &&std::sync::Arc<Node>| node.address().to_string() == home;
    let nodes = nodes.nodes();
    let node = nodes.iter().find(of).unwrap();
    node.close(Gate::Unhealthy);
    let (second, moved) = send(&client, request("/", Some(&cookie))).await;
    assert_ne!(second, home);
    let moved = moved.expect("the cookie is set again");
    node.open(Gate::Unhealthy);

    assert_eq!(send(&client, request("/", Some(&moved))).await, (second, None));
}

#[tokio::test]
async fn a_stale_cookie_in_front_of_the_right_one_moves_no_session() {
    let layer = StickyLayer::signed(SECRET);
    let client = client(&layer, fleet::endpoints(3).await);
    let (home, cookie) = send(&client, request("/", None)).await;
    let cookie = cookie.unwrap();
    let gone = BalanceLayer::round_robin(fleet::endpoints(1).await).layer(HttpConnector::new());
    let (_, stale) = send(&layer.layer(gone), request("/", None)).await;
    let stale = stale.unwrap();

    for front in [&stale, "evenkeel=nonsense", "evenkeel="] {
        for _ in 0..4 {
            let sent = send(&client, request("/", Some(&format!("{front}; {cookie}")))).await;
            assert_eq!(sent, (home.clone(), None), "{front}");
        }
    }
}

#[test]
fn a_cookie_that_browsers_would_not_keep_is_refused() {
    let sticky = || StickyLayer::signed(SECRET);
    let refused = |set: fn(StickyLayer) -> StickyLayer| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| set(sticky()))).is_err()
    };
    assert!(refused(|sticky| sticky.name("__Host-sid").path("/cart")));
    assert!(refused(|sticky| sticky.path("/cart").name("__host-sid")));
    assert!(refused(|sticky| sticky.name("__Host-sid").domain("a.b")));
    assert!(refused(|sticky| sticky.domain("a.b").name("__Host-Http-sid")));
    assert!(!refused(|sticky| sticky.name("__Secure-sid").domain("a.b").path("/cart")));
    assert!(!refused(|sticky| sticky.name("__Host-sid").path("/").secure(false)));
}

#[tokio::test]
async fn a_session_whose_endpoint_is_gone_gets_another() {
    let layer = StickyLayer::opaque(SECRET);
    let endpoints = fleet::endpoints(2).await;
    let before = client(&layer, endpoints[..1].to_vec());
    let (home, cookie) = send(&before, request("/", None)).await;

    let after = client(&layer, endpoints[1..].to_vec());
    let (elsewhere, moved) = send(&after, request("/", cookie.as_deref())).await;

    assert_ne!(elsewhere, home);
    assert!(moved.is_some());
}

#[tokio::test]
async fn a_call_that_has_tried_the_endpoint_goes_to_another() {
    let layer = StickyLayer::signed(SECRET);
    let balance = BalanceLayer::round_robin(fleet::endpoints(2).await).layer(HttpConnector::new());
    let nodes = balance.clone();
    let client: Client = layer.layer(balance);
    let (home, cookie) = send(&client, request("/", None)).await;

    let mut again = request("/", cookie.as_deref());
    let tried = Tried::default();
    let nodes = nodes.nodes();
    tried.add(nodes.iter().find(|node| node.address().to_string() == home).unwrap().id());
    again.extensions_mut().insert(tried);
    let (other, moved) = send(&client, again).await;

    assert_ne!(other, home);
    assert!(moved.is_some());
}

#[tokio::test]
async fn no_session_begins_with_a_response_that_failed() {
    let client = client(&StickyLayer::signed(SECRET), fleet::endpoints(1).await);
    let response = client.oneshot(request("/fail", None)).await.unwrap();
    assert_eq!(response.status(), 500);
    assert!(!response.headers().contains_key(header::SET_COOKIE));
}

#[tokio::test]
async fn a_forged_cookie_is_not_taken_for_a_session() {
    let endpoints = fleet::endpoints(2).await;
    let layer = StickyLayer::signed(SECRET);
    let forged = client(&StickyLayer::signed("another secret of some length"), endpoints.clone());
    let (_, forged) = send(&forged, request("/", None)).await;
    let client = client(&layer, endpoints);
    for cookie in
        [forged.as_deref().unwrap(), "evenkeel=", "evenkeel=.", "evenkeel=a.b.c", "evenkeel"]
    {
        assert_eq!(layer.endpoint(request("/", Some(cookie)).headers()), None);
        let (_, set) = send(&client, request("/", Some(cookie))).await;
        assert!(set.is_some(), "{cookie} was taken for a session");
    }
}

#[test]
fn no_bytes_make_the_reader_of_cookies_panic() {
    let mut rng = evenkeel_core::rng::Rng::with_seed(11);
    // Signed by the secret for 10.0.0.1:80, so that some bytes come close.
    let genuine = "MTAuMC4wLjE6ODA.Jv0yPbXPiuuyX2eJ1urDeQ";
    let layers = [StickyLayer::signed(SECRET), StickyLayer::opaque(SECRET)];
    let genuine_request = request("/", Some(&format!("evenkeel={genuine}")));
    assert!(layers[0].endpoint(genuine_request.headers()).is_some());
    for _ in 0..20_000 {
        let mut bytes = format!("a=b; evenkeel={genuine}").into_bytes();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(bytes.len());
            match rng.below(3) {
                0 => bytes[at] = rng.below(256) as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.extend_from_within(at..),
            }
        }
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { continue };
        let mut headers = http::HeaderMap::new();
        headers.insert(header::COOKIE, value);
        for layer in &layers {
            let read = layer.endpoint(&headers);
            assert!(read.is_none_or(|address| address.to_string() == "10.0.0.1:80"), "forged");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_the_request_itself_prefers_comes_first() {
    let endpoints = fleet::endpoints(2).await;
    let client = client(&StickyLayer::signed(SECRET), endpoints.clone());
    let (home, cookie) = send(&client, request("/", None)).await;
    let other: Address =
        endpoints.iter().map(|e| e.address.clone()).find(|a| a.to_string() != home).unwrap();

    let mut preferring = request("/", cookie.as_deref());
    preferring.extensions_mut().insert(Prefer(vec![other.clone()]));

    assert_eq!(send(&client, preferring).await.0, other.to_string());
}

#[tokio::test]
async fn an_old_secret_is_read_until_it_is_taken_away() {
    let endpoints = fleet::endpoints(3).await;
    let old = client(&StickyLayer::opaque(SECRET), endpoints.clone());
    let (home, cookie) = send(&old, request("/", None)).await;

    let both = StickyLayer::opaque("a new secret, as long as it has to be").also_reads(SECRET);
    let both = client(&both, endpoints);
    for _ in 0..5 {
        assert_eq!(send(&both, request("/", cookie.as_deref())).await, (home.clone(), None));
    }
}

#[tokio::test]
async fn a_cookie_has_the_attributes_it_was_given() {
    let endpoints = fleet::endpoints(1).await;
    let line = |layer: StickyLayer| {
        let client = client(&layer, endpoints.clone());
        async move {
            let response = client.oneshot(request("/", None)).await.unwrap();
            let line = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
            let (_, attributes) = line.split_once("; ").unwrap();
            (line.split('=').next().unwrap().to_owned(), attributes.to_owned())
        }
    };

    let (name, attributes) = line(StickyLayer::signed(SECRET)).await;
    assert_eq!((&*name, &*attributes), ("evenkeel", "Path=/; SameSite=Lax; Secure; HttpOnly"));

    let all = StickyLayer::opaque(SECRET)
        .name("shop")
        .path("/cart")
        .domain("example.com")
        .max_age(Duration::from_secs(90))
        .secure(false)
        .http_only(false)
        .same_site(SameSite::Strict);
    let (name, attributes) = line(all.clone()).await;
    assert_eq!(name, "shop");
    assert_eq!(attributes, "Path=/cart; Domain=example.com; Max-Age=90; SameSite=Strict");

    let (_, attributes) = line(all.same_site(SameSite::None)).await;
    assert!(attributes.ends_with("SameSite=None; Secure"), "browsers refuse one without the other");
}

#[test]
fn a_name_or_attribute_that_cannot_be_in_a_cookie_is_refused() {
    let refused = |set: fn(StickyLayer) -> StickyLayer| {
        std::panic::catch_unwind(|| set(StickyLayer::signed(SECRET))).is_err()
    };
    assert!(refused(|layer| layer.name("a b")));
    assert!(refused(|layer| layer.name("")));
    assert!(refused(|layer| layer.path("cart")));
    assert!(refused(|layer| layer.path("/;HttpOnly")));
    assert!(refused(|layer| layer.domain("a\r\nb")));
    assert!(std::panic::catch_unwind(|| StickyLayer::signed("short")).is_err());
}
