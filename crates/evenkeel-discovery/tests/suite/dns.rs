//! DNS over real sockets: a simulated server for faults, and a real BIND.

mod bind;
pub(crate) mod simulated;

use std::time::Duration;

use evenkeel_core::{
    BoxError,
    backoff::Backoff,
    discover::{Discovery, Update, Watch},
    endpoint::Endpoint,
};
use evenkeel_discovery::Dns;
use futures_util::StreamExt;
use needs::needs;
use tokio::time::timeout;

use self::{
    bind::Bind,
    simulated::{Reply, Server, WithoutEdns},
};

const MINUTE: Duration = Duration::from_secs(60);

fn endpoints(addresses: &[&str]) -> Vec<Endpoint> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

/// The endpoints of `db.example.test.` in both families, each with one of the other as its
/// alternative.
fn both_families() -> Vec<Endpoint> {
    let pairs = [
        ("[2001:db8::1]:80", "10.0.0.1:80"),
        ("10.0.0.1:80", "[2001:db8::1]:80"),
        ("10.0.0.2:80", "[2001:db8::1]:80"),
    ];
    let endpoint = |(address, other): (&str, &str)| {
        endpoints(&[address]).remove(0).alternatives(other.parse::<std::net::SocketAddr>())
    };
    pairs.map(endpoint).to_vec()
}

/// With times short enough that a test need not wait for seconds.
fn quick(dns: Dns) -> Dns {
    dns.ttl_bounds(Duration::from_millis(20), Duration::from_millis(100))
        .backoff(Backoff::new(Duration::from_millis(20), Duration::from_millis(100)))
        .timeout(Duration::from_secs(2))
}

fn host(server: &Server) -> Dns {
    quick(Dns::new("db.example.test.:80").unwrap().nameserver(server.address))
}

async fn next(watch: &mut Watch) -> Result<Vec<Endpoint>, BoxError> {
    let news = timeout(MINUTE, watch.next()).await.expect("news within a minute").expect("no end");
    news.map(|update| match update {
        Update::Set(endpoints) => endpoints,
        other => panic!("DNS is told as a whole, not as {other:?}"),
    })
}

/// Reads on, over failures and intermediate sets, until this set is reported.
async fn until(watch: &mut Watch, expected: &[Endpoint]) {
    let reached = async { while !matches!(next(watch).await, Ok(set) if set == expected) {} };
    timeout(MINUTE, reached).await.expect("the set within a minute");
}

#[tokio::test]
async fn changed_addresses_are_found_and_rotated_ones_are_no_news() {
    let server = Server::start().await;
    server.reply("db.example.test.", Reply::v4(&["10.0.0.1", "10.0.0.2"]));
    let mut watch = host(&server).watch();
    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.1:80", "10.0.0.2:80"]));

    server.reply("db.example.test.", Reply::v4(&["10.0.0.2", "10.0.0.1"]));
    server.asked_again(4).await;
    server.reply("db.example.test.", Reply::v4(&["10.0.0.3"]));

    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.3:80"]), "the next news");
}

#[tokio::test]
async fn servfail_refusal_silence_and_garbage_keep_the_last_addresses() {
    for fault in [Reply::ServFail, Reply::Refused, Reply::Silence, Reply::Garbage] {
        let server = Server::start().await;
        server.reply("db.example.test.", Reply::v4(&["10.0.0.1"]));
        let dns = host(&server);
        let mut watch = dns.watch();
        next(&mut watch).await.unwrap();

        server.reply("db.example.test.", fault.clone());
        let failed = next(&mut watch).await.unwrap_err().to_string();

        assert!(failed.contains("endpoints kept: 1"), "{fault:?}: {failed}");
        let kept = next(&mut dns.watch()).await.unwrap();
        assert_eq!(kept, endpoints(&["10.0.0.1:80"]), "{fault:?}");
        server.reply("db.example.test.", Reply::v4(&["10.0.0.2"]));
        until(&mut watch, &endpoints(&["10.0.0.2:80"])).await;
    }
}

#[tokio::test]
async fn a_name_that_vanishes_is_gone_after_two_answers_and_may_come_back() {
    for denial in [Reply::NxDomain, Reply::NoData] {
        let server = Server::start().await;
        server.reply("db.example.test.", Reply::v4(&["10.0.0.1"]));
        let mut watch = host(&server).watch();
        next(&mut watch).await.unwrap();

        server.reply("db.example.test.", denial);
        next(&mut watch).await.unwrap_err();
        assert_eq!(next(&mut watch).await.unwrap(), []);

        server.reply("db.example.test.", Reply::v4(&["10.0.0.2"]));
        until(&mut watch, &endpoints(&["10.0.0.2:80"])).await;
    }
}

