//! What is asked of Redis.

use std::{sync::OnceLock, time::Duration};

use evenkeel_core::{
    BoxError,
    quota::{Grant, Rate},
};
use redis::{
    Client, ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::timeout;

/// One server, and the script that runs there.
pub(crate) struct Server {
    client: Client,
    timeout: Duration,
    script: Script,
    /// Made in a runtime, at the first question. It connects, and connects again, by itself.
    connection: OnceLock<ConnectionManager>,
}

impl Server {
    pub(crate) fn new(client: Client, timeout: Duration) -> Self {
        let script = Script::new(TAKE);
        Self { client, timeout, script, connection: OnceLock::new() }
    }

    /// Takes up to `wanted` out of the quota at `key`, or fails within the timeout.
    pub(crate) async fn take(
        &self,
        key: &[u8],
        rate: &Rate,
        wanted: u32,
    ) -> Result<Grant, BoxError> {
        let mut connection = self.connection()?;
        let taken = timeout(self.timeout, self.ask(&mut connection, key, rate, wanted)).await??;
        let [Value::Int(tokens), Value::Int(remaining), Value::Int(retry_after)] = taken[..] else {
            return Err("the script answered something else than three integers".into());
        };
        // Whatever answers there: never more than was asked for, and no longer to wait than a bucket takes
        // to fill.
        let tokens = u32::try_from(tokens)?.min(wanted);
        let retry_after = Duration::from_micros(u64::try_from(retry_after)?).min(rate.window());
        Ok(Grant { tokens, remaining: u32::try_from(remaining)?, retry_after })
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
            // A server that was restarted or flushed has forgotten it; told in full it knows it again.
            Err(error) if is_unknown_script(&error) => {
                command("EVAL", TAKE).query_async(connection).await
            }
            answered => answered,
        }
    }

    fn connection(&self) -> RedisResult<ConnectionManager> {
        if let Some(connection) = self.connection.get() {
            return Ok(connection.clone());
        }
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            // Whoever asks next tries again: no question waits for a later attempt than its own.
            .set_number_of_retries(0);
        let connection = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        Ok(self.connection.get_or_init(|| connection).clone())
    }
}

const TAKE: &str = include_str!("take.lua");

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
