//! The question that Redis is asked.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    quota::{Grant, Rate},
};
use evenkeel_net::Dialer;
use redis::{Client, ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, Value};
use tokio::{sync::OnceCell, time::timeout};

use crate::{line::Line, refusal::Refusal};

/// One server, and the script that runs there.
pub(crate) struct Server {
    client: Client,
    dialer: Dialer,
    timeout: Duration,
    script: Script,
    connection: Mutex<Connection>,
}

/// The connection that is made at the first question, and again after it was given up.
#[derive(Default)]
struct Connection {
    line: Arc<OnceCell<Line>>,
    /// How many were given up, because they ended, or because their server is the wrong one or hangs.
    given_up: u64,
}

impl Server {
    pub(crate) fn new(client: Client, dialer: Dialer, timeout: Duration) -> Self {
        let dialer = dialer.connect_timeout(timeout);
        let script = Script::new(TAKE);
        Self { client, dialer, timeout, script, connection: Mutex::default() }
    }

    /// Takes up to `wanted` requests out of the quota at `key`, or fails within the timeout.
    pub(crate) async fn take(
        &self,
        key: &[u8],
        rate: &Rate,
        wanted: u32,
    ) -> Result<Grant, BoxError> {
        let used = AtomicU64::new(self.lock().given_up);
        let taken = timeout(self.timeout, self.ask_the_right_one(key, rate, wanted, &used)).await;
        if taken.as_ref().map_or(true, |taken| taken.as_ref().is_err_and(RedisError::is_timeout)) {
            // A host that is gone answers nothing, and the connection to it would stay for
            // minutes.
            self.give_up(used.into_inner());
        }
        let taken = taken??;
        let [Value::Int(tokens), Value::Int(remaining), Value::Int(retry_after)] = taken[..] else {
            return Err("the script answered something else than three integers".into());
        };
        // Bounds an answer from an unexpected server: no more than was asked for, and no longer
        // to wait than a bucket takes to fill.
        let tokens = u32::try_from(tokens)?.min(wanted);
        let retry_after = Duration::from_micros(u64::try_from(retry_after)?).min(rate.window());
        Ok(Grant { tokens, remaining: u32::try_from(remaining)?, retry_after })
    }

    /// Asks, and asks once more over a new connection if the server may not write any more, or if the
    /// connection has ended: what a lost question may have taken is not spent.
    async fn ask_the_right_one(
        &self,
        key: &[u8],
        rate: &Rate,
        wanted: u32,
        used: &AtomicU64,
    ) -> RedisResult<Vec<Value>> {
        let mut is_first = true;
        loop {
            let (line, number) = self.line();
            used.store(number, Ordering::Relaxed);
            let dial = || Line::dial(&self.client, &self.dialer, self.timeout);
            let mut line = line.get_or_try_init(dial).await?.clone();
            match self.ask(&mut line, key, rate, wanted).await {
                Err(error) if wants_another_connection(&error) => {
                    self.give_up(number);
                    if !std::mem::take(&mut is_first) {
                        return Err(error);
                    }
                }
                answered => return answered,
            }
        }
    }

    async fn ask(
        &self,
        line: &mut Line,
        key: &[u8],
        rate: &Rate,
        wanted: u32,
    ) -> RedisResult<Vec<Value>> {
        let interval = rate.interval().as_nanos() as f64 / 1_000.0;
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(1).arg(key);
            command.arg(interval).arg(rate.burst_size()).arg(wanted);
            command
        };
        match command("EVALSHA", self.script.get_hash()).query_async(&mut line.connection).await {
            // A server that was restarted or flushed has lost the script; `EVAL` loads it again.
            Err(error) if is_unknown_script(&error) => {
                command("EVAL", TAKE).query_async(&mut line.connection).await
            }
            answered => answered,
        }
    }

    /// The connection, which may have to be made first, and its number.
    fn line(&self) -> (Arc<OnceCell<Line>>, u64) {
        let mut connection = self.lock();
        if connection.line.get().is_some_and(Line::has_ended) {
            *connection = Connection { line: Arc::default(), given_up: connection.given_up + 1 };
        }
        (connection.line.clone(), connection.given_up)
    }

    /// Makes the next question dial again, unless connection `number` was given up already.
    fn give_up(&self, number: u64) {
        let mut connection = self.lock();
        if connection.given_up == number {
            *connection = Connection { line: Arc::default(), given_up: number + 1 };
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const TAKE: &str = include_str!("take.lua");

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn wants_another_connection(error: &RedisError) -> bool {
    error.is_connection_dropped() || Refusal::of(error) == Refusal::WrongServer
}