#[tokio::test]
async fn a_host_of_ipv6_only_or_of_both_families_is_found() {
    let server = Server::start().await;
    server.reply("db.example.test.", Reply::Addresses(vec!["2001:db8::1".parse().unwrap()]));
    let mut watch = host(&server).watch();
    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["[2001:db8::1]:80"]));

    let both = ["10.0.0.1", "10.0.0.2", "2001:db8::1"].map(|ip| ip.parse().unwrap());
    server.reply("db.example.test.", Reply::Addresses(both.into()));
    until(&mut watch, &both_families()).await;
}

#[tokio::test]
async fn an_answer_that_is_too_large_for_udp_is_fetched_over_tcp() {
    let server = Server::start().await;
    let ips: Vec<_> = (0..1_000).map(|n: u32| format!("10.0.{}.{}", n >> 8, n & 255)).collect();
    let ips: Vec<_> = ips.iter().map(String::as_str).collect();
    server.reply("db.example.test.", Reply::v4(&ips));

    let set = next(&mut host(&server).watch()).await.unwrap();

    assert_eq!(set.len(), 1_000);
    assert!(0 < server.asked_over_tcp());
}

#[tokio::test]
async fn srv_records_give_ports_weights_and_tiers() {
    let server = Server::start().await;
    let records = [
        (0, 3, 8_080, "a.example.test."),
        (0, 0, 8_081, "b.example.test."),
        (1, 5, 0, "a.example.test."),
    ];
    server.reply("_grpc._tcp.example.test.", Reply::srv(&records));
    server.reply("a.example.test.", Reply::v4(&["10.0.0.1"]));
    server.reply("b.example.test.", Reply::v4(&["10.0.0.2"]));
    let name = format!("dns://{}/_grpc._tcp.example.test.", server.address);
    let mut watch = quick(Dns::srv(name).unwrap()).watch();

    let mut expected = endpoints(&["10.0.0.2:8081", "10.0.0.1:8080"]);
    expected[1] = expected[1].clone().weight(3);
    assert_eq!(next(&mut watch).await.unwrap(), expected);

    let records = [(7, 9, 8_080, "a.example.test.")];
    server.reply("_grpc._tcp.example.test.", Reply::srv(&records));
    let expected = [endpoints(&["10.0.0.1:8080"])[0].clone().weight(9).priority(7)];
    until(&mut watch, &expected).await;
}

#[tokio::test]
async fn a_server_that_does_not_know_edns_is_asked_without_it() {
    use WithoutEdns::{BareFormErr, FormErr, NotImp, Silence};

    let ips: Vec<_> = (0..100).map(|n| format!("10.0.0.{n}")).collect();
    let ips: Vec<_> = ips.iter().map(String::as_str).collect();
    for fault in [FormErr, NotImp, BareFormErr, Silence] {
        let server = Server::start().await;
        server.forget_edns(fault);
        server.reply("db.example.test.", Reply::v4(&["10.0.0.1"]));
        let mut watch = host(&server).watch();
        assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.1:80"]), "{fault:?}");

        server.reply("db.example.test.", Reply::v4(&ips));
        let expected = ips.iter().map(|ip| format!("{ip}:80").parse().unwrap());
        until(&mut watch, &expected.collect::<Vec<_>>()).await;
        assert!(0 < server.asked_over_tcp(), "{fault:?}: what is too large without EDNS");
    }
}

#[tokio::test]
async fn a_server_that_knows_edns_is_not_asked_without_it() {
    let server = Server::start().await;
    let ips: Vec<_> = (1..=50).map(|n| format!("10.0.0.{n}")).collect();
    let ips: Vec<_> = ips.iter().map(String::as_str).collect();
    server.reply("db.example.test.", Reply::v4(&ips));
    let mut watch = host(&server).timeout(Duration::from_secs(40)).watch();
    assert_eq!(next(&mut watch).await.unwrap().len(), 50);

    server.reply("db.example.test.", Reply::ServFail);
    next(&mut watch).await.unwrap_err();
    server.reply("db.example.test.", Reply::v4(&ips[1..]));
    while next(&mut watch).await.is_err() {}
    assert_eq!(server.asked_over_tcp(), 0, "50 addresses fit with EDNS, and do not without");
}

