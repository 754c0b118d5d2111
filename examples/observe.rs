//! What an operator sees while an endpoint fails: metrics in the format of Prometheus, and a log.

mod common;

use axum::{Router, http::StatusCode, routing::get};
use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    core::retry::Budget,
    discovery::Fixed,
    http::{HttpConnector, HttpRetry},
    metrics,
    observe::ObserveLayer,
    outlier::OutlierLayer,
    retry::RetryLayer,
};
use http::Request;
use http_body_util::{BodyExt, Empty};
use metrics_exporter_prometheus::PrometheusBuilder;
use tower::{Service, ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    // Both are installed before the stack is built: the stack looks up an endpoint's series when it
    // joins.
    let prometheus = PrometheusBuilder::new().install_recorder()?;
    metrics::describe();
    tracing_subscriber::fmt().with_env_filter("evenkeel=info").with_ansi(false).init();

    let good = common::serve_text("hello").await?;
    let ill = Router::new().fallback(get(|| async { StatusCode::SERVICE_UNAVAILABLE }));
    let ill = common::serve(ill).await?;

    let mut client = ServiceBuilder::new()
        .layer(RetryLayer::new(Budget::share(20.0)).rules(HttpRetry::new()))
        .layer(BalanceLayer::round_robin(Fixed::new([good, ill])))
        .layer(ObserveLayer::new().client("greeter"))
        .layer(OutlierLayer::new())
        .service(HttpConnector::new());
    for _ in 0..50 {
        let request = Request::get("/").body(Empty::<Bytes>::new())?;
        let response = client.ready().await?.call(request).await?;
        assert_eq!(response.into_body().collect().await?.to_bytes(), "hello");
    }

    // A program serves this: `Router::new().route("/metrics", get(move || async move { ... }))`.
    let text = prometheus.render();
    println!("{text}");
    let value = |series: String| {
        let line = text.lines().find_map(|line| line.strip_prefix(&*series));
        line.map(|value| value.trim().to_owned())
    };
    let endpoint = |port: u16| {
        format!("server_address=\"127.0.0.1\",server_port=\"{port}\",client=\"greeter\"")
    };
    let answered =
        value(format!("evenkeel_attempts{{{},outcome=\"success\"}}", endpoint(good.port())));
    assert_eq!(answered.as_deref(), Some("50"), "every call was answered, some by a retry");
    let ejected =
        value(format!("evenkeel_endpoint_closed{{{},gate=\"ejected\"}}", endpoint(ill.port())));
    assert_eq!(ejected.as_deref(), Some("1"));
    assert_eq!(value("evenkeel_retries{error_type=\"failed\"}".into()).as_deref(), Some("5"));
    Ok(())
}
