//! Quotas on a real Redis, which is stopped and started during the tests.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "in tests, and to time them")]

use std::time::Duration;

use evenkeel_core::{
    BoxError,
    error::{RateLimited, cause},
    quota::{Plan, Rate},
};
use evenkeel_redis::{Failing, QuotaLayer, RedisQuota};
use needs::needs;
use server::{Address, Redis};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tower::{Layer, ServiceExt, service_fn};

mod server;
#[cfg(feature = "tls")]
mod tls;

/// Longer than any answer of a server on this machine takes, however busy it is.
const PATIENCE: Duration = Duration::from_secs(5);

fn now() -> Instant {
    Instant::now()
}

/// One of the machines that share the quota `name`, with a client, connections and state of its
/// own.
fn machine(redis: &Redis, name: &str, rate: Rate) -> RedisQuota {
    RedisQuota::open(&redis.url(), name, rate).unwrap().timeout(PATIENCE)
}

/// A rate that refills nothing while a test runs.
fn only(burst: u32) -> Rate {
    Rate::new(1, Duration::from_secs(36_000)).burst(burst)
}

/// How many of `count` requests at the same time go through.
async fn passed(quota: &RedisQuota, key: &'static [u8], count: usize) -> usize {
    let mut spending = JoinSet::new();
    for _ in 0..count {
        let quota = quota.clone();
        spending.spawn(async move { quota.spend(key).await.is_ok() });
    }
    spending.join_all().await.into_iter().filter(|&passed| passed).count()
}

/// Asks until `is_reachable` is reported: the connection goes and comes back in the background.
async fn until(quota: &RedisQuota, is_reachable: bool) {
    let asked = timeout(PATIENCE * 4, async {
        while quota.is_reachable() != is_reachable {
            let _ = quota.spend(b"probe").await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    asked.await.expect("Redis is seen to come and go");
}

#[needs("redis-server")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_that_share_a_quota_never_spend_more_than_there_is() {
    let redis = Redis::start().unwrap();
    for plan in [Plan::fixed(1), Plan::fixed(7), Plan::adaptive(50, Duration::from_millis(50))] {
        let name = format!("{plan:?}");
        let machines: Vec<_> =
            (0..3).map(|_| machine(&redis, &name, only(300)).plan(plan)).collect();

        let (one, two, three) = tokio::join!(
            passed(&machines[0], b"a", 300),
            passed(&machines[1], b"a", 300),
            passed(&machines[2], b"a", 300),
        );

        let all = one + two + three;
        assert!(all <= 300, "{plan:?}: {one} + {two} + {three}");
        // The rest is held by machines that have no more requests for it: a batch each at most.
        let held = 3 * plan.max_batch() as usize;
        assert!(300 <= all + held, "{plan:?}: {one} + {two} + {three}");
        if plan == Plan::fixed(1) {
            assert_eq!(all, 300);
        }
    }
}

#[needs("redis-server")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_is_refilled_at_its_rate_by_the_clock_of_the_server() {
    let redis = Redis::start().unwrap();
    let rate = Rate::per_second(200).burst(20);
    let machines = [0, 1].map(|_| machine(&redis, "rate", rate).plan(Plan::fixed(5)));
    let begun = now();

    let mut tasks = JoinSet::new();
    for quota in machines {
        tasks.spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < Duration::from_secs(1) {
                match quota.spend(b"a").await {
                    Ok(_) => times.push(begun.elapsed()),
                    Err(limited) => tokio::time::sleep(limited.retry_after).await,
                }
            }
            times
        });
    }
    let mut times = tasks.join_all().await.concat();
    times.sort();

    // In any span: the quota, and what both may hold at its beginning.
    for (index, first) in times.iter().enumerate() {
        for (count, last) in times[index..].iter().enumerate() {
            let bound = 20.0 + (*last - *first).as_secs_f64() * 200.0 + 2.0 * 5.0;
            // The script's times are rounded to a microsecond, and a request takes some time to
            // be counted.
            assert!((count + 1) as f64 <= bound + 1.0, "{} in {:?}", count + 1, *last - *first);
        }
    }
    assert!(150 < times.len(), "{} went through", times.len());
}

