//! Agents that end, hang, lie and garble.

use std::time::Instant;

use evenkeel_core::{discover::Discovery, error::cause};
use evenkeel_discovery::consul::{AgentRefused, Agents, NotPermitted};
use needs::needs;

use crate::consul::{
    at, ms,
    real::{Agent, VERSIONS},
    servers::until,
    simulated::{Reply, Simulated},
    watching::Watching,
    web,
};

#[needs("consul", "consul-1.14")]
#[tokio::test]
async fn an_agent_that_restarts_with_its_data_costs_no_endpoint() {
    for version in VERSIONS {
        let mut agent = Agent::start_lasting_of(version).await.unwrap();
        agent.enter(1).await;
        agent.enter(2).await;
        let mut watching = Watching::new(&web(at(&agent.url)).hold(ms(10_000)));
        watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;

        agent.kill();
        watching.until_failure().await;
        agent.start_again().await;
        agent.enter(3).await;

        watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"]).await;
        assert_eq!(watching.least, 2);
    }
}

#[needs("consul")]
#[tokio::test]
async fn an_agent_that_restarts_without_data_empties_nothing() {
    let mut agent = Agent::start().await.unwrap();
    for port in 1..=3 {
        agent.enter(port).await;
    }
    // Longer than the agent takes to come back on a busy machine.
    let mut watching = Watching::new(&web(at(&agent.url)).hold(ms(15_000)));
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"]).await;

    agent.kill();
    agent.start_again().await;
    // The agent has been asked while it was empty.
    while !format!("{:?}", watching.until_failure().await).contains("NotConfirmed") {}
    // Two enter themselves again, one does not, one is new.
    for port in [4, 2, 1] {
        agent.enter(port).await;
    }

    watching.until(|set| set.len() == 4).await;
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:4"]).await;
    assert_eq!(watching.least, 3, "there was no moment with fewer");
}

#[needs("consul")]
#[tokio::test]
async fn an_agent_that_hangs_costs_no_endpoint_and_is_followed_again() {
    let agent = Agent::start().await.unwrap();
    agent.enter(1).await;
    let web = web(at(&agent.url).timeout(ms(300))).wait(ms(300));
    let web = web.hold(ms(10_000));
    let mut watching = Watching::new(&web);
    watching.until_addresses(&["10.0.0.1:1"]).await;

    agent.process.pause();
    let failed = watching.until_failure().await.to_string();
    assert!(failed.contains("endpoints kept: 1"), "{failed}");
    watching.during(ms(1_000)).await;
    agent.process.resume();
    agent.enter(2).await;

    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
    assert_eq!(watching.least, 1);
}

#[needs("consul")]
#[tokio::test]
async fn the_next_agent_is_asked_where_one_ends() {
    let (mut first, second) = (Agent::start().await.unwrap(), Agent::start().await.unwrap());
    first.enter(1).await;
    second.enter(1).await;
    let agents = Agents::at(["http://127.0.0.1:9", &first.url, &second.url]).unwrap();
    let mut watching = Watching::new(&web(agents));
    watching.until_addresses(&["10.0.0.1:1"]).await;

    first.kill();
    second.enter(2).await;

    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
    assert!(watching.failures.is_empty(), "another took over: {:?}", watching.failures);
}

#[tokio::test]
async fn an_index_that_goes_backwards_causes_a_full_query() {
    let agent = Simulated::start([
        Reply::Ports(90, vec![1, 2]),
        Reply::Ports(4, vec![2]),
        Reply::HoldBack(4, vec![2, 1]),
    ])
    .await;
    let mut watching = Watching::new(&web(at(&agent.url)).hold(ms(20_000)));
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
    watching.until_failure().await;
    // Until the fourth question is held back.
    watching.during(ms(300)).await;

    agent.play([Reply::HoldBack(5, vec![1, 2, 3])]);

    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"]).await;
    let asked = agent.asked();
    assert!(!asked[0].contains("index="), "{asked:?}");
    assert!(asked[1].contains("index=90&"), "{asked:?}");
    assert!(!asked[2].contains("index="), "at once and without waiting: {asked:?}");
    assert!(asked[3].contains("index=4&"), "{asked:?}");
    assert_eq!(watching.least, 2, "what the rebuilt state misses is kept");
}

