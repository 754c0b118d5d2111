//! What subsets promise, over whole fleets: how many connections, how even, and what moves.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_core::{
    endpoint::{Address, Endpoint},
    rng::Rng,
    subset::{Aperture, Client, Numbers, RandomSubset, Rocksteadier, Subset},
};

fn endpoint(index: usize) -> Endpoint {
    let address = Address::Name { host: format!("node-{index}").into(), port: 80 };
    Endpoint::new(address).metadata("ordinal", index.to_string())
}

fn endpoints(count: usize) -> Vec<Endpoint> {
    (0..count).map(endpoint).collect()
}

fn chosen(subset: &dyn Subset, endpoints: &[Endpoint]) -> Vec<Endpoint> {
    let mut numbers = Numbers::default();
    numbers.update(endpoints);
    subset.choose(endpoints, &numbers)
}

fn addresses(endpoints: &[Endpoint]) -> BTreeSet<Address> {
    endpoints.iter().map(|endpoint| endpoint.address.clone()).collect()
}

/// How many clients each endpoint has, including endpoints with none.
fn connections(
    fleet: &[Endpoint],
    clients: u32,
    subset: impl Fn(u32) -> Box<dyn Subset>,
) -> BTreeMap<Address, usize> {
    let mut numbers = Numbers::default();
    numbers.update(fleet);
    let mut counts: BTreeMap<_, _> =
        fleet.iter().map(|endpoint| (endpoint.address.clone(), 0)).collect();
    for client in 0..clients {
        for endpoint in subset(client).choose(fleet, &numbers) {
            *counts.get_mut(&endpoint.address).expect("one of the fleet") += 1;
        }
    }
    counts
}

/// How many connections are made again when the fleet changes, over all clients.
fn moved(
    before: &[Endpoint],
    after: &[Endpoint],
    clients: u32,
    subset: impl Fn(u32) -> Box<dyn Subset>,
) -> usize {
    let mut numbers = Numbers::default();
    numbers.update(before);
    let first: Vec<_> =
        (0..clients).map(|client| addresses(&subset(client).choose(before, &numbers))).collect();
    numbers.update(after);
    let new = |(client, first): (u32, BTreeSet<Address>)| {
        addresses(&subset(client).choose(after, &numbers)).difference(&first).count()
    };
    (0..clients).zip(first).map(new).sum()
}

fn random(size: usize) -> impl Fn(u32) -> Box<dyn Subset> {
    move |client| {
        let seed = Rng::with_seed(u64::from(client)).below_u64(u64::MAX);
        Box::new(RandomSubset::new(size, seed))
    }
}

fn rocksteadier(size: usize) -> impl Fn(u32) -> Box<dyn Subset> {
    move |client| Box::new(Rocksteadier::new(size, client))
}

fn aperture(size: u32, clients: u32) -> impl Fn(u32) -> Box<dyn Subset> {
    move |client| Box::new(Aperture::new(size, Client::new(client, clients)))
}

#[test]
fn random_subsets_keep_the_bounds_of_grpc_java() {
    for (clients, servers, size, connections_max) in
        [(100, 100, 5, 15), (100, 100, 25, 40), (100, 10, 5, 65), (500, 10, 5, 600)]
    {
        let counts = connections(&endpoints(servers), clients, random(size));
        assert_eq!(counts.values().sum::<usize>(), clients as usize * size.min(servers));
        assert!(counts.values().all(|&count| count <= connections_max), "{counts:?}");
    }
}

#[test]
fn an_aperture_loads_all_endpoints_exactly_as_their_weights_say() {
    for (clients, servers, size) in
        [(7, 10, 3), (100, 30, 12), (30, 100, 12), (1, 5, 12), (64, 64, 9)]
    {
        let fleet: Vec<_> = endpoints(servers)
            .into_iter()
            .enumerate()
            .map(|(index, endpoint)| endpoint.weight(1 + index as u32 % 3))
            .collect();
        let mut loads: BTreeMap<Address, f64> = BTreeMap::new();
        for client in 0..clients {
            let chosen = chosen(&*aperture(size, clients)(client), &fleet);
            let sum: f64 = chosen.iter().map(|endpoint| f64::from(endpoint.weight)).sum();
            for endpoint in chosen {
                *loads.entry(endpoint.address).or_default() += f64::from(endpoint.weight) / sum;
            }
        }
        let weights: f64 = fleet.iter().map(|endpoint| f64::from(endpoint.weight)).sum();
        for endpoint in &fleet {
            let fair = f64::from(clients) * f64::from(endpoint.weight) / weights;
            let load = loads[&endpoint.address];
            assert!((load / fair - 1.0).abs() < 0.001, "{load} where {fair} is fair");
        }
    }
}

#[test]
fn an_aperture_keeps_its_bounds_on_both_sides() {
    for (clients, servers, size) in [(100_u32, 300, 20), (50, 500, 12), (500, 60, 12)] {
        let fleet = endpoints(servers);
        let n = servers as f64;
        for client in [0, 1, clients / 2, clients - 1] {
            let count = chosen(&*aperture(size, clients)(client), &fleet).len() as f64;
            let max = f64::from(size) + n / f64::from(clients) + 2.0;
            assert!(count <= max, "{count} endpoints where {max} are promised");
        }
        let counts = connections(&fleet, clients, aperture(size, clients));
        let max = f64::from(clients) * f64::from(size) / n + f64::from(clients) / n + 2.0;
        let most = *counts.values().max().expect("endpoints") as f64;
        assert!(most <= max, "{most} clients where {max} are promised");
        assert!(counts.values().all(|&count| 0 < count), "every endpoint has a client");
    }
}

