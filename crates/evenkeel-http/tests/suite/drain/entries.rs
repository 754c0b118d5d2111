//! Entries in registries.

use super::*;

#[tokio::test]
async fn a_registry_that_fails_or_hangs_does_not_keep_the_server_from_stopping() {
    let failing = Drain::new().wait(Duration::ZERO).deregister(|| async { Err("away".into()) });
    let server = Running::start(failing, app()).await;
    server.handle.start();
    assert_eq!(server.report().await.deregistered, Deregistered::Failed);

    let hanging = Drain::new()
        .wait(Duration::ZERO)
        .deregister(std::future::pending)
        .deregister_timeout(Duration::from_millis(20));
    let server = Running::start(hanging, app()).await;
    server.handle.start();
    assert_eq!(server.report().await.deregistered, Deregistered::TimedOut);
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

/// An entry that records when it is removed, and when it is dropped without that.
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
            .deregister_timeout(Duration::from_millis(20));
        let running = Running::start(drain, app()).await;
        running.handle.start();

        assert_eq!(running.report().await.deregistered, expected);
        assert!(notes.lock().unwrap().contains(&"b left".to_owned()));
    }
}
