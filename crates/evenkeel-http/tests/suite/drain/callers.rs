//! Callers while a server leaves. None of them sees an error.

use super::*;

/// Callers that keep their connections and look up the address for each request, while the registered server
/// drains and another replaces it. Returns errors, and requests that were answered.
async fn under_load(is_http2: bool) -> (usize, usize, DrainReport) {
    let second = Running::start(Drain::new(), app()).await;
    let registry = Arc::new(Mutex::new(second.address));
    let entry = registry.clone();
    let drain = Drain::new()
        .deregister(move || async move {
            *entry.lock().unwrap() = second.address;
            Ok(())
        })
        .wait(Duration::from_millis(200));
    let first = Running::start(drain, app()).await;
    *registry.lock().unwrap() = first.address;

    let caller = caller(is_http2);
    let handle = first.handle.clone();
    let (errors, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let (caller, registry, handle) = (caller.clone(), registry.clone(), handle.clone());
        let (errors, answered) = (errors.clone(), answered.clone());
        callers.spawn(async move {
            while handle.phase() != Phase::Ended || answered.load(SeqCst) < 500 {
                let address = *registry.lock().unwrap();
                let response = match ask(&caller, address, "/").await {
                    Ok(response) if response.status() == 200 => read(response).await,
                    Ok(response) => Err(response.status().to_string().into()),
                    Err(error) => Err(error),
                };
                match response {
                    Ok(_) => answered.fetch_add(1, SeqCst),
                    Err(_) => errors.fetch_add(1, SeqCst),
                };
            }
        });
    }
    while answered.load(SeqCst) < 100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    handle.start();
    let report = first.report().await;
    callers.join_all().await;
    second.server.abort();
    (errors.load(SeqCst), answered.load(SeqCst), report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_over_http1_see_no_error() {
    let (errors, answered, report) = under_load(false).await;
    assert_eq!(errors, 0, "of {answered}");
    assert_eq!((report.requests_cut, report.is_in_time), (0, true));
    assert_eq!(report.deregistered, Deregistered::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_over_http2_see_no_error() {
    let (errors, answered, report) = under_load(true).await;
    assert_eq!(errors, 0, "of {answered}");
    assert_eq!((report.requests_cut, report.is_in_time), (0, true));
}

/// Callers of one server without a replacement: over HTTP/2 a request that crosses the `GOAWAY` is answered
/// or known to be unprocessed.
///
/// On one thread: on several, hyper's client fails a request that it has sent if the first `GOAWAY` arrives
/// before it polls the connection again.
#[tokio::test]
async fn over_http2_no_request_is_lost_when_the_server_closes() {
    let served = Arc::new(AtomicUsize::new(0));
    let counted = served.clone();
    let app = Router::new().route(
        "/",
        get(move || {
            counted.fetch_add(1, SeqCst);
            async { "hello" }
        }),
    );
    let server = Running::start(Drain::new().wait(Duration::ZERO), app).await;
    let caller = caller(true);
    let mut callers = JoinSet::new();
    for _ in 0..32 {
        let (caller, address) = (caller.clone(), server.address);
        callers.spawn(async move {
            let mut answered = 0;
            while let Ok(response) = ask(&caller, address, "/").await {
                read(response).await.expect("a response that has begun is completed");
                answered += 1;
            }
            answered
        });
    }
    while served.load(SeqCst) < 200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    server.handle.start();
    let report = server.report().await;

    let answered: usize = callers.join_all().await.into_iter().sum();
    assert_eq!(answered, served.load(SeqCst));
    assert_eq!((report.requests_cut, report.is_in_time), (0, true));
}
