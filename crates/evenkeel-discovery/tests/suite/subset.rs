//! What a subset of a discovery reports, and when.

use evenkeel_core::{
    discover::{Discovery, Update, Watch},
    endpoint::Endpoint,
    subset::{Aperture, Client, Rocksteadier},
};
use evenkeel_discovery::{DiscoveryExt, Fixed, channel};
use futures_util::{FutureExt, StreamExt};

fn endpoint(n: u16) -> Endpoint {
    format!("10.0.0.1:{n}").parse().unwrap()
}

/// All updates that are there without waiting.
fn told(watch: &mut Watch) -> Vec<Vec<Endpoint>> {
    let news = std::iter::from_fn(|| watch.next().now_or_never().flatten());
    let sets = news.map(|update| match update {
        Ok(Update::Set(set)) => set,
        other => panic!("{other:?}, and no set"),
    });
    sets.collect()
}

#[test]
fn a_subset_is_announced_as_a_whole_and_only_if_it_has_changed() {
    let (sender, source) = channel();
    let mut watch = source.subset(Rocksteadier::new(3, 0)).watch();
    assert!(told(&mut watch).is_empty());

    sender.set((1..=20).map(endpoint));
    let first = told(&mut watch).pop().unwrap();
    assert_eq!(first.len(), 3);

    let other = (1..=20).map(endpoint).find(|endpoint| !first.contains(endpoint)).unwrap();
    sender.remove(&other.address);
    assert!(told(&mut watch).is_empty(), "nothing that it uses has changed");

    sender.remove(&first[1].address);
    let second = told(&mut watch).pop().unwrap();
    assert_eq!(second.len(), 3);
    assert_eq!(second.iter().filter(|endpoint| first.contains(endpoint)).count(), 2);
}

#[test]
fn a_burst_of_changes_is_one_set() {
    let (sender, source) = channel();
    let mut watch = source.subset(Rocksteadier::new(5, 0)).watch();
    sender.set(Vec::<Endpoint>::new());
    assert_eq!(told(&mut watch), [vec![]]);
    (1..=100).for_each(|n| sender.insert(endpoint(n)));
    let sets = told(&mut watch);
    assert!(sets.len() <= 2, "{} sets", sets.len());
    assert_eq!(sets.last().unwrap().len(), 5);
}

#[test]
fn a_client_with_a_new_place_gets_other_endpoints_even_if_the_source_has_ended() {
    let all = Fixed::new((1..=100).map(endpoint));
    let (sender, discovery) = all.subset_that_changes(Aperture::new(10, Client::new(0, 2)));
    let mut watches = [discovery.watch(), discovery.watch()];
    let first = watches.each_mut().map(|watch| told(watch).pop().unwrap());
    assert_eq!(first[0], first[1]);

    sender.send(Aperture::new(10, Client::new(1, 3)));
    let second = watches.each_mut().map(|watch| told(watch).pop().unwrap());

    assert_eq!(second[0], second[1]);
    assert_ne!(first[0], second[0]);
}

#[test]
fn a_watch_ends_with_its_source() {
    let all = Fixed::new((1..=100).map(endpoint));
    let mut watch = all.subset(Rocksteadier::new(3, 0)).watch();
    assert_eq!(told(&mut watch).len(), 1);
    assert!(matches!(watch.next().now_or_never(), Some(None)));
}

#[test]
fn a_subset_changes_while_its_source_is_silent() {
    let (sender, source) = channel();
    let (subset, discovery) = source.subset_that_changes(Rocksteadier::new(4, 0));
    let mut watch = discovery.watch();
    sender.set((1..=100).map(endpoint));
    let first = told(&mut watch).pop().unwrap();

    subset.send(Rocksteadier::new(4, 11));
    let second = told(&mut watch).pop().unwrap();

    assert_ne!(first, second);
    assert_eq!(second.len(), 4);
}

#[test]
fn a_weight_that_changes_within_the_subset_is_announced() {
    let (sender, source) = channel();
    let mut watch = source.subset(Rocksteadier::new(3, 0)).watch();
    sender.set((1..=20).map(endpoint));
    let first = told(&mut watch).pop().unwrap();
    sender.insert(first[0].clone().weight(7));
    assert_eq!(told(&mut watch).pop().unwrap()[0].weight, 7);
}