#[tokio::test]
async fn an_agent_that_lost_its_data_and_has_as_much_again_is_not_believed_at_once() {
    let agent = Simulated::start([
        Reply::Ports(7, vec![1, 2]),
        Reply::Close,
        Reply::HoldBackAnew(9, vec![2, 3]),
    ])
    .await;
    let mut watching = Watching::new(&web(at(&agent.url)).hold(ms(1_000)));
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;

    watching.until(|set| set.contains_key(&"10.0.0.1:3".parse().unwrap())).await;
    assert_eq!(watching.addresses(), ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"]);
    watching.until_addresses(&["10.0.0.1:2", "10.0.0.1:3"]).await;
}

#[tokio::test]
async fn an_index_of_zero_is_no_busy_loop() {
    let agent = Simulated::start([Reply::Ports(0, vec![1]), Reply::HoldBack(1, vec![1])]).await;
    let mut watching = Watching::new(&web(at(&agent.url)));
    watching.until_addresses(&["10.0.0.1:1"]).await;
    watching.during(ms(200)).await;

    let asked = agent.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[1].contains("index=1&"), "{asked:?}");
}

#[tokio::test]
async fn queries_without_news_slow_down() {
    let same = (0..1_000).map(|index| Reply::Ports(7 + index, vec![1]));
    let agent = Simulated::start(same).await;
    let mut watching = Watching::new(&web(at(&agent.url)));
    watching.until_addresses(&["10.0.0.1:1"]).await;
    watching.during(ms(1_500)).await;

    let asked = agent.asked().len();
    assert!(asked <= 8, "asked {asked} times in 1.5 s");
    assert!(watching.failures.is_empty(), "an answer without news is no failure");
}