#[needs("redis-server")]
#[tokio::test]
async fn a_refusal_says_when_to_try_again_and_costs_no_round_trip_until_then() {
    let redis = Redis::start().unwrap();
    let quota = machine(&redis, "refusal", Rate::per_second(4).burst(1)).plan(Plan::fixed(1));
    quota.spend(b"").await.unwrap();

    let refused = quota.spend(b"").await.unwrap_err();

    assert!((1..=250).contains(&refused.retry_after.as_millis()), "{refused:?}");
    // A frozen server is not noticed, because it is not asked.
    redis.freeze();
    let again = quota.spend(b"").await.unwrap_err();
    assert!(again.retry_after <= refused.retry_after);
    redis.thaw();
    tokio::time::sleep(refused.retry_after).await;
    quota.spend(b"").await.unwrap();
}

#[needs("redis-server")]
#[tokio::test]
async fn not_every_request_asks_redis() {
    let redis = Redis::start().unwrap();
    let quota = machine(&redis, "batch", only(1_000)).plan(Plan::fixed(100));
    quota.spend(b"").await.unwrap();

    // 99 are left. Redis is not asked while a quarter of a batch is left.
    redis.freeze();
    for _ in 0..73 {
        quota.spend(b"").await.unwrap();
    }
    redis.thaw();

    // The first machine took all of its requests from the 1,000, 100 at a time; the other finds
    // the rest.
    let other = machine(&redis, "batch", only(1_000)).plan(Plan::fixed(1));
    assert_eq!(passed(&other, b"", 1_000).await, 900);
}

#[needs("redis-server")]
#[tokio::test]
async fn each_key_and_each_name_has_a_quota_of_its_own_which_expires() {
    let redis = Redis::start().unwrap();
    let quota = machine(&redis, "keys", only(3)).plan(Plan::fixed(1)).max_keys(8);
    assert_eq!(passed(&quota, b"a", 5).await, 3);
    assert_eq!(passed(&quota, b"b", 5).await, 3);
    let other = machine(&redis, "others", only(3)).plan(Plan::fixed(1));
    assert_eq!(passed(&other, b"a", 5).await, 3);
    // The server keeps a key's state after this process has forgotten the key.
    for key in 0..50_u8 {
        quota.spend(&[key]).await.unwrap();
    }
    assert_eq!(passed(&quota, b"a", 5).await, 0);

    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let key = "evenkeel:quota:keys:a";
    let expires: i64 = redis::cmd("PTTL").arg(key).query_async(&mut connection).await.unwrap();
    assert!((1..=3 * 36_000_001).contains(&expires), "{expires} ms");
}

#[needs("redis-server")]
#[tokio::test]
async fn a_server_that_has_forgotten_the_script_gets_it_again() {
    let redis = Redis::start().unwrap();
    let quota = machine(&redis, "flush", only(10)).plan(Plan::fixed(1)).failing(Failing::Refuse);
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for _ in 0..5 {
        quota.spend(b"").await.unwrap();
        let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.unwrap();
        quota.spend(b"").await.unwrap();
    }
    assert_eq!(passed(&quota, b"", 5).await, 0);
}

#[needs("redis-server")]
#[tokio::test]
async fn while_redis_is_dead_requests_go_as_configured_and_at_once_and_then_as_before() {
    let mut redis = Redis::start().unwrap();
    let rest = Duration::from_millis(50);
    let open = |failing| {
        machine(&redis, "dead", only(1_000)).plan(Plan::fixed(1)).rest(rest).failing(failing)
    };
    let through = open(Failing::LetThrough);
    let refuse = open(Failing::Refuse);
    let local = open(Failing::Local(only(3)));
    for quota in [&through, &refuse, &local] {
        quota.spend(b"a").await.unwrap();
    }

    redis.kill();
    for quota in [&through, &refuse, &local] {
        until(quota, false).await;
    }

    assert_eq!(passed(&through, b"a", 100).await, 100);
    assert_eq!(refuse.spend(b"a").await.unwrap_err().retry_after, rest);
    assert_eq!(passed(&refuse, b"a", 100).await, 0);
    assert_eq!(passed(&local, b"a", 100).await, 3);

    redis.start_again();
    for quota in [&through, &refuse, &local] {
        until(quota, true).await;
        quota.spend(b"a").await.unwrap();
    }
    // One memory again: it started empty, and three have been spent.
    assert_eq!(passed(&through, b"b", 1_500).await, 1_000);
}

