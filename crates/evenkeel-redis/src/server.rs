//! The question that Redis is asked.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    quota::{Grant, Rate},
};
use redis::{
    Client, ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{sync::oneshot, time::timeout};

use crate::refusal::Refusal;

/// One server, and the script that runs there.
pub(crate) struct Server {
    client: Client,
    timeout: Duration,
    script: Script,
    connection: Mutex<Connection>,
}

#[derive(Default)]
struct Connection {
    made: Option<Made>,
    /// How many were given up, because their server is the wrong one or hangs, or their runtime has
    /// ended.
    given_up: u64,
}

/// A connection that was made in a runtime, at the first question. It connects by itself, and again
/// when it breaks.
struct Made {
    manager: ConnectionManager,
    /// Dropped with the runtime. Without it the manager answers no question, from any runtime.
    runtime: Weak<()>,
    /// Ends the task that holds the other end of `runtime`.
    _ends: oneshot::Sender<()>,
}

impl Server {
    pub(crate) fn new(client: Client, timeout: Duration) -> Self {
        let script = Script::new(TAKE);
        Self { client, timeout, script, connection: Mutex::default() }
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

    /// Asks, and if the server may not write any more, asks once more over a new connection.
    async fn ask_the_right_one(
        &self,
        key: &[u8],
        rate: &Rate,
        wanted: u32,
        used: &AtomicU64,
    ) -> RedisResult<Vec<Value>> {
        let (mut connection, given_up) = self.connection()?;
        used.store(given_up, Ordering::Relaxed);
        match self.ask(&mut connection, key, rate, wanted).await {
            Err(error) if Refusal::of(&error) == Refusal::WrongServer => {
                self.give_up(given_up);
                let (mut connection, given_up) = self.connection()?;
                used.store(given_up, Ordering::Relaxed);
                let again = self.ask(&mut connection, key, rate, wanted).await;
                if again.as_ref().is_err_and(|e| Refusal::of(e) == Refusal::WrongServer) {
                    self.give_up(given_up);
                }
                again
            }
            answered => answered,
        }
    }

    async fn ask(
        &self,
        connection: &mut ConnectionManager,
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
        match command("EVALSHA", self.script.get_hash()).query_async(connection).await {
            // A server that was restarted or flushed has lost the script; `EVAL` loads it again.
            Err(error) if is_unknown_script(&error) => {
                command("EVAL", TAKE).query_async(connection).await
            }
            answered => answered,
        }
    }

    /// The connection, and its number.
    fn connection(&self) -> RedisResult<(ConnectionManager, u64)> {
        let mut connection = self.lock();
        match &connection.made {
            Some(made) if 0 < made.runtime.strong_count() => {
                return Ok((made.manager.clone(), connection.given_up));
            }
            Some(_) => connection.given_up += 1,
            None => {}
        }
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            // The next question tries again: no question waits for a later attempt than its own.
            .set_number_of_retries(0);
        let manager = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        let made = connection.made.insert(Made::new(manager));
        Ok((made.manager.clone(), connection.given_up))
    }

    /// Makes the next question dial again, unless connection `number` was given up already.
    fn give_up(&self, number: u64) {
        let mut connection = self.lock();
        if connection.given_up == number {
            *connection = Connection { made: None, given_up: number + 1 };
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Made {
    fn new(manager: ConnectionManager) -> Self {
        let here = Arc::new(());
        let runtime = Arc::downgrade(&here);
        let (_ends, ended) = oneshot::channel();
        tokio::spawn(async move {
            let _here = here;
            let _ = ended.await;
        });
        Self { manager, runtime, _ends }
    }
}

const TAKE: &str = include_str!("take.lua");

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