#[test]
fn rocksteadier_spreads_connections_evenly() {
    for (clients, servers, size, max_of_mean, min_of_mean) in [
        (1_000, 1_000, 20, 1.01, 0.99),
        (400, 700, 20, 1.2, 0.8),
        (300, 1_000, 20, 1.2, 0.8),
        (400, 64, 20, 1.1, 0.9),
        (200, 333, 11, 1.4, 0.7),
    ] {
        let counts = connections(&endpoints(servers), clients, rocksteadier(size));
        assert_eq!(counts.values().sum::<usize>(), clients as usize * size);
        let mean = clients as f64 * size as f64 / servers as f64;
        let most = *counts.values().max().expect("endpoints") as f64 / mean;
        let least = *counts.values().min().expect("endpoints") as f64 / mean;
        println!(
            "{clients} clients, {servers} endpoints, {size} each: {least:.2} to {most:.2} of {mean:.1}"
        );
        assert!(most <= max_of_mean, "{clients} of {servers}: the most has {most:.2} of the mean");
        assert!(
            min_of_mean <= least,
            "{clients} of {servers}: the least has {least:.2} of the mean"
        );
    }
}

#[test]
fn an_endpoint_that_leaves_moves_its_own_connections_and_no_other() {
    let fleet = endpoints(300);
    let without: Vec<_> = fleet
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != 150)
        .map(|(_, e)| e.clone())
        .collect();
    for (name, subset) in [
        ("random", Box::new(random(20)) as Box<dyn Fn(u32) -> Box<dyn Subset>>),
        ("rocksteadier", Box::new(rocksteadier(20))),
    ] {
        let had = connections(&fleet, 150, &subset)[&fleet[150].address];
        let leaves = moved(&fleet, &without, 150, &subset);
        let comes = moved(&without, &fleet, 150, &subset);
        println!("{name}: {had} connections; {leaves} move when it leaves, {comes} when it comes");
        assert_eq!(leaves, had, "{name}");
        assert!(comes <= 2 * had.max(10), "{name}: {comes} moved for one that comes");
    }
    // For comparison, and so that its documentation stays true.
    let by_aperture = moved(&fleet, &without, 150, aperture(20, 150));
    println!("aperture: {by_aperture} of {} move when one leaves", 150 * 22);
    assert!(by_aperture < 150 * 22 / 5, "{by_aperture} moved");
}

#[test]
fn a_fleet_that_is_replaced_one_by_one_moves_each_connection_about_once() {
    let mut fleet = endpoints(200);
    let mut numbers = Numbers::default();
    numbers.update(&fleet);
    let subsets: Vec<_> = (0..100).map(rocksteadier(10)).collect();
    let mut used: Vec<_> =
        subsets.iter().map(|subset| addresses(&subset.choose(&fleet, &numbers))).collect();
    let mut moved = 0;
    for index in 0..fleet.len() {
        fleet[index] = endpoint(1_000 + index);
        numbers.update(&fleet);
        for (subset, used) in subsets.iter().zip(&mut used) {
            let now = addresses(&subset.choose(&fleet, &numbers));
            moved += now.difference(used).count();
            *used = now;
        }
    }
    assert_eq!(moved, 100 * 10, "the new one has the number of the old one");
}

#[test]
fn clients_that_share_an_endpoint_share_few_others() {
    let fleet = endpoints(1_000);
    let mut numbers = Numbers::default();
    numbers.update(&fleet);
    let subset = |client| addresses(&rocksteadier(20)(client).choose(&fleet, &numbers));
    let subsets: Vec<_> = (0..500).map(subset).collect();
    let lost = &fleet[123].address;
    let heirs: BTreeSet<_> =
        subsets.iter().filter(|subset| subset.contains(lost)).flatten().collect();
    assert!(60 < heirs.len(), "its load falls on {} others", heirs.len() - 1);
}

#[test]
fn numbers_from_metadata_are_the_same_for_clients_that_started_at_different_times() {
    let ordinal = |endpoint: &Endpoint| endpoint.metadata.get("ordinal")?.parse().ok();
    let subset = Rocksteadier::new(5, 3).numbered_by(ordinal);
    let fleet = endpoints(100);
    let mut from_the_start = Numbers::default();
    from_the_start.update(&fleet[50..]);
    from_the_start.update(&fleet);
    let early = subset.choose(&fleet, &from_the_start);
    assert_eq!(addresses(&early), addresses(&chosen(&subset, &fleet)));
}

#[test]
fn numbers_that_make_no_sense_lose_no_endpoint() {
    for number in [|_: &Endpoint| Some(7_u32), |_: &Endpoint| Some(u32::MAX), |_: &Endpoint| None] {
        let subset = Rocksteadier::new(1_000, 0).numbered_by(number);
        assert_eq!(chosen(&subset, &endpoints(50)).len(), 50);
    }
}

#[test]
fn a_fleet_smaller_than_a_subset_is_used_whole_and_an_empty_one_gives_no_endpoint() {
    let subsets: [Box<dyn Subset>; 3] = [random(20)(1), rocksteadier(20)(1), aperture(20, 3)(1)];
    for subset in subsets {
        assert_eq!(chosen(&*subset, &endpoints(5)).len(), 5, "{subset:?}");
        assert!(chosen(&*subset, &[]).is_empty(), "{subset:?}");
        let drained = vec![endpoint(1).weight(0)];
        assert!(chosen(&*subset, &drained).is_empty(), "{subset:?}");
    }
}
