//! What the policies that hash promise: which keys move on a change, shares, bounds on the load,
//! and building only where something changed.

use std::{collections::HashMap, sync::Arc};

use evenkeel_core::{
    endpoint::{Address, Endpoint},
    hash::{crc32, xxh64},
    node::{Gate, Node},
    policy::{
        BUILT_IN, BuiltIn, Ketama, Maglev, PickContext, Picker, Policy, Rendezvous, RingHash,
    },
    rng::Rng,
};

const KEYS: u64 = 20_000;

fn node(index: u16, weight: u32) -> Arc<Node> {
    let [high, low] = index.to_be_bytes();
    let address = Address::Socket(std::net::SocketAddr::from(([10, 0, high, low], 80)));
    Arc::new(Node::new(Endpoint::new(address).weight(weight)))
}

fn nodes(count: u16) -> Vec<Arc<Node>> {
    (1..=count).map(|index| node(index, 1)).collect()
}

fn hash(key: u64) -> u64 {
    xxh64(&key.to_le_bytes())
}

fn pick(picker: &dyn Picker, nodes: &[Arc<Node>], hash: u64) -> usize {
    let mut rng = Rng::with_seed(1);
    let mut cx = PickContext { hash: Some(hash), ..PickContext::new(&mut rng) };
    picker.pick(nodes, &mut cx).expect("one is open")
}

/// The node of each key.
fn owners(policy: &dyn Policy, nodes: &[Arc<Node>]) -> Vec<Address> {
    let picker = policy.build(nodes, None);
    (0..KEYS).map(|key| nodes[pick(&*picker, nodes, hash(key))].address().clone()).collect()
}

/// The share of keys that are elsewhere after the last node has left.
fn moved(policy: &dyn Policy, nodes: &[Arc<Node>]) -> f64 {
    let (before, after) = (owners(policy, nodes), owners(policy, &nodes[..nodes.len() - 1]));
    before.iter().zip(&after).filter(|(before, after)| before != after).count() as f64 / KEYS as f64
}

#[test]
fn one_endpoint_of_n_moves_one_key_in_n() {
    // How far a node's own share may be off, and how much else moves.
    let policies: [(Box<dyn Policy>, f64, f64); 4] = [
        (Box::new(Rendezvous::new()), 1.1, 0.0),
        (Box::new(Ketama::new()), 1.35, 0.0),
        (Box::new(RingHash::new().points_per_weight(100)), 1.35, 0.0),
        (Box::new(Maglev::new()), 1.1, 0.02),
    ];
    for count in [3, 10, 50] {
        let nodes = nodes(count);
        for (policy, share, epsilon) in &policies {
            let moved = moved(&**policy, &nodes);
            let limit = share / f64::from(count) + epsilon;
            assert!(moved < limit, "{policy:?}: {moved} of the keys moved with {count} nodes");
        }
    }
}

#[test]
fn on_the_ring_of_envoy_twice_as_many_keys_move() {
    for count in [10, 50] {
        let moved = moved(&RingHash::new(), &nodes(count));
        let limit = 2.5 / f64::from(count);
        assert!(moved < limit, "{moved} of the keys moved with {count} nodes");
    }
}

#[test]
fn a_key_moves_to_the_endpoint_that_joins_or_stays() {
    let nodes = nodes(20);
    let policies: [Box<dyn Policy>; 3] = [
        Box::new(Rendezvous::new()),
        Box::new(Ketama::new()),
        Box::new(RingHash::new().points_per_weight(100)),
    ];
    for policy in policies {
        let (before, after) = (owners(&*policy, &nodes[..19]), owners(&*policy, &nodes));
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || after == nodes[19].address(), "{policy:?}");
        }
    }
}

#[test]
fn a_weight_that_doubles_takes_keys_and_gives_none() {
    let light: Vec<_> = (1..=10).map(|index| node(index, 2)).collect();
    let mut heavy = light.clone();
    heavy[0] = node(1, 4);
    for policy in [&Rendezvous::new() as &dyn Policy, &Ketama::new()] {
        let (before, after) = (owners(policy, &light), owners(policy, &heavy));
        let mut gained = 0;
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || after == light[0].address(), "{policy:?}");
            gained += u64::from(before != after);
        }
        // From 2 of 20 to 4 of 22.
        assert!((0.06..0.11).contains(&(gained as f64 / KEYS as f64)), "{policy:?}: {gained}");
    }
}

#[test]
fn shares_follow_weights() {
    let nodes: Vec<_> = [1, 2, 3, 4].into_iter().zip(1..).map(|(w, i)| node(i, w)).collect();
    let policies: [(Box<dyn Policy>, f64); 4] = [
        (Box::new(Rendezvous::new()), 0.05),
        (Box::new(Maglev::new()), 0.05),
        (Box::new(Ketama::new()), 0.2),
        (Box::new(RingHash::new()), 0.2),
    ];
    for (policy, tolerance) in policies {
        let mut shares = HashMap::<_, f64>::new();
        for owner in owners(&*policy, &nodes) {
            *shares.entry(owner).or_default() += 1.0 / KEYS as f64;
        }
        for node in &nodes {
            let expected = f64::from(node.weight()) / 10.0;
            let off = shares[node.address()] / expected - 1.0;
            assert!(off.abs() < tolerance, "{policy:?}: {off} off for {}", node.weight());
        }
    }
}

