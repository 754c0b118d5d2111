//! The agents of Consul to ask, and how.

use std::{path::PathBuf, sync::Arc, time::Duration};

use evenkeel_net::Dialer;

use super::{agent::Agent, error::TokenUnreadable};
use crate::client::{Dial, Server, ServerError};

/// The agents of Consul to ask, with the token, the TLS and the namespace.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::discovery::consul::Agents;
///
/// let local = Agents::local();
/// let several = Agents::at(["http://10.0.0.1:8500", "http://10.0.0.2:8500"])?
///     .token_file("/run/secrets/consul")
///     .timeout(Duration::from_secs(3));
/// # let _ = (local, several);
/// # Ok::<(), evenkeel::discovery::ServerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Agents {
    pub(crate) servers: Vec<Server>,
    pub(super) token: Token,
    pub(super) namespace: Option<Arc<str>>,
    pub(super) partition: Option<Arc<str>>,
    pub(super) timeout: Duration,
    #[cfg(feature = "tls")]
    tls: evenkeel_net::Tls,
}

/// The credentials of this side.
#[derive(Clone)]
pub(super) enum Token {
    None,
    Text(Arc<str>),
    File(PathBuf),
}

impl Agents {
    /// The agent of this machine, `http://127.0.0.1:8500`.
    #[must_use]
    pub fn local() -> Self {
        Self::new(vec!["http://127.0.0.1:8500".parse().expect("an agent's address")])
    }

    /// These agents. If one fails, the next is asked.
    ///
    /// # Errors
    /// If one of them is not a valid [`Server`], or if there is none.
    pub fn at<'a>(servers: impl IntoIterator<Item = &'a str>) -> Result<Self, ServerError> {
        let servers: Vec<Server> = servers.into_iter().map(str::parse).collect::<Result<_, _>>()?;
        if servers.is_empty() {
            return Err(ServerError { text: String::new(), reason: "no agent is named" });
        }
        Ok(Self::new(servers))
    }

    fn new(servers: Vec<Server>) -> Self {
        Self {
            servers,
            token: Token::None,
            namespace: None,
            partition: None,
            timeout: Duration::from_secs(5),
            #[cfg(feature = "tls")]
            tls: evenkeel_net::Tls::system(),
        }
    }

    /// Sets the ACL token. Default: none.
    #[must_use]
    pub fn token(mut self, token: impl Into<Arc<str>>) -> Self {
        self.token = Token::Text(token.into());
        self
    }

    /// Sets the file with the ACL token, which is read again for each query. Default: none.
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Token::File(path.into());
        self
    }

    /// Sets the namespace (Consul Enterprise). Default: that of the token.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<Arc<str>>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Sets the admin partition (Consul Enterprise). Default: that of the agent.
    #[must_use]
    pub fn partition(mut self, partition: impl Into<Arc<str>>) -> Self {
        self.partition = Some(partition.into());
        self
    }

    /// Sets the TLS configuration for `https`. Default: trusts what the system trusts.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: evenkeel_net::Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Sets how long an agent may take for an answer that it does not hold back. Default: 5 s.
    ///
    /// A blocking query may take this much longer than its wait. A short one gives up on busy
    /// agents; a long one is slow to notice that one hangs.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        assert!(Duration::ZERO < timeout, "no answer comes in no time");
        self.timeout = timeout;
        self
    }

    /// The name of the agent at `index`, which starts over after the last.
    pub(crate) fn name(&self, index: usize) -> String {
        format!("consul agent {}", self.servers[index % self.servers.len()])
    }

    /// A client of the agent at `index`, which starts over after the last.
    pub(crate) fn agent(&self, index: usize) -> Agent {
        let server = &self.servers[index % self.servers.len()];
        let dialer = Dialer::new().connect_timeout(self.timeout).alpn_protocols(&[b"http/1.1"]);
        #[cfg(feature = "tls")]
        let dialer = dialer.tls(self.tls.clone());
        let dial = Dial::new(server.clone(), dialer);
        Agent::new(self, server.clone(), dial)
    }
}

impl Token {
    pub(super) async fn read(&self) -> Result<Option<Arc<str>>, TokenUnreadable> {
        match self {
            Self::None => Ok(None),
            Self::Text(token) => Ok(Some(token.clone())),
            Self::File(path) => {
                let read = path.clone();
                let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(read)).await;
                let text = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                let text = text.map_err(|error| TokenUnreadable {
                    path: path.display().to_string(),
                    source: Arc::new(error),
                })?;
                Ok(Some(text.trim().into()))
            }
        }
    }
}

/// A token is a secret and stays out of logs.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Text(_) => f.write_str("Text(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_printed() {
        let agents = Agents::local().token("s3cret");
        assert!(!format!("{agents:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn a_token_in_a_file_is_read_each_time_and_trimmed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let token = Token::File(file.path().into());
        std::fs::write(file.path(), "one\n").unwrap();
        assert_eq!(token.read().await.unwrap().as_deref(), Some("one"));
        std::fs::write(file.path(), "two").unwrap();
        assert_eq!(token.read().await.unwrap().as_deref(), Some("two"));
        drop(file);
        assert!(token.read().await.unwrap_err().to_string().contains("cannot be read"));
    }
}
