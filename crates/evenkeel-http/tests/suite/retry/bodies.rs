//! Bodies that are sent again.

use super::*;

#[tokio::test]
async fn a_streaming_body_is_sent_again_whole_up_to_its_bound() {
    let (endpoints, log) = servers(|n| status([503, 200, 503][n])).await;
    let rules = HttpRetry::new().max_body(10);
    let client = client(layer().rules(rules), endpoints, false);

    let short = request(Method::PUT, stream("hello", "world"));
    assert_eq!(within(client.clone().oneshot(short)).await.unwrap().status(), 200);
    assert_eq!(log.bodies(), ["helloworld"; 2]);

    let long = request(Method::PUT, stream("hello", "worlds"));
    let response = within(client.oneshot(long)).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(text(response).await, "status 503");
    assert_eq!(log.bodies()[2..], ["helloworlds"]);
}

#[tokio::test]
async fn a_body_of_any_length_is_sent_elsewhere_while_nothing_of_it_was_read() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (log, count) = (Log::default(), Arc::default());
    let there = server(&log, &count, |_| status(200)).await;
    let endpoints = vec![Endpoint::new(gone), there];
    let client = client(layer().rules(HttpRetry::new().max_body(0)), endpoints, false);
    let response = within(client.oneshot(request(Method::POST, stream("hello", "world")))).await;
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(log.bodies(), ["helloworld"]);
}

#[tokio::test]
async fn a_stream_that_is_silent_at_first_is_not_held_back() {
    let (endpoints, _) = servers(|_| {
        let silent = tokio_stream::pending::<Result<Frame<Bytes>, Infallible>>();
        let response = Response::new(StreamBody::new(silent).boxed_unsync());
        header(response, "content-type", "application/grpc")
    })
    .await;
    let response = within(client(layer(), endpoints, true).oneshot(grpc_call())).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = pin!(response.into_body());
    let frame = tokio::time::timeout(Duration::from_millis(50), body.frame()).await;
    assert!(frame.is_err(), "nothing was sent");
}

#[tokio::test]
async fn an_upload_that_was_refused_early_ends_when_another_attempt_takes_it_over() {
    let (ended, mut has_ended) = tokio::sync::mpsc::unbounded_channel();
    let (frames, rest) = tokio::sync::mpsc::channel(2);
    let more = frames.clone();
    let attempts = Arc::new(AtomicUsize::new(0));
    let answer = move |request: Request<Incoming>| {
        let (ended, more) = (ended.clone(), more.clone());
        let is_first = attempts.fetch_add(1, SeqCst) == 0;
        async move {
            if is_first {
                // Answered without reading the body to its end, which is still to come.
                tokio::spawn(async move {
                    ended.send(request.into_body().collect().await.map(|_| ())).unwrap();
                });
                return Ok::<_, Infallible>(status(503));
            }
            let end = Ok::<_, Infallible>(Frame::data(Bytes::from(", the rest")));
            more.send(end).await.unwrap();
            drop(more);
            let body = request.into_body();
            let mut body = pin!(BodyExt::into_data_stream(body));
            let mut read = Vec::new();
            while read.len() < "first, the rest".len() {
                read.extend(tokio_stream::StreamExt::next(&mut body).await.unwrap().unwrap());
            }
            Ok(Response::new(full(read)))
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service_fn(answer)).await;
            });
        }
    });
    frames.send(Ok(Frame::data(Bytes::from("first")))).await.unwrap();
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(rest)).boxed_unsync();
    let upload = request(Method::PUT, body);

    let response = within(client(layer(), vec![endpoint], true).oneshot(upload)).await.unwrap();

    assert_eq!(text(response).await, "first, the rest");
    let first = within(has_ended.recv()).await.unwrap();
    assert!(first.is_err(), "a partial body is not taken for a whole one");
    drop(frames);
}
