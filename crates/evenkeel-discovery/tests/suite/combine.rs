//! The promises of the combinators, by example and against a plain model.

use std::collections::BTreeMap;

use evenkeel_core::{
    discover::{Discovery, Update, Watch},
    endpoint::{Address, Endpoint},
};
use evenkeel_discovery::{DiscoveryExt, Fixed, Sender, channel};
use futures_util::{FutureExt, StreamExt};
use proptest::{prelude::*, test_runner::RngSeed};

type Set = BTreeMap<Address, Endpoint>;

fn endpoint(n: u16) -> Endpoint {
    format!("10.0.0.1:{n}").parse().unwrap()
}

fn address(n: u16) -> Address {
    endpoint(n).address
}

/// All updates that are there without waiting; errors as none.
fn told(watch: &mut Watch) -> Vec<Option<Update>> {
    std::iter::from_fn(|| watch.next().now_or_never().flatten()).map(Result::ok).collect()
}

fn apply(set: &mut Set, update: Update) {
    match update {
        Update::Set(endpoints) => {
            *set = endpoints.into_iter().map(|e| (e.address.clone(), e)).collect();
        }
        Update::Insert(endpoint) => {
            set.insert(endpoint.address.clone(), endpoint);
        }
        Update::Remove(address) => {
            set.remove(&address);
        }
        other => panic!("{other:?} is not known to this model"),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(Vec<(u16, u32)>),
    Insert(u16, u32),
    Remove(u16),
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    let port = 1..8_u16;
    let weight = 0..4_u32;
    prop_oneof![
        1 => prop::collection::vec((port.clone(), weight.clone()), 0..6).prop_map(Step::Set),
        4 => (port.clone(), weight).prop_map(|(port, weight)| Step::Insert(port, weight)),
        3 => port.prop_map(Step::Remove),
        1 => Just(Step::Fail),
    ]
}

/// Sends a step, and keeps a model of what has been sent, in the order of the announcements.
fn say(sender: &Sender, model: &mut Vec<Endpoint>, step: &Step) {
    match step {
        Step::Set(endpoints) => {
            let set = endpoints.iter().map(|(port, weight)| endpoint(*port).weight(*weight));
            sender.set(set.clone());
            model.clear();
            for endpoint in set {
                match model.iter_mut().find(|old| old.address == endpoint.address) {
                    Some(old) => *old = endpoint,
                    None => model.push(endpoint),
                }
            }
        }
        Step::Insert(port, weight) => {
            let new = endpoint(*port).weight(*weight);
            sender.insert(new.clone());
            if !model.contains(&new) {
                model.retain(|old| old.address != new.address);
                model.push(new);
            }
        }
        Step::Remove(port) => {
            sender.remove(&address(*port));
            model.retain(|old| old.address != address(*port));
        }
        Step::Fail => sender.fail("away"),
    }
}

fn by_address<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Set {
    endpoints.into_iter().map(|e| (e.address.clone(), e.clone())).collect()
}

/// The same cases on every run.
fn seeded() -> ProptestConfig {
    ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn merge_is_the_union_in_which_the_first_source_takes_precedence(
        steps in prop::collection::vec((any::<bool>(), step()), 1..40),
    ) {
        let (first, a) = channel();
        let (second, b) = channel();
        let (mut model_a, mut model_b) = (vec![], vec![]);
        let mut watch = a.merge(b).watch();
        let mut seen = Set::new();

        for (is_first, step) in &steps {
            match is_first {
                true => say(&first, &mut model_a, step),
                false => say(&second, &mut model_b, step),
            }
            told(&mut watch).into_iter().flatten().for_each(|update| apply(&mut seen, update));

            prop_assert_eq!(&seen, &by_address(model_b.iter().chain(&model_a)));
        }
    }

    #[test]
    fn filter_shows_exactly_what_fits(steps in prop::collection::vec(step(), 1..40)) {
        let (sender, source) = channel();
        let mut model = vec![];
        let mut watch = source.filter(|endpoint| endpoint.weight != 0).watch();
        let mut seen = Set::new();

        for step in &steps {
            say(&sender, &mut model, step);
            for update in told(&mut watch).into_iter().flatten() {
                if let Update::Remove(address) = &update {
                    prop_assert!(seen.contains_key(address), "a removal of what was not shown");
                }
                apply(&mut seen, update);
            }

            prop_assert_eq!(&seen, &by_address(model.iter().filter(|e| e.weight != 0)));
        }
    }

    /// The new address depends on the weight, so that one endpoint moves and several collide.
    #[test]
    fn map_follows_addresses_that_it_changes(steps in prop::collection::vec(step(), 1..40)) {
        let moved = |e: Endpoint| {
            let port = e.address.port().unwrap();
            endpoint(100 + port / 2 + e.weight as u16).weight(u32::from(port))
        };
        let (sender, source) = channel();
        let mut model = vec![];
        let mut watch = source.map(moved).watch();
        let mut seen = Set::new();

        for step in &steps {
            say(&sender, &mut model, step);
            told(&mut watch).into_iter().flatten().for_each(|update| apply(&mut seen, update));

            let mapped: Vec<_> = model.iter().cloned().map(moved).collect();
            prop_assert_eq!(&seen, &by_address(&mapped));
        }
    }

    #[test]
    fn fallback_is_one_of_its_sources_and_the_first_while_it_has_endpoints(
        steps in prop::collection::vec((any::<bool>(), step()), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let _guard = runtime.enter();
        let (first, a) = channel();
        let (second, b) = channel();
        let (mut model_a, mut model_b) = (vec![], vec![]);
        let mut watch = a.fallback(b).watch();
        let mut seen = Set::new();
        let mut is_first_heard = false;

        for (is_first, step) in &steps {
            match is_first {
                true => say(&first, &mut model_a, step),
                false => say(&second, &mut model_b, step),
            }
            // Removing an endpoint that is not there announces nothing yet.
            is_first_heard |= *is_first && (!matches!(step, Step::Remove(_)));
            told(&mut watch).into_iter().flatten().for_each(|update| apply(&mut seen, update));

            let expected = if !model_a.is_empty() {
                &model_a
            } else if is_first_heard {
                &model_b
            } else {
                &vec![]
            };
            prop_assert_eq!(&seen, &by_address(expected));
        }
    }
}

#[test]
fn a_merged_source_that_fails_or_ends_keeps_its_last_set() {
    let (first, a) = channel();
    let (second, b) = channel();
    let mut watch = a.merge(b).watch();
    first.set([endpoint(1)]);
    second.set([endpoint(2)]);
    told(&mut watch);

    first.fail("away");
    assert_eq!(told(&mut watch), [None], "the error is passed on");
    drop(first);
    second.insert(endpoint(3));

    assert_eq!(told(&mut watch), [Some(Update::Insert(endpoint(3)))]);
    drop(second);
    assert!(watch.next().now_or_never().expect("both have ended").is_none());
}

#[test]
fn a_merge_announces_each_change_once() {
    let (first, a) = channel();
    let (second, b) = channel();
    let mut watch = a.merge(b).watch();

    first.set([endpoint(1)]);
    assert_eq!(told(&mut watch), [Some(Update::Set(vec![endpoint(1)]))]);
    second.set([endpoint(1).weight(9)]);
    assert_eq!(told(&mut watch).len(), 1);
    second.set_weight(&address(1), 5);
    assert_eq!(told(&mut watch), [], "it is hidden behind the first source's");

    first.remove(&address(1));
    assert_eq!(told(&mut watch), [Some(Update::Insert(endpoint(1).weight(5)))]);
}

#[tokio::test(start_paused = true)]
async fn the_fallback_waits_for_a_silent_first_source_and_no_longer() {
    let (_first, a) = channel();
    let start = tokio::time::Instant::now();
    let mut watch = a.fallback(Fixed::new([endpoint(9)])).watch();

    let update = watch.next().await.unwrap().unwrap();

    assert_eq!(update, Update::Set(vec![endpoint(9)]));
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_fallback_is_used_when_the_first_source_fails_at_once_or_ends() {
    let (first, a) = channel();
    let mut watch = a.fallback(Fixed::new([endpoint(9)])).watch();
    first.fail("no such registry");
    assert_eq!(told(&mut watch), [None, Some(Update::Set(vec![endpoint(9)]))]);

    let (first, a) = channel();
    let mut watch = a.fallback(Fixed::new([endpoint(9)])).watch();
    drop(first);
    assert_eq!(told(&mut watch), [Some(Update::Set(vec![endpoint(9)]))]);
    assert!(watch.next().now_or_never().expect("both have ended").is_none());
}

/// The last error that is there without waiting, as it is logged.
fn last_failure(watch: &mut Watch) -> Option<String> {
    let told = std::iter::from_fn(|| watch.next().now_or_never().flatten());
    let error = told.filter_map(Result::err).last()?;
    let error: &(dyn std::error::Error + 'static) = &*error;
    let chain = std::iter::successors(Some(error), |error| error.source());
    Some(chain.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

#[tokio::test(start_paused = true)]
async fn two_sources_that_fail_are_both_named_whichever_fails_last() {
    let ((first, a), (second, b)) = (channel(), channel());
    let (third, c) = channel();
    let mut watches = [a.clone().fallback(b.clone()).watch(), a.clone().merge(b.clone()).watch()];
    let mut nested = a.fallback(b).fallback(c).watch();
    for fail in [[&first, &second], [&second, &first]] {
        for (sender, text) in fail.into_iter().zip(["one broke", "other broke"]) {
            sender.fail(text);
        }
        for watch in &mut watches {
            let failure = last_failure(watch).unwrap();
            assert!(failure.contains("one broke"), "{failure}");
            assert!(failure.contains("other broke"), "{failure}");
        }
    }
    third.fail("third broke");
    let failure = last_failure(&mut nested).unwrap();
    for text in ["one broke", "other broke", "third broke"] {
        assert!(failure.contains(text), "{failure}");
    }

    // While one source works, the failure of the other is passed on as it is.
    second.set([endpoint(9)]);
    for watch in &mut watches {
        assert_eq!(told(watch), [Some(Update::Set(vec![endpoint(9)]))]);
    }
    first.fail("away");
    for watch in &mut watches {
        let failure = last_failure(watch).unwrap();
        assert!(failure.contains("away") && !failure.contains("broke"), "{failure}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_source_is_used_again_when_it_has_endpoints_again() {
    let (first, a) = channel();
    let mut watch = a.fallback(Fixed::new([endpoint(9)])).watch();
    first.set([endpoint(1)]);
    assert_eq!(told(&mut watch), [Some(Update::Set(vec![endpoint(1)]))]);

    first.fail("away");
    assert_eq!(told(&mut watch), [None], "the last good set stays in use");
    first.remove(&address(1));
    assert_eq!(told(&mut watch), [Some(Update::Set(vec![endpoint(9)]))]);
    first.insert(endpoint(2));
    assert_eq!(told(&mut watch), [Some(Update::Set(vec![endpoint(2)]))]);
}

#[test]
fn a_filter_that_drops_all_gives_the_empty_set() {
    let watch = Fixed::new([endpoint(1)]).filter(|_| false).watch();

    let told: Vec<_> = watch.collect().now_or_never().expect("it never waits");

    assert!(matches!(&told[..], [Ok(Update::Set(set))] if set.is_empty()));
}
