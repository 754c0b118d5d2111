//! Every interleaving of threads that share a limit or a throttle.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    limit::{AdaptiveThrottle, Fixed, Permits},
    node::{Access, Gate, Node},
    time::Timestamp,
};
use loom::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};

const START: Timestamp = Timestamp::from_nanos(4_000_000_000_000_000_000);

#[test]
fn the_last_permit_is_taken_once_and_none_is_refused_while_there_is_one() {
    loom::model(|| {
        let permits = Arc::new(Permits::new(Fixed::new(2)));
        let taken = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (permits, taken) = (permits.clone(), taken.clone());
                thread::spawn(move || {
                    if permits.acquire() {
                        taken.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();

        for thread in threads {
            thread.join().unwrap();
        }

        assert_eq!((taken.load(SeqCst), permits.in_flight()), (2, 2));
    });
}

#[test]
fn no_more_are_under_way_than_the_limit_says() {
    loom::model(|| {
        let permits = Arc::new(Permits::new(Fixed::new(1)));
        let under_way = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (permits, under_way) = (permits.clone(), under_way.clone());
                thread::spawn(move || {
                    for _ in 0..2 {
                        if permits.acquire() {
                            assert_eq!(under_way.fetch_add(1, SeqCst), 0);
                            under_way.fetch_sub(1, SeqCst);
                            permits.release();
                        }
                    }
                })
            })
            .collect();

        for thread in threads {
            thread.join().unwrap();
        }

        assert_eq!(permits.in_flight(), 0);
    });
}

/// The thread that takes the last permit or gives it back makes the gate follow. In the end the
/// gate is open: otherwise nothing would ever come to open it.
#[test]
fn the_gate_of_a_node_with_room_is_open_in_the_end() {
    loom::model(|| {
        let node = Arc::new(Node::new("10.0.0.1:80".parse().unwrap()));
        let permits = Arc::new(Permits::new(Fixed::new(1)));
        let follow = move |node: &Node, permits: &Permits| {
            let access = || if permits.is_full() { Access::Closed } else { Access::Guarded };
            node.follow(Gate::Limit, access);
        };
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (permits, node) = (permits.clone(), node.clone());
                thread::spawn(move || {
                    if permits.acquire() {
                        if permits.is_full() {
                            follow(&node, &permits);
                        }
                        if permits.release() {
                            follow(&node, &permits);
                        }
                    }
                })
            })
            .collect();

        for thread in threads {
            thread.join().unwrap();
        }

        assert!(node.is_open());
    });
}

#[test]
fn a_throttle_counts_calls_that_come_while_another_thread_moves_its_window() {
    loom::model(|| {
        let throttle = Arc::new(AdaptiveThrottle::new().ratio(1.0));
        throttle.record_refusal(START);
        // Two slots of a minute: the thread that comes first clears the slot in which both count.
        let later = START + Duration::from_secs(60);
        let other = throttle.clone();
        let thread = thread::spawn(move || other.record_refusal(later));
        throttle.record_refusal(later);
        thread.join().unwrap();

        for _ in 0..4 {
            throttle.admit(|| 1.0, || later).unwrap();
        }
        assert_eq!(throttle.probability(later), 3.0 / 5.0, "one of four was not refused");
    });
}