#[tokio::test]
async fn whatever_an_agent_answers_the_last_set_stays() {
    let faults = [
        Reply::Status(500),
        Reply::Status(429),
        Reply::Status(403),
        Reply::Status(302),
        Reply::Status(404),
        Reply::Body("<html>proxy</html>"),
        Reply::Body("[{\"Node\":null}]"),
        Reply::Half,
        Reply::Close,
        Reply::Silence,
        Reply::Filtered,
    ];
    for fault in faults {
        let agent = Simulated::start([Reply::HoldBack(7, vec![1])]).await;
        let web = web(at(&agent.url).timeout(ms(200))).wait(ms(200));
        let mut watching = Watching::new(&web);
        watching.until_addresses(&["10.0.0.1:1"]).await;

        agent.play([fault.clone()]);
        let failed = watching.until_failure().await.to_string();
        assert!(failed.contains("endpoints kept: 1"), "{fault:?}: {failed}");
        watching.during(ms(600)).await;
        assert_eq!(watching.addresses(), ["10.0.0.1:1"], "{fault:?}");

        agent.play([Reply::HoldBack(8, vec![1, 2])]);
        watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
        assert_eq!(watching.least, 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_agent_and_the_reason() {
    let agent = Simulated::start([Reply::Status(429)]).await;
    let mut watching = Watching::new(&web(at(&agent.url)));
    let failed = watching.until_failure().await;

    let refused = cause::<AgentRefused>(&**failed).unwrap();
    assert_eq!((refused.status, refused.message.as_str()), (429, "refused"));
    assert!(refused.agent.contains(&agent.url));
}

#[tokio::test]
async fn an_empty_answer_for_want_of_rights_is_a_failure() {
    let agent = Simulated::start([Reply::Ports(7, vec![])]).await;
    agent.rights(r#"[{"Allow":false}]"#);
    let mut watching = Watching::new(&web(at(&agent.url)));
    assert!(cause::<NotPermitted>(&**watching.until_failure().await).is_some());

    agent.rights(r#"[{"Allow":true}]"#);
    watching.until_addresses(&[]).await;
}

#[tokio::test]
async fn a_refresh_finds_an_agent_that_hangs_long_before_its_wait_is_over() {
    let hanging = Simulated::start([Reply::Ports(7, vec![1]), Reply::Silence]).await;
    let other = Simulated::start([Reply::HoldBack(7, vec![1, 2])]).await;
    let agents = Agents::at([&*hanging.url, &*other.url]).unwrap();
    let web = web(agents).wait(ms(600_000));
    let mut watching = Watching::new(&web);
    watching.until_addresses(&["10.0.0.1:1"]).await;
    watching.during(ms(100)).await;

    let asked_at = Instant::now();
    web.refresh();

    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
    assert!(asked_at.elapsed() < ms(10_000));
}

#[tokio::test]
async fn a_refresh_that_comes_too_early_waits_its_turn() {
    let agent = Simulated::start([Reply::HoldBack(7, vec![1])]).await;
    let web = web(at(&agent.url)).wait(ms(600_000));
    let mut watching = Watching::new(&web);
    watching.until_addresses(&["10.0.0.1:1"]).await;
    let lists = || agent.asked().iter().filter(|path| !path.contains("index=")).count();
    until("a query that is held", || async { agent.asked().len() == 2 }).await;
    web.refresh();
    until("the first refresh", || async { lists() == 2 }).await;
    until("a query that is held again", || async { agent.asked().len() == 4 }).await;

    web.refresh();

    until("the second refresh, after its rest", || async { lists() == 3 }).await;
}

#[tokio::test]
async fn an_agent_that_vanishes_while_it_holds_a_query_is_given_up() {
    // The connection stays open, like one with a peer that vanished without closing it.
    let gone = Simulated::start([Reply::HoldBack(7, vec![1])]).await;
    let other = Simulated::start([Reply::HoldBack(7, vec![1, 2])]).await;
    let agents = Agents::at([&*gone.url, &*other.url]).unwrap();
    let mut watching = Watching::new(&web(agents).wait(ms(600_000)));
    watching.until_addresses(&["10.0.0.1:1"]).await;
    until("a query that is held", || async { gone.asked().len() == 2 }).await;

    gone.stop_listening();

    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
    assert_eq!(watching.least, 1);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_system_probes_the_connection_to_a_silent_agent() {
    let agent = Simulated::start([Reply::HoldBack(7, vec![1])]).await;
    let mut watching = Watching::new(&web(at(&agent.url)).wait(ms(600_000)));
    watching.until_addresses(&["10.0.0.1:1"]).await;
    until("a query that is held", || async { agent.asked().len() == 2 }).await;

    let port: u16 = agent.url.rsplit_once(':').unwrap().1.parse().unwrap();
    let remote = format!("0100007F:{port:04X}");
    // Until sent data is acknowledged, another timer runs first.
    until("a timer that waits for silence", || async {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
        let own = rows.find(|row| row[2] == remote && row[3] == "01").expect("it is connected");
        own[5].starts_with("02:")
    })
    .await;
}

#[tokio::test]
async fn an_unreachable_endpoint_does_not_cost_a_query_each_second() {
    let agent = Simulated::start([Reply::HoldBack(7, vec![1])]).await;
    let web = web(at(&agent.url)).wait(ms(600_000));
    let mut watching = Watching::new(&web);
    watching.until_addresses(&["10.0.0.1:1"]).await;

    let start = Instant::now();
    for _ in 0..80 {
        web.refresh();
        watching.during(ms(50)).await;
    }

    // The watch itself has asked twice. A refresh asks once, and once more to be held again.
    let refreshed = agent.asked().len().saturating_sub(2) / 2;
    let most = 1 + start.elapsed().as_millis() / 2_500;
    assert!(refreshed as u128 <= most, "{refreshed} lists, and {most} at most");
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);
}

#[tokio::test]
async fn an_agent_that_hangs_is_noticed_long_before_its_wait_is_over() {
    let hanging = Simulated::start([Reply::Ports(7, vec![1]), Reply::Silence]).await;
    let other = Simulated::start([Reply::HoldBack(7, vec![1, 2])]).await;
    let agents = Agents::at([&*hanging.url, &*other.url]).unwrap();
    let mut watching = Watching::new(&web(agents).wait(ms(600_000)));

    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
    assert_eq!(watching.least, 1);
}

#[tokio::test]
async fn a_quiet_agent_is_asked_for_the_whole_list_once_a_wait() {
    let agent = Simulated::start([Reply::HoldBack(7, vec![1])]).await;
    let mut watching = Watching::new(&web(at(&agent.url)).wait(ms(600_000)));
    watching.until_addresses(&["10.0.0.1:1"]).await;
    // Longer than the agent may be silent: signs of life are not lists.
    watching.during(ms(7_500)).await;

    assert_eq!(agent.asked().len(), 2, "{:?}", agent.asked());
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);
}

#[tokio::test]
async fn the_same_list_again_brings_back_stale_endpoints() {
    let agent = Simulated::start([Reply::HoldBack(7, vec![1])]).await;
    let mut watching = Watching::new(&web(at(&agent.url)).max_stale(ms(300)));
    watching.until_addresses(&["10.0.0.1:1"]).await;

    agent.play([Reply::Status(500)]);
    watching.until_addresses(&[]).await;
    agent.play([Reply::HoldBack(7, vec![1])]);

    watching.until_addresses(&["10.0.0.1:1"]).await;
}
