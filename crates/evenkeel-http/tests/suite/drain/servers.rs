//! Servers of other crates.

use super::*;

#[tokio::test]
async fn a_server_that_the_program_already_has_is_drained_too() {
    let drain = Drain::new().wait(Duration::ZERO);
    let handle = drain.handle();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app().layer(drain.layer());
    let server = axum::serve(listener, app).with_graceful_shutdown(drain.closing());
    let report = tokio::spawn(drain.run(server.into_future()));
    read(ask(&caller(false), address, "/").await.unwrap()).await.unwrap();

    handle.start();

    let report = tokio::time::timeout(PATIENCE, report).await.unwrap().unwrap().unwrap();
    assert!(report.is_in_time);
    assert!(ask(&caller(false), address, "/").await.is_err());
}

/// Like a service that tonic generates.
#[tokio::test]
async fn a_service_of_tonic_is_served_and_drained_too() {
    let service = tower::service_fn(|_: Request<Incoming>| async {
        let status = tonic::Status::unimplemented("nothing here");
        Ok::<_, std::convert::Infallible>(status.into_http::<tonic::body::Body>())
    });
    let drain = Drain::new().wait(Duration::ZERO);
    let handle = drain.handle();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(drain.serve(listener, service));
    let response = ask(&caller(true), address, "/greeter.v1.Greeter/Hello").await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "12");
    drop(response);

    handle.start();

    let report = tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap().unwrap();
    assert!(report.is_in_time);
}
