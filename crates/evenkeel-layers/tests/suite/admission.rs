//! The client's throttle and the server's load shedding.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    error::{Overloaded, RequestThrottled, cause},
    limit::Priority,
    rng::Rng,
};
use evenkeel_layers::{
    admission::{LoadShed, LoadShedLayer, Throttle, ThrottleLayer},
    deadline::DeadlineLayer,
};
use tokio::time::{advance, sleep, timeout};
use tokio_test::{assert_pending, assert_ready, task::spawn};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_test::mock::{Mock, SendResponse};

type Handle = tower_test::mock::Handle<u8, u8>;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How many of `calls` are sent, if `answer` answers them.
async fn sent(
    client: &mut Throttle<Mock<u8, u8>>,
    handle: &mut Handle,
    calls: u32,
    answer: impl Fn(SendResponse<u8>),
) -> u32 {
    let mut sent = 0;
    for _ in 0..calls {
        let mut call = spawn(client.ready().await.expect("a mock").call(1));
        match call.poll() {
            std::task::Poll::Pending => {
                answer(handle.next_request().await.expect("a request").1);
                _ = assert_ready!(call.poll());
                sent += 1;
            }
            std::task::Poll::Ready(result) => {
                let error = result.expect_err("throttled");
                let refused = cause::<RequestThrottled>(error.as_ref()).expect("the throttle");
                assert!(0.0 < refused.probability && refused.probability < 1.0);
            }
        }
    }
    sent
}

fn throttle() -> (Throttle<Mock<u8, u8>>, Handle) {
    let (mock, handle) = tower_test::mock::pair();
    (ThrottleLayer::new().seed(3).layer(mock), handle)
}

#[tokio::test(start_paused = true)]
async fn a_client_refuses_nothing_until_half_of_its_calls_are_refused() {
    let (mut client, mut handle) = throttle();
    assert_eq!(sent(&mut client, &mut handle, 50, |send| send.send_response(1)).await, 50);
    let refused = sent(&mut client, &mut handle, 50, |send| send.send_error("overloaded")).await;
    assert_eq!(refused, 50);
    assert_eq!(client.probability(), 0.0);

    let more = sent(&mut client, &mut handle, 200, |send| send.send_error("overloaded")).await;

    assert!((50..150).contains(&more), "{more} of 200 were sent");
    assert!(0.5 < client.clone().probability(), "clones share it");
}

