//! One connection to Redis.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use evenkeel_core::{
    BoxError,
    endpoint::{Address, Endpoint},
};
use evenkeel_net::{ConnectTimeout, Dialer};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, RedisError, RedisResult,
    aio::MultiplexedConnection,
};
use tokio::task::JoinHandle;

/// A connection that all questions share.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) connection: MultiplexedConnection,
    driver: Arc<Driver>,
}

/// The task that drives a connection. It ends with the connection, with its runtime, or with the last
/// question over it: a server that hangs would keep it.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Line {
    /// Connects to where `client` leads, and introduces this side.
    pub(crate) async fn dial(
        client: &Client,
        dialer: &Dialer,
        timeout: Duration,
    ) -> RedisResult<Self> {
        let info = client.get_connection_info();
        let connected = match info.addr() {
            ConnectionAddr::Tcp(host, port) => dialer.connect(&endpoint(host, *port)).await,
            ConnectionAddr::TcpTls { host, port, .. } => {
                dialer.connect_tls(&endpoint(host, *port), host).await
            }
            ConnectionAddr::Unix(path) => dialer.connect(&Endpoint::new(Address::unix(path))).await,
            other => Err(format!("{other} is no address that is known").into()),
        };
        let stream = connected.map_err(to_redis)?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(timeout));
        let settings = info.redis_settings();
        let (connection, driver) =
            MultiplexedConnection::new_with_config(settings, stream, config).await?;
        Ok(Self { connection, driver: Arc::new(Driver(tokio::spawn(driver))) })
    }

    /// Whether it answers no question any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.driver.0.is_finished()
    }
}

fn endpoint(host: &str, port: u16) -> Endpoint {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Endpoint::new(match bare.parse::<IpAddr>() {
        Ok(ip) => Address::Socket((ip, port).into()),
        Err(_) => Address::Name { host: bare.into(), port },
    })
}

/// The error of a connection as Redis' own client would give it.
fn to_redis(error: BoxError) -> RedisError {
    let error = match error.downcast::<io::Error>() {
        Ok(error) => return (*error).into(),
        Err(error) => error,
    };
    match error.is::<ConnectTimeout>() {
        true => io::Error::new(io::ErrorKind::TimedOut, error).into(),
        false => {
            (ErrorKind::InvalidClientConfig, "no connection is possible", error.to_string()).into()
        }
    }
}
