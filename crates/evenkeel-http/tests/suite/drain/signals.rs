//! Signals that begin a drain, and signals that interrupt it.

use super::*;

/// A signal reaches all listeners in this process, so tests run one at a time.
static SIGNALS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn signal(signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
}

#[tokio::test]
async fn a_signal_begins_a_drain() {
    let _alone = SIGNALS.lock().await;
    let server = Running::start(Drain::new().signals().wait(Duration::ZERO), app()).await;
    read(ask(&caller(false), server.address, "/").await.unwrap()).await.unwrap();

    signal(rustix::process::Signal::TERM);

    assert_eq!(server.report().await.requests_cut, 0);
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
    // A supervisor may send it twice without meaning an interruption.
    signal(rustix::process::Signal::TERM);
    signal(rustix::process::Signal::INT);

    let report = server.report().await;

    assert_eq!((report.requests_cut, report.is_in_time), (1, false));
    assert!(hanging.await.unwrap().is_err());
}

#[tokio::test]
async fn a_second_interrupt_ends_the_wait_before_the_server_closes() {
    let _alone = SIGNALS.lock().await;
    for is_deregistering in [true, false] {
        let mut drain = Drain::new().signals().wait(4 * PATIENCE);
        if is_deregistering {
            drain = drain.deregister(std::future::pending).deregister_timeout(4 * PATIENCE);
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
