//! A server that stops, seen from its callers, over real sockets.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may, and times it")]

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use evenkeel_core::{BoxError, deregister::Deregister};
use evenkeel_http::{Deregistered, Drain, DrainHandle, DrainReport, Phase};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

type Caller = Client<HttpConnector, Empty<Bytes>>;

/// Longer than anything takes on this machine, however busy it is.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    handle: DrainHandle,
    server: JoinHandle<Result<DrainReport, BoxError>>,
}

impl Running {
    async fn start(drain: Drain, app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handle = drain.handle();
        let app = app.route_service("/ready", drain.readiness());
        let server = tokio::spawn(drain.serve(listener, app));
        Self { address, handle, server }
    }

    async fn report(self) -> DrainReport {
        tokio::time::timeout(PATIENCE, self.server).await.expect("it ends").unwrap().unwrap()
    }
}

fn app() -> Router {
    Router::new().route(
        "/",
        get(|| async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            "hello"
        }),
    )
}

fn caller(is_http2: bool) -> Caller {
    Client::builder(TokioExecutor::new()).http2_only(is_http2).build_http()
}

async fn ask(
    caller: &Caller,
    address: SocketAddr,
    path: &str,
) -> Result<Response<Incoming>, BoxError> {
    let uri = format!("http://{address}{path}");
    Ok(caller.request(Request::get(uri).body(Empty::new())?).await?)
}

async fn read(response: Response<Incoming>) -> Result<Bytes, BoxError> {
    Ok(response.into_body().collect().await?.to_bytes())
}

/// Callers who keep their connections and look up the address for each request, while the server that is
/// registered drains and another takes its place. Errors, and requests that were answered.
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