#[tokio::test(start_paused = true)]
async fn a_client_sends_all_again_when_its_calls_are_accepted_again() {
    let (mut client, mut handle) = throttle();
    sent(&mut client, &mut handle, 200, |send| send.send_error("overloaded")).await;
    assert!(0.9 < client.probability());

    let mut rounds = 0;
    while 0.0 < client.probability() {
        sleep(Duration::from_secs(1)).await;
        sent(&mut client, &mut handle, 10, |send| send.send_response(1)).await;
        rounds += 1;
        assert!(rounds <= 600, "it never forgets");
    }
    assert_eq!(sent(&mut client, &mut handle, 50, |send| send.send_response(1)).await, 50);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_does_not_count_as_refused() {
    let (mut client, mut handle) = throttle();
    for _ in 0..100 {
        let mut call = spawn(client.ready().await.unwrap().call(1));
        assert_pending!(call.poll());
        drop(call);
        drop(handle.next_request().await);
        drop(client.ready().await.unwrap().call(1));
        drop(handle.next_request().await);
    }
    assert_eq!(client.probability(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn calls_that_a_deadline_cuts_off_count_as_refused() {
    let hangs = service_fn(|_: u8| pending::<Result<u8, BoxError>>());
    let throttle = ThrottleLayer::new().seed(3).layer(hangs);
    let mut client = DeadlineLayer::new(ms(100)).layer(throttle.clone());
    for _ in 0..20 {
        client.ready().await.unwrap().call(1).await.unwrap_err();
    }
    assert!(0.2 < throttle.probability(), "{}", throttle.probability());
}

type Server = LoadShed<Mock<u8, u8>, fn(&u8) -> Priority>;

/// A server that works on one request at a time; a request is its priority.
fn server(max_queue: u32) -> (Server, Handle) {
    let (mock, handle) = tower_test::mock::pair();
    let priority: fn(&u8) -> Priority = |request| Priority::new(*request);
    (LoadShedLayer::fixed(1).max_queue(max_queue).priority(priority).seed(1).layer(mock), handle)
}

type Call = tokio_test::task::Spawn<<Server as Service<u8>>::Future>;

async fn call(server: &mut Server, priority: u8) -> Call {
    let mut call = spawn(server.ready().await.expect("a mock").call(priority));
    assert_pending!(call.poll());
    call
}

fn shed(result: Result<u8, BoxError>) -> Overloaded {
    let error = result.expect_err("shed");
    *cause::<Overloaded>(error.as_ref()).unwrap_or_else(|| panic!("not shed: {error}"))
}

#[tokio::test(start_paused = true)]
async fn the_most_important_requests_are_served_first_and_equal_ones_in_order() {
    let (mut server, mut handle) = server(10);
    let mut calls = vec![call(&mut server, 4).await];
    for priority in [12, 4, 0, 8, 0, 4] {
        calls.push(call(&mut server, priority).await);
    }

    let mut order = Vec::new();
    while !calls.is_empty() {
        let (priority, send) = handle.next_request().await.unwrap();
        order.push(priority);
        send.send_response(priority);
        calls.retain_mut(|call| !call.is_woken() || call.poll().is_pending());
        calls.retain_mut(|call| !call.is_woken() || call.poll().is_pending());
    }

    assert_eq!(order, [4, 0, 0, 4, 4, 8, 12]);
}

/// Callers give up at random, before and after they are woken.
#[tokio::test(start_paused = true)]
async fn the_order_holds_whichever_callers_give_up() {
    for seed in 0..50 {
        let mut rng = Rng::with_seed(seed);
        let (mut server, mut handle) = server(100);
        let served = call(&mut server, 0).await;
        let mut send = handle.next_request().await.unwrap().1;
        let mut calls = Vec::new();
        for _ in 0..20 {
            let priority = [0, 4, 4, 8][rng.below(4)];
            calls.push((priority, call(&mut server, priority).await));
        }
        // The most important first, then in the order of arrival.
        calls.sort_by_key(|(priority, _)| *priority);
        let mut served = Some(served);

        while !calls.is_empty() {
            send.send_response(0);
            served.take().unwrap().await.unwrap();
            let leave = |calls: &mut Vec<(u8, Call)>, rng: &mut Rng| {
                calls.retain(|_| rng.below(8) != 0);
            };
            leave(&mut calls, &mut rng);
            if calls.is_empty() {
                break;
            }
            for (_, call) in calls.iter_mut().rev().filter(|(_, call)| call.is_woken()) {
                assert_pending!(call.poll());
            }

            let request = timeout(ms(1), handle.next_request()).await;
            let (priority, next) = request.expect("one is let in").expect("a mock");
            send = next;
            let (expected, first) = calls.remove(0);
            assert_eq!(priority, expected, "seed {seed}");
            assert!(calls.iter().all(|(_, call)| !call.is_woken()), "seed {seed}: one is let in");
            served = Some(first);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_gives_up_the_last_of_the_least_important_requests() {
    let (mut server, _handle) = server(3);
    let _served = call(&mut server, 4).await;
    let mut early = call(&mut server, 12).await;
    let mut late = call(&mut server, 12).await;
    let mut important = call(&mut server, 4).await;

    let mut equal = spawn(server.ready().await.unwrap().call(12));
    assert_eq!(shed(assert_ready!(equal.poll())).priority, 12, "not above those in the queue");
    advance(ms(2)).await;
    let mut better = call(&mut server, 0).await;

    assert!(late.is_woken());
    let refused = shed(assert_ready!(late.poll()));
    assert_eq!((refused.priority, refused.waited), (12, ms(2)));
    for call in [&mut early, &mut important, &mut better] {
        assert_pending!(call.poll());
    }
    let mut best = call(&mut server, 0).await;
    assert_eq!(shed(assert_ready!(early.poll())).priority, 12);
    let mut last = spawn(server.ready().await.unwrap().call(0));
    assert_pending!(last.poll());
    assert_eq!(shed(assert_ready!(important.poll())).priority, 4);
    assert_pending!(better.poll());
    assert_pending!(best.poll());
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_an_interval_and_for_the_target_once_a_queue_stands() {
    let (mut server, _handle) = server(10);
    let _stuck = call(&mut server, 4).await;
    let began = tokio::time::Instant::now();

    let first = shed(call(&mut server, 4).await.await);
    assert!((100..=101).contains(&first.waited.as_millis()), "{first:?}");

    let second = shed(call(&mut server, 4).await.await);
    assert!((5..=6).contains(&second.waited.as_millis()), "{second:?}");
    assert!(began.elapsed() < ms(110));
}

#[tokio::test(start_paused = true)]
async fn a_request_leaves_nothing_behind_wherever_it_is_cancelled() {
    let (mock, mut handle) = tower_test::mock::pair::<u8, u8>();
    let layer = LoadShedLayer::fixed(1);
    let mut server = layer.layer(mock);
    let mut first = spawn(server.ready().await.unwrap().call(4));
    assert_pending!(first.poll());
    drop(server.ready().await.unwrap().call(4));
    let mut waits = spawn(server.ready().await.unwrap().call(4));
    assert_pending!(waits.poll());
    let limit = layer.limits().list().remove(0);
    assert_eq!((limit.in_flight(), limit.waiting()), (1, 1));

    drop(waits);
    assert_eq!((limit.in_flight(), limit.waiting()), (1, 0));
    handle.next_request().await.unwrap().1.send_response(1);
    assert_ready!(first.poll()).unwrap();
    assert_eq!((limit.in_flight(), limit.waiting()), (0, 0));
}

/// Twice what the server can do, half of it critical: the critical half is answered quickly.
#[tokio::test(start_paused = true)]
async fn under_overload_critical_requests_are_answered_soon() {
    #[derive(Default)]
    struct Seen {
        answered: u32,
        refused: u32,
        max_latency: Duration,
    }
    let work = service_fn(|priority: u8| async move {
        sleep(ms(10)).await;
        Ok::<_, std::convert::Infallible>(priority)
    });
    let priority: fn(&u8) -> Priority = |request| Priority::new(*request);
    let server = LoadShedLayer::fixed(10).priority(priority).seed(7).layer(work);
    let seen = Arc::new(Mutex::new([Seen::default(), Seen::default()]));

    // It can do a thousand a second. Two thousand are asked, for twenty seconds.
    for milli in 0..20_000_u64 {
        for (index, priority) in [4_u8, 12].into_iter().enumerate() {
            let (server, seen) = (server.clone(), seen.clone());
            tokio::spawn(async move {
                let began = tokio::time::Instant::now();
                let is_answered = server.oneshot(priority).await.is_ok();
                let mut seen = seen.lock().unwrap();
                if milli < 5_000 {
                    return;
                }
                if is_answered {
                    seen[index].answered += 1;
                    seen[index].max_latency = seen[index].max_latency.max(began.elapsed());
                } else {
                    seen[index].refused += 1;
                }
            });
        }
        sleep(ms(1)).await;
    }
    sleep(Duration::from_secs(1)).await;

    let [critical, sheddable] = &*seen.lock().unwrap();
    let share = f64::from(critical.answered) / f64::from(critical.answered + critical.refused);
    assert!(0.95 < share, "{share} of what is critical");
    assert!(critical.max_latency < ms(120), "{:?}", critical.max_latency);
    assert!(sheddable.answered < sheddable.refused, "{} answered", sheddable.answered);
}

/// A refusal a moment ago does not make a server that is now idle refuse.
#[tokio::test(start_paused = true)]
async fn a_server_that_lies_idle_refuses_none_after_an_overload() {
    let work = service_fn(|number: u32| async move {
        sleep(ms(10)).await;
        Ok::<_, std::convert::Infallible>(number)
    });
    let layer = LoadShedLayer::fixed(10).seed(7);
    let server = layer.layer(work);
    let refused = Arc::new(AtomicU32::new(0));
    for milli in 0..6_000 {
        for _ in 0..2 {
            let (server, refused) = (server.clone(), refused.clone());
            tokio::spawn(async move {
                refused.fetch_add(u32::from(server.oneshot(milli).await.is_err()), SeqCst);
            });
        }
        sleep(ms(1)).await;
    }
    sleep(ms(200)).await;
    assert!(3_000 < refused.load(SeqCst), "an overload");
    assert_eq!(layer.limits().list()[0].in_flight(), 0);

    for number in 0..1_673 {
        let answered = server.clone().oneshot(number).await;
        assert!(answered.is_ok(), "refused is number {number}, with nothing in flight");
    }
}

#[test]
fn a_target_of_zero_is_refused_when_it_is_set_and_not_by_the_first_call() {
    for set in [LoadShedLayer::target, LoadShedLayer::interval] {
        let set = std::panic::catch_unwind(|| set(LoadShedLayer::fixed(1), Duration::ZERO));
        assert!(set.is_err());
    }
}
