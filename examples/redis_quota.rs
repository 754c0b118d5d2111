//! Two machines that share a quota on Redis, and keep working without Redis.
//!
//! `cargo run --example redis_quota`, where `redis-server` is installed.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use evenkeel::{
    core::{
        BoxError,
        quota::{Plan, Rate},
    },
    redis::{Failing, QuotaLayer, RedisQuota},
};
use tower::{Layer, ServiceExt, service_fn};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let Some((mut redis, url)) = start_redis() else {
        eprintln!("!!! NOTHING IS SHOWN: redis-server is not installed (package redis-server)");
        return Ok(());
    };
    let shown = show(&url, &mut redis).await;
    redis.kill()?;
    redis.wait()?;
    shown
}

async fn show(url: &str, redis: &mut Child) -> Result<(), BoxError> {
    // 100 at once for both together, fetched ten at a time. Each machine allows five while Redis is
    // away.
    let machine = || {
        let quota = RedisQuota::open(url, "example", Rate::per_minute(1).burst(100))?;
        let quota = quota.plan(Plan::fixed(10)).timeout(Duration::from_secs(1));
        Ok::<_, BoxError>(quota.failing(Failing::Local(Rate::per_minute(1).burst(5))))
    };
    let (one, other) = (machine()?, machine()?);

    let (first, second) = tokio::join!(passed(&one), passed(&other));
    println!("of 200 requests, {first} went through one machine and {second} through the other");
    assert!((90..=100).contains(&(first + second)));

    redis.kill()?;
    redis.wait()?;
    let alone = passed(&machine()?).await;
    println!("without Redis {alone} went through");
    assert_eq!(alone, 5);
    Ok(())
}

/// Returns how many of 100 requests are allowed.
async fn passed(quota: &RedisQuota) -> usize {
    let echo = service_fn(|n: u32| async move { Ok::<_, BoxError>(n) });
    let service = QuotaLayer::new(quota.clone()).layer(echo);
    let mut passed = 0;
    for n in 0..100 {
        passed += usize::from(service.clone().oneshot(n).await.is_ok());
    }
    passed
}

/// Starts Redis on a free port, and waits until it accepts connections.
fn start_redis() -> Option<(Child, String)> {
    let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port().to_string();
    let mut redis = Command::new("redis-server")
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut lines = BufReader::new(redis.stdout.take()?).lines().map_while(Result::ok);
    lines.find(|line| line.contains("eady to accept")).expect("Redis starts");
    std::thread::spawn(move || lines.count());
    Some((redis, format!("redis://127.0.0.1:{port}")))
}