#[tokio::test]
async fn one_of_two_servers_that_fails_hides_nothing_that_the_other_knows() {
    let (ill, well) = (Server::start().await, Server::start().await);
    well.reply("db.example.test.", Reply::v4(&["10.0.0.1"]));
    for fault in [Reply::ServFail, Reply::Refused] {
        ill.reply("db.example.test.", fault);
        let dns = Dns::new("db.example.test.:80").unwrap();
        let dns = quick(dns.nameserver(ill.address).nameserver(well.address));
        let mut watch = dns.watch();
        assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.1:80"]));

        well.asked_again(20).await;
        well.reply("db.example.test.", Reply::v4(&["10.0.0.2"]));
        assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.2:80"]), "no failure");
        well.reply("db.example.test.", Reply::v4(&["10.0.0.1"]));
    }
}

#[tokio::test]
async fn names_with_underscores_are_found_as_hosts_and_as_targets() {
    let server = Server::start().await;
    server.reply("my_db.shop_1.test.", Reply::v4(&["10.0.0.1"]));
    server.reply("_grpc._tcp.web_app.test.", Reply::srv(&[(0, 1, 80, "my_db.shop_1.test.")]));
    let server = server.address;

    let host = quick(Dns::new("my_db.shop_1.test:80").unwrap().nameserver(server));
    assert_eq!(next(&mut host.watch()).await.unwrap(), endpoints(&["10.0.0.1:80"]));
    let service = quick(Dns::srv("_grpc._tcp.web_app.test").unwrap().nameserver(server));
    assert_eq!(next(&mut service.watch()).await.unwrap(), endpoints(&["10.0.0.1:80"]));
}

#[tokio::test]
async fn a_refresh_finds_new_addresses_long_before_the_old_ones_expire() {
    let server = Server::start().await;
    server.reply("db.example.test.", Reply::v4(&["10.0.0.1"]));
    let hour = Duration::from_secs(3_600);
    let dns = Dns::new("db.example.test.:80").unwrap().nameserver(server.address);
    let dns = dns.ttl_bounds(hour, hour);
    let mut watch = dns.watch();
    next(&mut watch).await.unwrap();
    server.reply("db.example.test.", Reply::v4(&["10.0.0.2"]));

    dns.refresh();

    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.2:80"]));
}

#[tokio::test]
async fn any_number_of_watchers_shares_one_query() {
    let server = Server::start().await;
    server.reply("db.example.test.", Reply::v4(&["10.0.0.1"]));
    let hour = Duration::from_secs(3_600);
    let dns = Dns::new("db.example.test.:80").unwrap().nameserver(server.address);
    let dns = dns.ttl_bounds(hour, hour);

    for mut watch in (0..20).map(|_| dns.clone().watch()).collect::<Vec<_>>() {
        next(&mut watch).await.unwrap();
        std::mem::forget(watch);
    }

    assert_eq!(server.asked(), 2, "once for each address family");
}

#[needs("named")]
#[tokio::test]
async fn bind_is_followed_through_changes_aliases_denials_and_its_end() {
    let mut bind = Bind::start().unwrap();
    let server = bind.address;
    let ask = |name: &str| quick(Dns::new(name).unwrap().nameserver(server));
    let (mut host, mut alias) =
        (ask("db.example.test.:80").watch(), ask("alias.example.test.:80").watch());
    let first = both_families();
    until(&mut host, &first).await;
    until(&mut alias, &first).await;

    bind.update("update delete db.example.test. A 10.0.0.1\nupdate delete db.example.test. AAAA");
    let second = endpoints(&["10.0.0.2:80"]);
    until(&mut host, &second).await;
    until(&mut alias, &second).await;

    bind.update("update delete db.example.test. A");
    until(&mut host, &[]).await;
    bind.update("update add db.example.test. 0 A 10.0.0.9");
    let third = endpoints(&["10.0.0.9:80"]);
    until(&mut host, &third).await;

    bind.stop();
    let failed = next(&mut host).await.unwrap_err().to_string();
    assert!(failed.contains("endpoints kept: 1"), "{failed}");
}

#[needs("named")]
#[tokio::test]
async fn bind_serves_services_and_answers_too_large_for_udp() {
    let bind = Bind::start().unwrap();
    let server = bind.address;
    let many = quick(Dns::new("many.example.test.:80").unwrap().nameserver(server));
    let mut many = many.watch();
    let set = loop {
        if let Ok(set) = next(&mut many).await {
            break set;
        }
    };
    assert_eq!(set.len(), 100, "over TCP, as BIND truncates its answer over UDP");

    let mut services =
        quick(Dns::srv("_grpc._tcp.example.test.").unwrap().nameserver(server)).watch();
    let expected = [
        endpoints(&["10.0.1.1:8080"])[0].clone().weight(10),
        endpoints(&["10.0.1.2:8081"])[0].clone().weight(5).priority(1),
    ];
    until(&mut services, &expected).await;
}