#[needs("redis-server")]
#[tokio::test]
async fn a_server_that_does_not_answer_holds_no_request_longer_than_the_timeout() {
    let redis = Redis::start().unwrap();
    let bound = Duration::from_millis(100);
    let quota = machine(&redis, "frozen", only(100))
        .plan(Plan::fixed(1))
        .timeout(bound)
        .rest(Duration::from_millis(300));
    until(&quota, true).await;
    quota.spend(b"a").await.unwrap();

    redis.freeze();
    let begun = now();
    assert_eq!(passed(&quota, b"a", 50).await, 50);
    let first = begun.elapsed();
    assert!(bound / 2 <= first, "they wait for an answer: {first:?}");
    assert!(first < bound * 3, "and not for long: {first:?}");
    // During the rest no request waits at all.
    let begun = now();
    assert_eq!(passed(&quota, b"b", 50).await, 50);
    assert!(begun.elapsed() < bound / 2, "{:?}", begun.elapsed());

    redis.thaw();
    until(&quota, true).await;
    // The quota counts again.
    assert!(passed(&quota, b"c", 150).await <= 100);
}

#[needs("redis-server")]
#[tokio::test]
async fn after_a_failover_the_new_primary_is_asked_at_once() {
    let (one, two) = (Redis::start().unwrap(), Redis::start().unwrap());
    two.replicate(Some(&one)).await;
    let address = Address::of(&one).await;
    let quota = RedisQuota::open(&address.url, "failover", only(1_000)).unwrap();
    let quota = quota.timeout(PATIENCE).plan(Plan::fixed(1)).failing(Failing::Refuse);
    quota.spend(b"a").await.unwrap();

    // They change places, there and back. The existing connection stays with the one that may
    // not write.
    for (primary, replica) in [(&two, &one), (&one, &two)] {
        primary.replicate(None).await;
        replica.replicate(Some(primary)).await;
        replica.until_replicated().await;
        address.lead_to(primary);
        let dialled = address.dialled();
        assert_eq!(passed(&quota, b"a", 40).await, 40);
        assert!(dialled < address.dialled(), "another connection was made");
        assert!(address.dialled() <= dialled + 2, "and not one for each request");
    }
}

#[needs("redis-server")]
#[tokio::test]
async fn while_no_server_takes_writes_the_primary_is_looked_up_after_each_rest() {
    let (one, two) = (Redis::start().unwrap(), Redis::start().unwrap());
    let address = Address::of(&one).await;
    let quota = RedisQuota::open(&address.url, "read_only", only(1_000)).unwrap();
    let quota = quota.timeout(PATIENCE).rest(Duration::from_millis(50)).plan(Plan::fixed(1));
    let quota = quota.failing(Failing::Refuse);
    quota.spend(b"a").await.unwrap();

    // The replica has not been made primary yet.
    one.replicate(Some(&two)).await;
    two.replicate(Some(&one)).await;
    quota.spend(b"a").await.unwrap_err();
    assert!(!quota.is_reachable());
    two.replicate(None).await;
    address.lead_to(&two);

    until(&quota, true).await;
    quota.spend(b"a").await.unwrap();
}

#[needs("redis-server")]
#[tokio::test]
async fn a_primary_whose_host_is_gone_does_not_keep_its_connection() {
    let (one, two) = (Redis::start().unwrap(), Redis::start().unwrap());
    let address = Address::of(&one).await;
    let quota = RedisQuota::open(&address.url, "gone", only(1_000)).unwrap();
    let quota = quota.timeout(Duration::from_millis(500)).rest(Duration::from_millis(50));
    let quota = quota.plan(Plan::fixed(1)).failing(Failing::Refuse);
    until(&quota, true).await;
    quota.spend(b"a").await.unwrap();

    // It answers nothing and closes nothing.
    one.freeze();
    until(&quota, false).await;
    address.lead_to(&two);

    until(&quota, true).await;
    quota.spend(b"a").await.unwrap();
    one.thaw();
}

