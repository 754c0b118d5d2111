use std::sync::{Arc, Mutex};

use evenkeel_core::error::cause;

use super::*;
use crate::register::Registered;

/// A registry in memory, by tokio's clock.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The entry, the number of its owner, and until when it lives.
    entry: Option<(Entry, u32, Instant)>,
    is_down: bool,
    hangs: bool,
    answers_after: Duration,
    /// Each operation, and when it was done, in milliseconds.
    done: Vec<(&'static str, u64)>,
    started_at: Option<Instant>,
}

struct Client {
    memory: Memory,
    number: u32,
}

impl Memory {
    fn client(&self, number: u32) -> Client {
        let mut state = self.0.lock().unwrap();
        state.started_at.get_or_insert(clock::now());
        drop(state);
        Client { memory: self.clone(), number }
    }

    fn found(&self) -> Option<Entry> {
        let state = self.0.lock().unwrap();
        let (entry, _, until) = state.entry.as_ref()?;
        (clock::now() < *until).then(|| entry.clone())
    }

    fn done(&self, what: &str) -> Vec<u64> {
        let state = self.0.lock().unwrap();
        state.done.iter().filter(|(done, _)| *done == what).map(|(_, at)| *at).collect()
    }
}

impl Client {
    async fn begin(&self, what: &'static str) -> Result<(), BoxError> {
        let (is_down, hangs, answers_after) = {
            let mut state = self.memory.0.lock().unwrap();
            let at = state.started_at.expect("it has started").elapsed().as_millis() as u64;
            state.done.push((what, at));
            (state.is_down, state.hangs, state.answers_after)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        sleep(answers_after).await;
        if is_down { Err("refused".into()) } else { Ok(()) }
    }
}

impl Registry for Client {
    fn origin(&self) -> String {
        "memory".into()
    }

    async fn enter(&mut self, entry: &Entry, ttl: Duration) -> Result<(), BoxError> {
        self.begin("enter").await?;
        let until = clock::now() + ttl;
        self.memory.0.lock().unwrap().entry = Some((entry.clone(), self.number, until));
        Ok(())
    }

    async fn keep(&mut self, _: &Entry, ttl: Duration) -> Result<Kept, BoxError> {
        self.begin("keep").await?;
        let mut state = self.memory.0.lock().unwrap();
        Ok(match &mut state.entry {
            Some((_, owner, until)) if clock::now() < *until => {
                if *owner != self.number {
                    return Ok(Kept::Taken);
                }
                *until = clock::now() + ttl;
                Kept::Alive
            }
            _ => Kept::Lost,
        })
    }

