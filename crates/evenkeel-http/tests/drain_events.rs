//! The events and metrics of a drain.
//!
//! A separate binary with one test: the first subscriber decides for all threads which events are recorded.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::{
    convert::Infallible,
    fmt::{Debug, Write},
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use evenkeel_http::{Deregistered, Drain};
use futures_util::FutureExt;
use http::{Request, Response};
use tower::{Layer as _, ServiceExt, service_fn};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Registry,
    layer::{Context, Layer, SubscriberExt},
};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "evenkeel::drain" {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }
}

struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, " {}={value}", field.name()).unwrap();
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

#[tokio::test]
async fn a_drain_logs_its_steps_what_failed_and_what_was_cut() {
    let lines = Lines::default();
    let _listening = tracing::subscriber::set_default(Registry::default().with(lines.clone()));
    #[cfg(feature = "metrics")]
    let recorder = metrics_util::debugging::DebuggingRecorder::new();
    #[cfg(feature = "metrics")]
    let _recording = metrics::set_default_local_recorder(&recorder);
    let drain = Drain::new()
        .deregister(|| async { Err("the registry is gone".into()) })
        .wait(Duration::ZERO)
        .grace(Duration::from_millis(1));
    let endless = service_fn(|_: Request<()>| pending::<Result<Response<String>, Infallible>>());
    let mut under_way = Box::pin(drain.layer().layer(endless).oneshot(Request::new(())));
    assert!(under_way.as_mut().now_or_never().is_none());
    drain.handle().start();

    let report = drain.run(pending::<Result<(), Infallible>>()).await.unwrap();

    assert_eq!(report.deregistered, Deregistered::Failed);
    let expected = [
        "INFO message=drain phase=not_ready in_flight=1",
        "WARN message=deregistering failed error=the registry is gone",
        "INFO message=drain phase=waiting in_flight=1",
        "INFO message=drain phase=closing in_flight=1",
        "WARN message=requests were cut requests_cut=1 grace=1ms",
        "INFO message=drain phase=ended in_flight=1",
    ];
    assert_eq!(*lines.0.lock().unwrap(), expected);
    #[cfg(feature = "metrics")]
    {
        let counted = recorder.snapshotter().snapshot().into_vec();
        let [(key, _, _, value)] = &counted[..] else { panic!("{counted:?}") };
        assert_eq!(key.key().name(), "evenkeel.drain.cut");
        assert_eq!(*value, metrics_util::debugging::DebugValue::Counter(1));
    }
}