#[needs("redis-server")]
#[tokio::test]
async fn a_connection_that_the_server_has_closed_costs_no_request() {
    let redis = Redis::start().unwrap();
    let quota = machine(&redis, "closed", only(1_000)).plan(Plan::fixed(1));
    let quota = quota.failing(Failing::Refuse);
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for _ in 0..5 {
        quota.spend(b"a").await.unwrap();
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
        let killed: usize = kill.query_async(&mut connection).await.unwrap();
        assert_eq!(killed, 1);
    }
    quota.spend(b"a").await.unwrap();
}

#[needs("redis-server")]
#[test]
fn requests_of_another_runtime_go_on_when_the_one_that_connected_has_ended() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let redis = Redis::start().unwrap();
    let quota = machine(&redis, "runtimes", only(1_000)).plan(Plan::fixed(1));
    let quota = quota.failing(Failing::Refuse);
    let (first, second) = (runtime(), runtime());
    first.block_on(quota.spend(b"a")).unwrap();
    second.block_on(quota.spend(b"a")).unwrap();

    drop(first);

    for _ in 0..3 {
        second.block_on(quota.spend(b"a")).unwrap();
    }
}

#[needs("redis-server")]
#[tokio::test]
async fn a_value_that_another_program_wrote_is_not_taken_for_a_bucket() {
    use std::io::{Read, Write};

    let redis = Redis::start().unwrap();
    let url = redis.url();
    let mut line = std::net::TcpStream::connect(url.strip_prefix("redis://").unwrap()).unwrap();
    line.set_read_timeout(Some(PATIENCE)).unwrap();
    for text in ["0xffffffffffffff", "1e300", "+9007199254740991", "soon"] {
        let set = format!("SET evenkeel:quota:{text}:a {text}\r\n");
        line.write_all(set.as_bytes()).unwrap();
        let mut answer = [0; 5];
        line.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+OK\r\n");

        let quota = machine(&redis, text, only(10)).plan(Plan::fixed(1)).failing(Failing::Refuse);

        assert_eq!(passed(&quota, b"a", 20).await, 10, "{text}");
    }
}

#[tokio::test]
async fn a_redis_that_was_never_there_is_treated_like_one_that_failed() {
    let quota = RedisQuota::open("redis://127.0.0.1:1", "nowhere", only(1))
        .unwrap()
        .failing(Failing::Local(only(2)));
    assert_eq!(passed(&quota, b"a", 10).await, 2);
    assert!(!quota.is_reachable());
    assert!(RedisQuota::open("nonsense", "nowhere", only(1)).is_err());
}

#[needs("redis-server")]
#[tokio::test]
async fn a_caller_that_gives_up_leaves_the_answer_to_the_others() {
    let redis = Redis::start().unwrap();
    let quota = machine(&redis, "cancelled", only(10)).plan(Plan::fixed(5));

    // The first request asks, and is dropped before the answer.
    assert!(has_to_wait(quota.spend(b"a")));
    assert_eq!(passed(&quota, b"a", 20).await, 10);
}

/// Polls a future once and drops it; true if it had to wait.
fn has_to_wait<F: Future>(future: F) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::pin!(future).poll(&mut cx).is_pending()
}

#[needs("redis-server")]
#[tokio::test]
async fn the_layer_refuses_with_the_error_of_every_rate_limit() {
    let redis = Redis::start().unwrap();
    let quota = machine(&redis, "layer", only(2)).plan(Plan::fixed(1));
    let spender = |tenant: &&'static str| (*tenant != "free").then_some(*tenant);
    let service = QuotaLayer::new(quota)
        .keyed(spender)
        .layer(service_fn(|tenant: &'static str| async move { Ok::<_, BoxError>(tenant.len()) }));

    for _ in 0..2 {
        assert_eq!(service.clone().oneshot("acme").await.unwrap(), 4);
    }
    let refused = service.clone().oneshot("acme").await.unwrap_err();
    assert!(cause::<RateLimited>(refused.as_ref()).is_some());
    assert_eq!(service.clone().oneshot("other").await.unwrap(), 5);
    for _ in 0..5 {
        service.clone().oneshot("free").await.unwrap();
    }
}