/// Callers of one server that has nobody to take its place: over HTTP/2 a request that crosses the
/// `GOAWAY` is answered or known to be unprocessed.
///
/// On one thread: on several, hyper's client fails a request that it has sent if the first `GOAWAY` comes
/// between that and its next look at the connection.
#[tokio::test]
async fn over_http2_no_request_is_lost_at_the_door() {
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
                read(response).await.expect("what was begun is ended");
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

#[tokio::test]
async fn the_steps_come_in_their_order() {
    let deregistering = Arc::new((Notify::new(), Notify::new()));
    let hook = deregistering.clone();
    let drain = Drain::new()
        .deregister(move || async move {
            hook.0.notify_one();
            hook.1.notified().await;
            Ok(())
        })
        .wait(Duration::from_millis(300))
        .deregister_max(PATIENCE);
    let server = Running::start(drain, app()).await;
    let (address, handle) = (server.address, server.handle.clone());
    // Each on a connection of its own.
    let status = async |path| ask(&caller(false), address, path).await.map(|r| r.status().as_u16());
    assert_eq!(status("/ready").await.unwrap(), 200);

    handle.start();
    deregistering.0.notified().await;
    assert_eq!(handle.phase(), Phase::NotReady);
    assert_eq!(status("/ready").await.unwrap(), 503);
    let response = ask(&caller(false), address, "/").await.unwrap();
    assert_eq!(response.status(), 200, "still accepting");
    assert!(!response.headers().contains_key("connection"));

    deregistering.1.notify_one();
    handle.reached(Phase::Waiting).await;
    let response = ask(&caller(false), address, "/").await.unwrap();
    assert_eq!(response.status(), 200, "still accepting");
    assert_eq!(response.headers()["connection"], "close");
    let response = ask(&caller(true), address, "/").await.unwrap();
    assert!(!response.headers().contains_key("connection"), "not over HTTP/2");

    let report = server.report().await;
    assert_eq!(handle.phase(), Phase::Ended);
    assert!(status("/").await.is_err(), "nobody listens");
    assert_eq!(report.deregistered, Deregistered::Done);
}

#[tokio::test]
async fn what_is_under_way_is_ended_body_and_all() {
    for is_http2 in [false, true] {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (server_begun, server_go_on) = (begun.clone(), go_on.clone());
        let app = Router::new().route(
            "/",
            get(async move || {
                let rest = async move {
                    server_begun.notify_one();
                    server_go_on.notified().await;
                    Ok::<_, BoxError>("the rest")
                };
                let first = async { Ok("first, ") };
                let parts = [
                    futures_util::future::Either::Left(first),
                    futures_util::future::Either::Right(rest),
                ];
                let parts =
                    futures_util::StreamExt::then(futures_util::stream::iter(parts), |part| part);
                Body::from_stream(parts)
            }),
        );
        let server = Running::start(Drain::new().wait(Duration::ZERO), app).await;
        let response = ask(&caller(is_http2), server.address, "/").await.unwrap();
        begun.notified().await;
        let body = tokio::spawn(read(response));

        server.handle.start();
        server.handle.reached(Phase::Closing).await;
        assert_eq!(server.handle.in_flight(), 1);
        go_on.notify_one();

        assert_eq!(body.await.unwrap().unwrap(), "first, the rest");
        let report = server.report().await;
        assert_eq!((report.in_flight, report.requests_cut), (1, 0), "HTTP/2: {is_http2}");
    }
}

#[tokio::test]
async fn what_hangs_is_cut_at_the_bound_and_reported() {
    for is_http2 in [false, true] {
        let held = Arc::new(());
        let hangs = held.clone();
        let app = app().route(
            "/hang",
            get(async move || {
                std::future::pending::<()>().await;
                drop(hangs);
            }),
        );
        let grace = Duration::from_millis(200);
        let server = Running::start(Drain::new().wait(Duration::ZERO).grace(grace), app).await;
        let (address, handle) = (server.address, server.handle.clone());
        let hanging: Vec<_> = (0..2)
            .map(|_| tokio::spawn(async move { ask(&caller(is_http2), address, "/hang").await }))
            .collect();
        while handle.in_flight() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        handle.start();
        let begun = Instant::now();
        let report = server.report().await;

        assert!(
            grace <= begun.elapsed() && begun.elapsed() < PATIENCE / 4,
            "{:?}",
            begun.elapsed()
        );
        assert_eq!((report.in_flight, report.requests_cut), (2, 2), "HTTP/2: {is_http2}");
        assert!(!report.is_in_time);
        for hanging in hanging {
            assert!(hanging.await.unwrap().is_err());
        }
        // Nothing of it is left behind.
        while handle.in_flight() != 0 || 1 < Arc::strong_count(&held) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_registry_that_fails_or_hangs_does_not_keep_the_server() {
    let failing = Drain::new().wait(Duration::ZERO).deregister(|| async { Err("away".into()) });
    let server = Running::start(failing, app()).await;
    server.handle.start();
    assert_eq!(server.report().await.deregistered, Deregistered::Failed);

    let hanging = Drain::new()
        .wait(Duration::ZERO)
        .deregister(std::future::pending)
        .deregister_max(Duration::from_millis(20));
    let server = Running::start(hanging, app()).await;
    server.handle.start();
    assert_eq!(server.report().await.deregistered, Deregistered::TimedOut);
}

#[tokio::test]
async fn idle_connections_do_not_keep_the_server() {
    let server = Running::start(Drain::new().wait(Duration::ZERO), app()).await;
    let callers = [caller(false), caller(true)];
    for caller in &callers {
        read(ask(caller, server.address, "/").await.unwrap()).await.unwrap();
    }
    let _silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    server.handle.start();
    assert!(server.report().await.is_in_time);
}

/// Signals come to all that listen in this process: one test at a time.
static SIGNALS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn signal(signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
}

#[tokio::test]
async fn a_signal_begins_it() {
    let _alone = SIGNALS.lock().await;
    let server = Running::start(Drain::new().signals().wait(Duration::ZERO), app()).await;
    read(ask(&caller(false), server.address, "/").await.unwrap()).await.unwrap();

    signal(rustix::process::Signal::TERM);

    assert_eq!(server.report().await.requests_cut, 0);
}

#[tokio::test]
async fn a_server_that_one_has_is_drained_too() {
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

/// What tonic generates is such a service.
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

#[tokio::test]
async fn an_entry_in_a_registry_is_taken_out_first_and_sets_the_wait() {
    struct Entered(Arc<AtomicUsize>);

    impl Deregister for Entered {
        fn deregister(
            self: Box<Self>,
        ) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> {
            self.0.fetch_add(1, SeqCst);
            Box::pin(std::future::ready(Ok(())))
        }

        fn propagation(&self) -> Duration {
            Duration::from_millis(300)
        }
    }

    let taken_out = Arc::<AtomicUsize>::default();
    let running = Running::start(Drain::new().registered(Entered(taken_out.clone())), app()).await;
    assert_eq!(taken_out.load(SeqCst), 0, "not before the drain");
    let start = Instant::now();
    running.handle.start();

    let report = running.report().await;

    assert_eq!((report.deregistered, taken_out.load(SeqCst)), (Deregistered::Done, 1));
    assert!(Duration::from_millis(300) <= start.elapsed(), "{:?}", start.elapsed());
}

/// An entry that notes when it is taken out, and when it is dropped without that.
struct Noted {
    name: &'static str,
    notes: Arc<Mutex<Vec<String>>>,
    propagation: Duration,
    answer: Option<Result<(), &'static str>>,
}

impl Deregister for Noted {
    fn deregister(
        mut self: Box<Self>,
    ) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> {
        self.notes.lock().unwrap().push(format!("{} left", self.name));
        let answer = self.answer.take();
        Box::pin(async move {
            let _entry = self;
            match answer {
                Some(answer) => answer.map_err(Into::into),
                None => std::future::pending().await,
            }
        })
    }

    fn propagation(&self) -> Duration {
        self.propagation
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.notes.lock().unwrap().push(format!("{} dropped", self.name));
    }
}

#[tokio::test]
async fn several_entries_stay_until_the_drain_and_leave_in_their_order_before_the_longest_wait() {
    let notes = Arc::<Mutex<Vec<String>>>::default();
    let entry = |name, millis, answer| Noted {
        name,
        notes: notes.clone(),
        propagation: Duration::from_millis(millis),
        answer,
    };
    let drain = Drain::new()
        .registered(entry("a", 300, Some(Ok(()))))
        .registered(entry("b", 1, Some(Ok(()))))
        .deregister({
            let notes = notes.clone();
            move || async move {
                notes.lock().unwrap().push("c left".to_owned());
                Ok(())
            }
        });
    let running = Running::start(drain, app()).await;
    read(ask(&caller(false), running.address, "/").await.unwrap()).await.unwrap();
    assert_eq!(*notes.lock().unwrap(), [""; 0], "they stay while it serves");
    let start = Instant::now();
    running.handle.start();

    let report = running.report().await;

    assert_eq!(report.deregistered, Deregistered::Done);
    let left =
        notes.lock().unwrap().iter().filter(|n| n.ends_with("left")).cloned().collect::<Vec<_>>();
    assert_eq!(left, ["a left", "b left", "c left"]);
    assert!(Duration::from_millis(300) <= start.elapsed(), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_entry_whose_registry_hangs_keeps_no_other_from_leaving() {
    for (answer, expected) in
        [(None, Deregistered::TimedOut), (Some(Err("away")), Deregistered::Failed)]
    {
        let notes = Arc::<Mutex<Vec<String>>>::default();
        let entry = |name, answer| Noted {
            name,
            notes: notes.clone(),
            propagation: Duration::ZERO,
            answer,
        };
        let drain = Drain::new()
            .registered(entry("a", answer))
            .registered(entry("b", Some(Ok(()))))
            .deregister_max(Duration::from_millis(20));
        let running = Running::start(drain, app()).await;
        running.handle.start();

        assert_eq!(running.report().await.deregistered, expected);
        assert!(notes.lock().unwrap().contains(&"b left".to_owned()));
    }
}

#[tokio::test]
async fn a_second_interrupt_cuts_what_is_under_way_and_reports_it() {
    let _alone = SIGNALS.lock().await;
    let app = app().route("/hang", get(std::future::pending::<()>));
    let drain = Drain::new().signals().wait(Duration::ZERO).grace(4 * PATIENCE);
    let server = Running::start(drain, app).await;
    let (address, handle) = (server.address, server.handle.clone());
    let hanging = tokio::spawn(async move { ask(&caller(false), address, "/hang").await });
    while handle.in_flight() < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    signal(rustix::process::Signal::INT);
    handle.reached(Phase::Closing).await;
    // A supervisor that says it twice is in no hurry.
    signal(rustix::process::Signal::TERM);
    signal(rustix::process::Signal::INT);

    let report = server.report().await;

    assert_eq!((report.requests_cut, report.is_in_time), (1, false));
    assert!(hanging.await.unwrap().is_err());
}

#[tokio::test]
async fn a_second_interrupt_ends_the_wait_before_the_door_is_closed() {
    let _alone = SIGNALS.lock().await;
    for is_deregistering in [true, false] {
        let mut drain = Drain::new().signals().wait(4 * PATIENCE);
        if is_deregistering {
            drain = drain.deregister(std::future::pending).deregister_max(4 * PATIENCE);
        }
        let server = Running::start(drain, app()).await;
        settle(&server).await;
        server.handle.start();
        let phase = if is_deregistering { Phase::NotReady } else { Phase::Waiting };
        server.handle.reached(phase).await;

        signal(rustix::process::Signal::INT);

        let deregistered = server.report().await.deregistered;
        let expected =
            if is_deregistering { Deregistered::Interrupted } else { Deregistered::NotAsked };
        assert_eq!(deregistered, expected);
    }
}

/// A connection that is written and read byte by byte.
struct Raw(TcpStream);

impl Raw {
    async fn to(server: &Running) -> Self {
        Self(TcpStream::connect(server.address).await.unwrap())
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// What comes until the first response has ended, which says `hello`.
    async fn hello(&mut self) -> String {
        let mut text = String::new();
        while !text.ends_with("hello") {
            let mut buffer = [0; 1024];
            let read = tokio::time::timeout(PATIENCE, self.0.read(&mut buffer)).await;
            let read = read.expect("it hangs").unwrap();
            assert_ne!(read, 0, "closed after {text:?}");
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        text
    }
}

/// Returns when the server has read what was sent before.
async fn settle(server: &Running) {
    let mut later = Raw::to(server).await;
    later.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    later.hello().await;
}

const HEAD: [&str; 2] = ["GET / HTTP/1.1\r\nho", "st: a\r\n\r\n"];

#[tokio::test]
async fn a_request_of_which_half_the_head_had_come_is_answered() {
    for is_kept_alive in [false, true] {
        let drain = Drain::new().wait(Duration::ZERO).idle_max(PATIENCE);
        let server = Running::start(drain, app()).await;
        let mut peer = Raw::to(&server).await;
        if is_kept_alive {
            peer.send(HEAD.concat()).await;
            peer.hello().await;
        }
        peer.send(HEAD[0]).await;
        settle(&server).await;

        server.handle.start();
        server.handle.reached(Phase::Closing).await;
        tokio::task::yield_now().await;
        peer.send(HEAD[1]).await;

        assert!(peer.hello().await.contains("connection: close"));
        let report = server.report().await;
        assert_eq!((report.requests_cut, report.is_in_time), (0, true));
    }
}

#[tokio::test]
async fn a_head_that_never_becomes_whole_is_cut_soon_and_reported() {
    for is_kept_alive in [false, true] {
        let idle_max = Duration::from_millis(50);
        let drain = Drain::new().wait(Duration::ZERO).idle_max(idle_max).grace(4 * PATIENCE);
        let server = Running::start(drain, app()).await;
        let mut peer = Raw::to(&server).await;
        if is_kept_alive {
            peer.send(HEAD.concat()).await;
            peer.hello().await;
        }
        peer.send(HEAD[0]).await;
        settle(&server).await;

        server.handle.start();

        let report = server.report().await;
        assert_eq!((report.requests_cut, report.is_in_time), (1, true));
        assert_eq!(peer.0.read(&mut [0; 8]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_head_that_is_cut_by_the_end_of_the_grace_is_reported() {
    let grace = Duration::from_millis(50);
    let drain = Drain::new().wait(Duration::ZERO).idle_max(PATIENCE).grace(grace);
    let server = Running::start(drain, app()).await;
    let mut peer = Raw::to(&server).await;
    peer.send(HEAD[0]).await;
    settle(&server).await;

    server.handle.start();

    let report = server.report().await;
    assert_eq!((report.requests_cut, report.is_in_time), (1, false));
}

#[tokio::test]
async fn a_peer_of_http2_that_owes_something_does_not_keep_the_server() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    // It stops in the preface, before its settings, or before it acknowledges anything.
    for sent in [PREFACE[..20].to_vec(), PREFACE.to_vec(), [PREFACE, SETTINGS].concat()] {
        let idle_max = Duration::from_millis(50);
        let drain = Drain::new().wait(Duration::ZERO).idle_max(idle_max).grace(4 * PATIENCE);
        let server = Running::start(drain, app()).await;
        let mut peer = Raw::to(&server).await;
        peer.send(&sent).await;
        settle(&server).await;

        server.handle.start();

        let report = server.report().await;
        assert_eq!((report.requests_cut, report.is_in_time), (0, true), "{} bytes", sent.len());
    }
}

#[tokio::test]
async fn a_response_that_its_reader_has_not_taken_yet_is_not_cut_for_being_idle() {
    const LENGTH: usize = 32 << 20;
    let app = app().route("/large", get(async || vec![7; LENGTH]));
    let idle_max = Duration::from_millis(20);
    let drain = Drain::new().wait(Duration::ZERO).idle_max(idle_max).grace(4 * PATIENCE);
    let server = Running::start(drain, app).await;
    let mut reader = Raw::to(&server).await;
    reader.send("GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut first = [0; 1024];
    assert_ne!(reader.0.read(&mut first).await.unwrap(), 0);

    server.handle.start();
    server.handle.reached(Phase::Closing).await;
    // That is what is tested: it takes nothing for many times as long as a connection may be idle.
    tokio::time::sleep(20 * idle_max).await;

    let mut rest = Vec::new();
    reader.0.read_to_end(&mut rest).await.unwrap();
    assert!(LENGTH <= rest.len() + first.len());
    assert!(server.report().await.is_in_time);
}