    async fn leave(&mut self, _: &Entry) -> Result<(), BoxError> {
        self.begin("leave").await?;
        let mut state = self.memory.0.lock().unwrap();
        if state.entry.as_ref().is_some_and(|(_, owner, _)| *owner == self.number) {
            state.entry = None;
        }
        Ok(())
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn registration(client: Client) -> Registration<Client> {
    Registration::new(client, Entry::new("web", "10.0.0.1:80".parse().unwrap())).seed(5)
}

fn is_taken(registered: &Registered) -> bool {
    matches!(registered.status(), Status::Failing(error) if cause::<Taken>(error.inner()).is_some())
}

#[tokio::test(start_paused = true)]
async fn a_service_enters_when_it_is_ready_and_not_before() {
    let memory = Memory::default();
    let (ready, is_ready) = oneshot::channel::<()>();
    let registration = registration(memory.client(1)).ready_when(async { drop(is_ready.await) });
    let registered = registration.start();

    sleep(secs(60)).await;
    assert!(memory.found().is_none());
    ready.send(()).unwrap();
    registered.entered().await;

    assert!(memory.found().is_some());
}

#[tokio::test(start_paused = true)]
async fn heartbeats_come_at_a_third_of_the_ttl_and_never_late() {
    let memory = Memory::default();
    let registered = registration(memory.client(1)).ttl(secs(9)).start();
    sleep(secs(300)).await;

    let beats = memory.done("keep");
    let rests: Vec<_> = beats.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(rests.iter().all(|rest| (2_700..=3_001).contains(rest)), "{rests:?}");
    assert!(rests.iter().any(|rest| *rest != rests[0]), "with jitter");
    assert_eq!(memory.done("enter").len(), 1);
    drop(registered);
}

#[tokio::test(start_paused = true)]
async fn a_service_enters_again_at_once_when_the_registry_has_lost_it() {
    let memory = Memory::default();
    let registered = registration(memory.client(1)).start();
    registered.entered().await;

    memory.0.lock().unwrap().entry = None;
    sleep(secs(10) / 3).await;

    assert!(memory.found().is_some(), "after one heartbeat");
    registered.entered().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_lost_at_once_again_and_again_makes_no_busy_loop() {
    let memory = Memory::default();
    let registered = registration(memory.client(1)).start();
    let thief = memory.clone();
    tokio::spawn(async move {
        loop {
            thief.0.lock().unwrap().entry = None;
            sleep(Duration::from_millis(1)).await;
        }
    });
    sleep(secs(100)).await;

    let tries = memory.done("enter").len();
    assert!(tries < 80, "{tries} tries in 100 s");
    drop(registered);
}

#[tokio::test(start_paused = true)]
async fn a_changed_entry_is_entered_at_once_and_an_unchanged_one_is_not() {
    let memory = Memory::default();
    let registered = registration(memory.client(1)).start();
    registered.entered().await;

    registered.weight(7);
    registered.maintenance(Some("by hand".into()));
    registered.change(|entry| entry.id = "other".into());
    sleep(Duration::from_millis(1)).await;
    let found = memory.found().unwrap();
    assert_eq!((found.weight, found.maintenance.as_deref()), (7, Some("by hand")));
    assert_eq!(found.id, "web-10.0.0.1-80", "the id stays");

    let tries = memory.done("enter").len();
    registered.weight(7);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(memory.done("enter").len(), tries);
}

#[tokio::test(start_paused = true)]
async fn a_service_leaves_first_and_then_waits_for_its_callers() {
    let memory = Memory::default();
    let registered = registration(memory.client(1)).propagation(secs(4)).start();
    registered.entered().await;
    let start = clock::now();

    let leaving = tokio::spawn(registered.leave_on(async {}));
    sleep(Duration::from_millis(1)).await;
    assert!(memory.found().is_none(), "gone at once");
    leaving.await.unwrap();

    assert_eq!(start.elapsed().as_secs(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_down_keeps_no_service_from_stopping() {
    for hangs in [false, true] {
        let memory = Memory::default();
        let registered =
            registration(memory.client(1)).timeout(secs(3)).propagation(secs(2)).start();
        registered.entered().await;
        memory.0.lock().unwrap().is_down = true;
        memory.0.lock().unwrap().hangs = hangs;
        let start = clock::now();

        registered.leave().await;

        assert!(start.elapsed() <= secs(8), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_is_tried_again_until_its_time_is_over() {
    for hangs in [false, true] {
        let memory = Memory::default();
        let registered = registration(memory.client(1)).start();
        registered.entered().await;
        memory.0.lock().unwrap().is_down = true;
        memory.0.lock().unwrap().hangs = hangs;
        let later = memory.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(400)).await;
            let mut state = later.0.lock().unwrap();
            (state.is_down, state.hangs) = (false, false);
        });

        registered.deregister().await.unwrap();

        assert_eq!(memory.found(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_registry_is_in_the_end_given_half_of_the_time_to_leave() {
    let memory = Memory::default();
    let registered = registration(memory.client(1)).timeout(secs(6)).start();
    registered.entered().await;
    memory.0.lock().unwrap().answers_after = Duration::from_millis(2_500);

    registered.deregister().await.unwrap();

    assert_eq!(memory.found(), None);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_down_at_the_start_is_tried_until_it_is_back() {
    let memory = Memory::default();
    memory.0.lock().unwrap().is_down = true;
    let registered = registration(memory.client(1)).start();
    registered.failing().await;
    sleep(secs(60)).await;
    let tries = memory.done("enter").len();
    assert!((15..60).contains(&tries), "{tries} tries in a minute");

    memory.0.lock().unwrap().is_down = false;
    sleep(secs(10) / 3).await;

    assert!(matches!(registered.status(), Status::Entered));
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_longer_than_the_ttl_a_service_enters_again() {
    let memory = Memory::default();
    let registered = registration(memory.client(1)).start();
    registered.entered().await;
    memory.0.lock().unwrap().is_down = true;
    sleep(secs(30)).await;
    assert!(memory.found().is_none(), "it has run out");

    memory.0.lock().unwrap().is_down = false;
    sleep(secs(4)).await;

    assert!(memory.found().is_some());
    drop(registered);
}

#[tokio::test(start_paused = true)]
async fn of_two_services_under_one_id_the_later_counts_until_it_leaves() {
    let memory = Memory::default();
    let first = registration(memory.client(1)).start();
    first.entered().await;
    let second = registration(memory.client(2)).start();
    second.entered().await;
    sleep(secs(5)).await;
    assert!(is_taken(&first));
    assert!(matches!(second.status(), Status::Entered));

    first.weight(9);
    sleep(secs(60)).await;
    assert_eq!(memory.done("enter").len(), 2, "they do not enter in turns");
    second.leave().await;
    sleep(secs(5)).await;

    assert!(matches!(first.status(), Status::Entered));
    assert_eq!(memory.found().unwrap().weight, 9);
}

#[tokio::test(start_paused = true)]
async fn the_earlier_of_two_services_does_not_remove_the_entry_of_the_later() {
    let memory = Memory::default();
    let first = registration(memory.client(1)).start();
    first.entered().await;
    let second = registration(memory.client(2)).start();
    second.entered().await;

    first.leave().await;

    assert!(memory.found().is_some());
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_is_dropped_removes_the_entry_and_a_process_that_dies_leaves_it_to_the_ttl() {
    let memory = Memory::default();
    let registered = registration(memory.client(1)).start();
    registered.entered().await;
    drop(registered);
    sleep(Duration::from_millis(1)).await;
    assert!(memory.found().is_none());

    let registered = registration(memory.client(2)).ttl(secs(9)).start();
    registered.entered().await;
    memory.0.lock().unwrap().hangs = true;
    sleep(secs(8)).await;
    assert!(memory.found().is_some());
    sleep(secs(4)).await;
    assert!(memory.found().is_none());
    drop(registered);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_never_ready_leaves_at_once() {
    let memory = Memory::default();
    let registered = registration(memory.client(1)).ready_when(std::future::pending()).start();
    let start = clock::now();

    registered.leave().await;

    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(memory.done("leave").is_empty());
}

#[tokio::test(start_paused = true)]
async fn deregistering_does_not_wait_for_callers_and_says_what_failed() {
    let memory = Memory::default();
    let registered = registration(memory.client(1)).propagation(secs(30)).start();
    registered.entered().await;
    let start = clock::now();
    registered.deregister().await.unwrap();
    assert_eq!((start.elapsed(), memory.found()), (Duration::ZERO, None));

    let registered = registration(memory.client(2)).timeout(secs(1)).start();
    registered.entered().await;
    memory.0.lock().unwrap().hangs = true;
    let failed = registered.deregister().await.unwrap_err();
    assert!(cause::<NotInTime>(&*failed).is_some(), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn a_registration_can_be_handed_to_a_drain_as_it_is() {
    use evenkeel_core::deregister::Deregister;

    let memory = Memory::default();
    let registered = registration(memory.client(1)).propagation(secs(7)).start();
    registered.entered().await;

    let entry: Box<dyn Deregister> = Box::new(registered);
    assert_eq!(entry.propagation(), secs(7));
    entry.deregister().await.unwrap();
    assert_eq!(memory.found(), None);
}

#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods, reason = "it is the time of day that is in question")]
async fn the_time_of_day_does_not_matter() {
    let memory = Memory::default();
    let registered = registration(memory.client(1)).start();
    let before = std::time::SystemTime::now();

    sleep(secs(3_600)).await;

    // The real clock has hardly moved meanwhile; against tokio's, that is a step back by an hour.
    assert!(before.elapsed().unwrap() < secs(600));
    assert!(memory.found().is_some());
    assert!(1_000 < memory.done("keep").len());
    registered.leave().await;
}