#[test]
fn the_key_is_what_metadata_says() {
    let named = |address: &str| {
        let endpoint: Endpoint = address.parse().unwrap();
        Arc::new(Node::new(endpoint.metadata("hash_key", format!("shard-{}", &address[7..8]))))
    };
    let before: Vec<_> = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(named).into();
    let moved: Vec<_> = ["10.9.9.1:81", "10.9.9.2:81", "10.9.9.3:81"].map(named).into();
    for policy in all() {
        let (old, new) = (policy.build(&before, None), policy.build(&moved, None));
        for key in 0..200 {
            let hash = hash(key);
            assert_eq!(pick(&*old, &before, hash), pick(&*new, &moved, hash), "{policy:?}");
        }
    }
}

fn all() -> impl Iterator<Item = Box<dyn Policy>> {
    BUILT_IN.iter().filter(|policy| policy.hashes()).map(BuiltIn::make)
}

fn bounded(factor: f64) -> impl Iterator<Item = Box<dyn Policy>> {
    BUILT_IN.iter().filter_map(move |policy| policy.bounded(factor))
}

#[test]
fn a_popular_key_fills_no_node_beyond_its_bound() {
    for policy in bounded(1.25) {
        let nodes: Vec<_> =
            [1, 1, 2, 1, 1, 4].into_iter().zip(1..).map(|(w, i)| node(i, w)).collect();
        let picker = policy.build(&nodes, None);
        let home = pick(&*policy.build(&nodes, None), &nodes, 42);
        for total in 1..=400_u32 {
            let index = pick(&*picker, &nodes, 42);
            assert!(1 < total || index == home, "{policy:?}: there is room at home");
            nodes[index].enter();
            let limit = (1.25 * f64::from(total * nodes[index].weight()) / 10.0).ceil();
            assert!(f64::from(nodes[index].in_flight()) <= limit, "{policy:?} at {total}");
        }
    }
}

#[test]
fn the_bound_follows_what_is_in_flight_and_which_nodes_are_open() {
    for policy in bounded(1.25) {
        let nodes = nodes(10);
        let picker = policy.build(&nodes, None);
        let mut rng = Rng::with_seed(3);
        let mut running = Vec::new();
        for step in 0..20_000_u64 {
            // It grows and shrinks, and one node is closed half of the time.
            let limit = if step / 500 % 2 == 0 { 200 } else { 30 };
            if step % 1_000 == 0 {
                nodes[3].close(Gate::Ejected);
            } else if step % 1_000 == 500 {
                nodes[3].open(Gate::Ejected);
            }
            while limit <= running.len() {
                let index: usize = running.swap_remove(rng.below(running.len()));
                nodes[index].exit();
            }
            // Half of all requests are for one key.
            let key = if rng.below(2) == 0 { 7 } else { rng.below_u64(1 << 40) };
            let index = pick(&*picker, &nodes, hash(key));
            nodes[index].enter();
            running.push(index);

            if step % 500 < 100 {
                continue;
            }
            let open = nodes.iter().filter(|node| node.is_open());
            let total: u32 = open.clone().map(|node| node.in_flight()).sum();
            let fair = f64::from(total) / open.count() as f64;
            let most = f64::from(nodes[index].in_flight());
            // What is known of a node is at most five picks old.
            assert!(
                most <= (1.25 * (fair + 1.0)).ceil() + 1.0,
                "{policy:?}: {most} where {fair} is fair"
            );
        }
    }
}

#[test]
fn a_light_load_is_not_spread() {
    for (policy, unbounded) in bounded(2.0).zip(all()) {
        let nodes = nodes(10);
        let (bounded, free) = (policy.build(&nodes, None), unbounded.build(&nodes, None));
        for key in 0..500 {
            let hash = hash(key);
            assert_eq!(pick(&*bounded, &nodes, hash), pick(&*free, &nodes, hash), "{policy:?}");
        }
    }
}

#[test]
fn successive_attempts_try_every_node_once() {
    for policy in all() {
        let nodes = nodes(8);
        let picker = policy.build(&nodes, None);
        let mut rng = Rng::with_seed(1);
        let mut tried = Vec::new();
        for _ in 0..nodes.len() {
            let mut cx = PickContext { hash: Some(9), avoid: &tried, ..PickContext::new(&mut rng) };
            let picked = picker.pick(&nodes, &mut cx).expect("one is left");
            assert!(!tried.contains(&nodes[picked].id()), "{policy:?}");
            tried.push(nodes[picked].id());
        }
        let mut cx = PickContext { hash: Some(9), avoid: &tried, ..PickContext::new(&mut rng) };
        assert_eq!(picker.pick(&nodes, &mut cx), None, "{policy:?}");
    }
}

