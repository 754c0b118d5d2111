//! At a real agent of Consul.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use evenkeel_core::{backoff::Backoff, error::cause};
use evenkeel_discovery::{
    consul::{Agents, Consul},
    register::{Check, ConsulRegistry, Entry, Registered, Registration, Status, Taken},
};
use needs::needs;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
};

use crate::register::{
    real::{Agent, VERSIONS},
    servers::{find, free_ports, until},
    slow_motion::Proxy,
    watching::Watching,
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn agents(agent: &Agent) -> Agents {
    Agents::at([&*agent.url]).unwrap()
}

fn web(agent: &Agent) -> Consul {
    Consul::new(agents(agent), "web").backoff(Backoff::new(ms(20), ms(100))).hold(ms(10_000))
}

fn entry(port: u16) -> Entry {
    Entry::new("web", format!("10.0.0.1:{port}").parse().unwrap())
}

fn registration(agent: &Agent, entry: Entry) -> Registration<ConsulRegistry> {
    Registration::new(ConsulRegistry::new(agents(agent)), entry).ttl(ms(3_000)).propagation(ms(10))
}

/// The service in the catalog, if it is there.
async fn service(agent: &Agent) -> Option<Value> {
    let found = agent.ask("GET", "/v1/health/service/web", Value::Null).await.ok()?;
    Some(found.get(0)?["Service"].clone())
}

/// Whether another instance has its id.
async fn is_taken(registered: &Registered) -> bool {
    matches!(registered.status(), Status::Failing(e) if cause::<Taken>(e.inner()).is_some())
}

#[needs("consul", "consul-1.14")]
#[tokio::test]
async fn a_service_enters_changes_is_maintained_and_leaves() {
    for version in VERSIONS {
        let agent = Agent::start_of(version).await.unwrap();
        let mut watching = Watching::new(&web(&agent).hold(ms(100)));
        watching.until_addresses(&[]).await;
        let entry = entry(80).weight(10).zone("eu-1a").tag("v2").version("2.4").metadata("k", "v");

        let registered = registration(&agent, entry).start();
        watching.until_weights(&[("10.0.0.1:80", 10)]).await;
        let found = watching.find("10.0.0.1:80").unwrap();
        assert_eq!(found.zone.as_deref(), Some("eu-1a"));
        let metadata = |key: &str| found.metadata[key].as_str();
        assert_eq!((metadata("version"), metadata("k"), metadata("tags")), ("2.4", "v", "v2"));

        registered.weight(3);
        watching.until_weights(&[("10.0.0.1:80", 3)]).await;
        registered.change(|entry| entry.metadata.insert("k".into(), "w".into()).map_or((), drop));
        watching.until(|set| set.values().all(|e| e.metadata["k"] == "w")).await;
        registered.maintenance(Some("upgrade & restart".into()));
        watching.until_weights(&[("10.0.0.1:80", 0)]).await;
        registered.maintenance(None);
        watching.until_weights(&[("10.0.0.1:80", 3)]).await;
        registered.weight(0);
        watching.until_weights(&[("10.0.0.1:80", 0)]).await;
        registered.weight(5);
        watching.until_weights(&[("10.0.0.1:80", 5)]).await;

        registered.leave().await;
        let services = agent.ask("GET", "/v1/agent/services", Value::Null).await.unwrap();
        assert_eq!(services, json!({}), "gone before leaving is over");
        watching.until_addresses(&[]).await;
    }
}

#[needs("consul", "consul-1.14")]
#[tokio::test]
async fn a_service_enters_itself_again_when_its_agent_restarts_without_data() {
    for version in VERSIONS {
        let mut agent = Agent::start_of(version).await.unwrap();
        let mut watching = Watching::new(&web(&agent));
        let one = registration(&agent, entry(1)).start();
        let two = registration(&agent, entry(2).weight(2)).start();
        one.entered().await;
        two.entered().await;
        watching.until_weights(&[("10.0.0.1:1", 1), ("10.0.0.1:2", 2)]).await;
        watching.least = 2;

        agent.kill();
        // A later reader gets the current state, not earlier failures.
        watching.until_failure().await;
        one.failing().await;
        agent.start_again().await;
        one.entered().await;
        two.entered().await;

        watching.until_weights(&[("10.0.0.1:1", 1), ("10.0.0.1:2", 2)]).await;
        watching.during(ms(500)).await;
        assert_eq!(watching.least, 2, "no caller saw fewer");
    }
}

#[needs("consul", "consul-1.14")]
#[tokio::test]
async fn a_service_that_is_deregistered_by_hand_comes_back_and_stays_in_maintenance() {
    for version in VERSIONS {
        let agent = Agent::start_of(version).await.unwrap();
        let mut watching = Watching::new(&web(&agent).hold(ms(50)));
        let registered = registration(&agent, entry(80)).start();
        registered.entered().await;
        registered.maintenance(Some("set by the service".into()));
        watching.until_weights(&[("10.0.0.1:80", 0)]).await;

        // It may come back so soon that a reader never sees it gone; its index tells it from the former.
        let created = || async { service(&agent).await.map(|found| found["CreateIndex"].clone()) };
        let before = created().await.unwrap();
        agent.put("/v1/agent/service/deregister/web-10.0.0.1-80", Value::Null).await;
        until("the service to come back", || async {
            created().await.is_some_and(|now| now != before)
        })
        .await;
        watching.until_weights(&[("10.0.0.1:80", 0)]).await;
        watching.during(ms(500)).await;
        assert_eq!(watching.find("10.0.0.1:80").unwrap().weight, 0, "still in maintenance");

        registered.maintenance(None);
        watching.until_weights(&[("10.0.0.1:80", 1)]).await;
    }
}

#[needs("consul")]
#[tokio::test]
async fn maintenance_by_hand_survives_heartbeats_and_changes() {
    let agent = Agent::start().await.unwrap();
    let mut watching = Watching::new(&web(&agent));
    let registered = registration(&agent, entry(80)).start();
    watching.until_weights(&[("10.0.0.1:80", 1)]).await;

    agent.put("/v1/agent/service/maintenance/web-10.0.0.1-80?enable=true", Value::Null).await;
    watching.until_weights(&[("10.0.0.1:80", 0)]).await;
    registered.change(|entry| entry.tags.push("new".into()));
    watching.until(|set| set.values().all(|e| e.metadata.contains_key("tags"))).await;
    watching.during(ms(1_500)).await;

    assert_eq!(watching.find("10.0.0.1:80").unwrap().weight, 0);
}

#[needs("consul")]
#[tokio::test]
async fn a_process_that_dies_is_gone_when_its_ttl_is_over() {
    let agent = Agent::start().await.unwrap();
    let mut watching = Watching::new(&web(&agent).hold(ms(10)));
    // A runtime stands for a process: nothing of it is left after it is shut down.
    let process = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let registered = {
        let _in_it = process.enter();
        registration(&agent, entry(80)).start()
    };
    watching.until_addresses(&["10.0.0.1:80"]).await;

    let died_at = Instant::now();
    process.shutdown_background();
    watching.until_addresses(&[]).await;

    let gone_after = died_at.elapsed();
    assert!((ms(1_500)..ms(4_500)).contains(&gone_after), "{gone_after:?} of a TTL of 3 s");
    drop(registered);
}

#[needs("consul")]
#[tokio::test]
async fn an_agent_that_is_down_keeps_no_service_from_starting_or_stopping() {
    let mut agent = Agent::start().await.unwrap();
    agent.kill();
    let start = Instant::now();
    let registered = registration(&agent, entry(80)).timeout(ms(500)).start();
    registered.failing().await;
    registered.leave().await;
    assert!(start.elapsed() < ms(5_000), "{:?}", start.elapsed());

    let registered = registration(&agent, entry(80)).start();
    registered.failing().await;
    agent.start_again().await;
    registered.entered().await;
    agent.process.pause();
    let start = Instant::now();
    let leaving = registered.leave();
    leaving.await;
    assert!(start.elapsed() < ms(8_000), "{:?}", start.elapsed());
    agent.process.resume();
}

#[needs("consul")]
#[tokio::test]
async fn of_two_services_under_one_id_the_later_counts_and_each_removes_only_its_own_entry() {
    let agent = Agent::start().await.unwrap();
    let mut watching = Watching::new(&web(&agent));
    let first = registration(&agent, entry(80).weight(1)).start();
    first.entered().await;
    let second = registration(&agent, entry(80).weight(2)).start();
    watching.until_weights(&[("10.0.0.1:80", 2)]).await;
    until("the first to notice", || is_taken(&first)).await;

    let third = registration(&agent, entry(80).weight(3)).start();
    watching.until_weights(&[("10.0.0.1:80", 3)]).await;
    until("the second to notice", || is_taken(&second)).await;
    second.leave().await;
    watching.during(ms(300)).await;
    assert_eq!(watching.find("10.0.0.1:80").unwrap().weight, 3, "the entry of another stays");

    third.leave().await;
    watching.until_weights(&[("10.0.0.1:80", 1)]).await;
}

#[needs("consul", "consul-1.14")]
#[tokio::test]
async fn checks_are_made_by_the_agent_and_those_of_a_predecessor_are_removed() {
    for version in VERSIONS {
        let agent = Agent::start_of(version).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let old = json!({ "ID": "web-10.0.0.1-80", "Name": "web", "Port": 80,
        "Check": { "CheckID": "of-a-predecessor", "TTL": "100s" } });
        agent.put("/v1/agent/service/register", old).await;
        let entry = entry(80)
            .check(Check::tcp(address.to_string(), ms(1_000)))
            .check(Check::tcp(address.to_string(), ms(1_000)).timeout(ms(500)));
        let mut watching = Watching::new(&web(&agent).hold(ms(50)));

        let registered = registration(&agent, entry).start();
        watching.until_addresses(&["10.0.0.1:80"]).await;
        let checks = agent.ask("GET", "/v1/agent/checks", Value::Null).await.unwrap();
        let checks: Vec<_> = checks.as_object().unwrap().keys().cloned().collect();
        let expected = ["web-10.0.0.1-80:0", "web-10.0.0.1-80:1", "web-10.0.0.1-80:heartbeat"];
        assert_eq!(checks, expected);

        // The process lives and sends heartbeats, but does not listen any more.
        drop(listener);
        watching.until_addresses(&[]).await;
        drop(registered);
    }
}

#[needs("consul")]
#[tokio::test]
async fn the_next_agent_is_used_where_one_is_down() {
    let (mut first, second) = (Agent::start().await.unwrap(), Agent::start().await.unwrap());
    let agents = Agents::at([&*first.url, &*second.url]).unwrap();
    let registry = ConsulRegistry::new(agents);
    let registered = Registration::new(registry, entry(80)).ttl(ms(1_500)).start();
    registered.entered().await;

    first.kill();
    let mut watching = Watching::new(&web(&second));
    watching.until_addresses(&["10.0.0.1:80"]).await;
}

#[needs("consul")]
#[tokio::test]
async fn the_next_agent_has_the_entry_after_the_first_heartbeat_that_failed() {
    let (first, second) = (Agent::start().await.unwrap(), Agent::start().await.unwrap());
    let way = Proxy::to(&first.url).await;
    let agents = Agents::at([&*way.url, &*second.url]).unwrap();
    let registry = ConsulRegistry::new(agents);
    let registered = Registration::new(registry, entry(80)).ttl(ms(6_000)).start();
    registered.entered().await;

    way.shut();
    let mut watching = Watching::new(&web(&second));
    watching.until_addresses(&["10.0.0.1:80"]).await;

    let tried = way.tried().len();
    assert!(tried <= 2, "{tried} tries at the first");
    registered.entered().await;
}

#[needs("consul")]
#[tokio::test]
async fn an_entry_that_comes_back_to_an_agent_has_its_latest_values() {
    let (first, second) = (Agent::start().await.unwrap(), Agent::start().await.unwrap());
    let ways = [Proxy::to(&first.url).await, Proxy::to(&second.url).await];
    let agents = Agents::at([&*ways[0].url, &*ways[1].url]).unwrap();
    let registration = Registration::new(ConsulRegistry::new(agents), entry(80));
    let registered = registration.ttl(ms(6_000)).start();
    let mut watching = [Watching::new(&web(&first)), Watching::new(&web(&second))];
    watching[0].until_weights(&[("10.0.0.1:80", 1)]).await;
    ways[0].shut();
    watching[1].until_weights(&[("10.0.0.1:80", 1)]).await;
    registered.weight(7);
    watching[1].until_weights(&[("10.0.0.1:80", 7)]).await;
    // The change is complete when heartbeats follow it.
    let tried = ways[1].tried().len();
    until("heartbeats", || async { tried + 1 < ways[1].tried().len() }).await;

    ways[0].open();
    ways[1].shut();

    watching[0].until_weights(&[("10.0.0.1:80", 7)]).await;
    let tried = ways[1].tried().len();
    assert!(tried <= 2, "{tried} tries at the second");
}

#[needs("consul")]
#[tokio::test]
async fn leaving_goes_on_at_another_agent_where_one_hangs() {
    let server = Agent::start().await.unwrap();
    let agent = server.join().await.unwrap();
    let agents = Agents::at([&*agent.url, &*server.url]).unwrap();
    let registration = Registration::new(ConsulRegistry::new(agents), entry(80));
    let registered = registration.ttl(ms(60_000)).timeout(ms(60_000)).start();
    let mut watching = Watching::new(&web(&server).hold(ms(50)));
    watching.until_addresses(&["10.0.0.1:80"]).await;
    registered.entered().await;

    agent.process.pause();
    let leaving = tokio::spawn(registered.deregister());
    until("the end of the entry in the catalogue", || async {
        let rows = server.ask("GET", "/v1/health/service/web", Value::Null).await;
        rows.is_ok_and(|rows| rows == json!([]))
    })
    .await;
    assert!(!leaving.is_finished(), "the agent would enter it again");

    agent.process.resume();
    leaving.await.unwrap().unwrap();
    let services = agent.ask("GET", "/v1/agent/services", Value::Null).await.unwrap();
    assert_eq!(services, json!({}), "gone from the agent");
}

#[needs("consul")]
#[tokio::test]
async fn maintenance_set_by_a_predecessor_ends_with_it_and_maintenance_set_by_hand_stays() {
    let agent = Agent::start().await.unwrap();
    let mut watching = Watching::new(&web(&agent));
    let mut maintained = entry(80);
    maintained.maintenance = Some("upgrade".into());
    for (by_hand, drained) in [(false, entry(80).weight(0)), (false, maintained), (true, entry(80))]
    {
        // A runtime stands for a process: nothing of it is left after it is shut down.
        let process = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let registered = {
            let _in_it = process.enter();
            registration(&agent, drained).start()
        };
        registered.entered().await;
        if by_hand {
            watching.until_weights(&[("10.0.0.1:80", 1)]).await;
            let path = "/v1/agent/service/maintenance/web-10.0.0.1-80?enable=true&reason=tests";
            agent.put(path, Value::Null).await;
        }
        watching.until_weights(&[("10.0.0.1:80", 0)]).await;
        process.shutdown_background();

        let successor = registration(&agent, entry(80)).start();
        successor.entered().await;
        if by_hand {
            watching.during(ms(500)).await;
            assert_eq!(watching.find("10.0.0.1:80").unwrap().weight, 0, "as it was set by hand");
        } else {
            watching.until_weights(&[("10.0.0.1:80", 1)]).await;
        }
        successor.deregister().await.unwrap();
    }
}

#[needs("consul", "consul-1.14")]
#[tokio::test]
async fn a_service_is_back_when_the_catalogue_forgot_it_and_its_agent_did_not() {
    for version in VERSIONS {
        let agent = Agent::start_lasting_of(version).await.unwrap();
        agent.snapshot("save");
        let registered = registration(&agent, entry(80)).start();
        registered.entered().await;
        // Enough heartbeats that the catalogue has been checked.
        let mut watching = Watching::new(&web(&agent));
        watching.during(ms(6_000)).await;
        assert_eq!(watching.addresses(), ["10.0.0.1:80"]);

        agent.snapshot("restore");
        let back = until("the entry in the catalogue", || async {
            let rows = agent.ask("GET", "/v1/health/service/web", Value::Null).await;
            rows.is_ok_and(|rows| rows.as_array().is_some_and(|rows| !rows.is_empty()))
        });
        // Before the agent itself compares its entries with the catalogue.
        let in_time = tokio::time::timeout(ms(20_000), back).await;
        assert!(in_time.is_ok(), "{version}: not back after 20 s");
        registered.entered().await;
    }
}

#[needs("consul", "consul-1.14")]
#[tokio::test]
async fn an_entry_that_was_edited_by_hand_is_taken_over() {
    for version in VERSIONS {
        let agent = Agent::start_of(version).await.unwrap();
        let mut watching = Watching::new(&web(&agent));
        let registered = registration(&agent, entry(80).weight(7)).start();
        watching.until_weights(&[("10.0.0.1:80", 7)]).await;

        let edited = json!({ "ID": "web-10.0.0.1-80", "Name": "web", "Address": "10.0.0.1",
        "Port": 80, "Weights": { "Passing": 3, "Warning": 1 } });
        agent.put("/v1/agent/service/register", edited).await;
        watching.until_weights(&[("10.0.0.1:80", 3)]).await;

        watching.until_weights(&[("10.0.0.1:80", 7)]).await;
        registered.entered().await;
    }
}

#[needs("consul")]
#[tokio::test]
async fn of_two_services_under_one_id_the_survivor_enters_when_the_other_has_died() {
    let agent = Agent::start().await.unwrap();
    let mut watching = Watching::new(&web(&agent));
    let survivor = registration(&agent, entry(80).weight(1)).start();
    survivor.entered().await;
    let process = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let other = {
        let _in_it = process.enter();
        registration(&agent, entry(80).weight(2)).start()
    };
    watching.until_weights(&[("10.0.0.1:80", 2)]).await;
    until("the survivor to notice", || is_taken(&survivor)).await;

    process.shutdown_background();
    watching.until_weights(&[("10.0.0.1:80", 1)]).await;
    drop(other);
}

#[needs("consul")]
#[tokio::test]
async fn many_registrations_hold_no_connections() {
    let limits = json!({ "limits": { "http_max_conns_per_client": 20 } });
    let agent = Agent::with(limits, &["-dev"], None).await.unwrap();
    // With a TTL long enough that a busy agent has answered one heartbeat before the next is due.
    let enter = |port| registration(&agent, entry(port)).ttl(ms(30_000)).start();
    let held: Vec<_> = (1..=40).map(enter).collect();
    let mut watching = Watching::new(&web(&agent));
    watching.until(|set| set.len() == 40).await;
    for registered in &held {
        registered.entered().await;
    }
}

#[needs("consul")]
#[tokio::test]
async fn ipv6_host_names_and_the_address_of_the_node_are_entered() {
    let agent = Agent::start().await.unwrap();
    let mut held = Vec::new();
    for address in ["[2001:db8::1]:1", "web.internal:2", "0.0.0.0:3"] {
        let entry = Entry::new("web", address.parse().unwrap());
        held.push(registration(&agent, entry).start());
    }
    let mut watching = Watching::new(&web(&agent));
    watching.until_addresses(&["[2001:db8::1]:1", "web.internal:2", "127.0.0.1:3"]).await;
}

/// A client over go-kit, which knows only Consul's DNS.
struct GoKit {
    client: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl GoKit {
    fn start(program: &Path, dns: u16) -> Self {
        let mut command = Command::new(program);
        command.args([&format!("127.0.0.1:{dns}"), "web.service.consul."]).kill_on_drop(true);
        let mut client =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is built");
        let lines = BufReader::new(client.stdout.take().unwrap()).lines();
        Self { client, lines }
    }

    /// How many of two hundred calls each instance gets, by its round robin.
    async fn call(&mut self) -> String {
        self.client.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
        self.lines.next_line().await.unwrap().expect("an answer")
    }

    async fn until(&mut self, expected: &str) {
        let asked = async {
            while self.call().await != expected {
                tokio::time::sleep(ms(50)).await;
            }
        };
        tokio::time::timeout(ms(30_000), asked).await.expect(expected);
    }
}

#[needs("go-kit", "consul")]
#[tokio::test]
async fn go_kit_finds_what_is_registered_and_loses_what_leaves() {
    let program = find("go-kit", "go-kit-client").unwrap();
    let [dns] = free_ports();
    let ports = json!({ "ports": { "dns": dns } });
    let agent = Agent::with(ports, &["-dev"], None).await.unwrap();
    let mut go_kit = GoKit::start(&program, dns);
    let first = registration(&agent, entry(80)).start();
    let _second = registration(&agent, entry(81)).start();

    let host = "0a000001.addr.dc1.consul.";
    go_kit.until(&format!("{host}:80=100 {host}:81=100")).await;
    first.leave().await;
    go_kit.until(&format!("{host}:81=200")).await;
}