#[test]
fn without_a_hash_all_nodes_have_their_turn() {
    for policy in all() {
        let nodes = nodes(5);
        let picker = policy.build(&nodes, None);
        let mut rng = Rng::with_seed(5);
        let mut counts = [0; 5];
        for _ in 0..1_000 {
            let picked = picker.pick(&nodes, &mut PickContext::new(&mut rng));
            counts[picked.expect("all are open")] += 1;
        }
        assert!(counts.iter().all(|&count| 100 < count), "{policy:?}: {counts:?}");
    }
}

#[test]
fn with_more_nodes_than_slots_no_node_is_left_out() {
    let nodes: Vec<_> = (0..20).map(|index| node(index, 1)).collect();
    let picker = Maglev::new().table_size(7).build(&nodes, None);
    let mut seen = std::collections::HashSet::new();
    (0..2_000).for_each(|key| _ = seen.insert(pick(&*picker, &nodes, hash(key))));
    assert_eq!(seen.len(), 20);
}

#[test]
fn nginx_sends_keys_to_the_same_endpoints() {
    let two: Vec<_> = ["127.0.0.1:7777", "127.0.0.1:7778"]
        .map(|a| Arc::new(Node::new(a.parse().unwrap())))
        .into();
    let picker = Ketama::new().build(&two, None);
    for key in ["/some/path", "/sad/zaidoon", "/pingora/team/is/cool/and/this/is/a/long/uri"] {
        assert_eq!(pick(&*picker, &two, crc32(key.as_bytes()).into()), 1, "{key}");
    }

    let ten: Vec<_> = (1..=10)
        .map(|index| Arc::new(Node::new(format!("127.0.0.{index}:6443").parse().unwrap())))
        .collect();
    let picker = Ketama::new().build(&ten, None);
    assert_eq!(pick(&*picker, &ten, crc32(b"a").into()), 9);
    assert_eq!(pick(&*picker, &ten, crc32(b"b").into()), 4);
}

/// What nginx 1.22.1 answered with `hash $arg_k consistent` for `key-0`, `key-1` and so on.
#[test]
fn nginx_agrees_on_weights_ipv6_and_unix_sockets() {
    let answers = concat!(
        "11201211102211121022231033220111102212121112211212",
        "11222321222201230233211111110130301202111232111013",
        "21210013221231231211121213002233121321110221012131",
        "00221112023113221321232211110131121231211121021111",
    );
    let nodes: Vec<_> = [
        ("127.0.0.1:39101", 1),
        ("127.0.0.1:39102", 3),
        ("[::1]:39103", 2),
        ("unix:/tmp/ngx/d.sock", 1),
    ]
    .map(|(address, weight)| {
        Arc::new(Node::new(address.parse::<Endpoint>().unwrap().weight(weight)))
    })
    .into();
    let picker = Ketama::new().build(&nodes, None);
    for (number, answer) in answers.bytes().enumerate() {
        let hash = crc32(format!("key-{number}").as_bytes());
        assert_eq!(pick(&*picker, &nodes, hash.into()), usize::from(answer - b'0'), "key-{number}");
    }
}

/// What pingora-ketama 0.9.1 answered for `key-0`, `key-1` and so on.
#[test]
fn pingora_agrees_on_ipv6_and_weights() {
    let answers = "312333310123133211110100101101020232101111300101";
    let node = |(address, weight): (&str, u32)| {
        Arc::new(Node::new(address.parse::<Endpoint>().unwrap().weight(weight)))
    };
    let nodes: Vec<_> = [
        ("[2001:db8::1]:8080", 1),
        ("[2001:db8::2]:8080", 2),
        ("[::ffff:10.0.0.3]:8080", 1),
        ("10.0.0.4:8080", 1),
    ]
    .map(node)
    .into();
    let (pingora, nginx) =
        (Ketama::new().pingora().build(&nodes, None), Ketama::new().build(&nodes, None));
    let hash = |number: usize| crc32(format!("key-{number}").as_bytes()).into();
    for (number, answer) in answers.bytes().enumerate() {
        let expected = usize::from(answer - b'0');
        assert_eq!(pick(&*pingora, &nodes, hash(number)), expected, "key-{number}");
    }
    let differs = |number: &usize| {
        pick(&*pingora, &nodes, hash(*number)) != pick(&*nginx, &nodes, hash(*number))
    };
    assert!((0..48).any(|number| differs(&number)), "nginx has brackets around IPv6");

    let of_ipv4 = [node(("10.0.0.1:80", 1)), node(("10.0.0.2:80", 2)), node(("unix:/a", 1))];
    let (pingora, nginx) =
        (Ketama::new().pingora().build(&of_ipv4, None), Ketama::new().build(&of_ipv4, None));
    for number in 0..200 {
        let hash = hash(number);
        assert_eq!(pick(&*pingora, &of_ipv4, hash), pick(&*nginx, &of_ipv4, hash));
    }
}
