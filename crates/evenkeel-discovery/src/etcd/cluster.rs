//! The members of an etcd cluster to ask, and how.

use std::{sync::Arc, time::Duration};

use evenkeel_core::BoxError;
use evenkeel_net::Dialer;

use super::{
    client::Client,
    shared::{Shared, Way},
};
use crate::client::{Dial, Server, ServerError};

/// The members of an etcd cluster to ask, with the user and the TLS configuration.
///
/// ```
/// use evenkeel::discovery::etcd::Cluster;
///
/// let local = Cluster::local();
/// let three = Cluster::at(["http://10.0.0.1:2379", "http://10.0.0.2:2379", "http://10.0.0.3:2379"])?
///     .user("orders", "secret");
/// # let _ = (local, three);
/// # Ok::<(), evenkeel::discovery::ServerError>(())
/// ```
#[derive(Clone)]
pub struct Cluster {
    pub(crate) members: Vec<Server>,
    user: Option<(Arc<str>, Arc<str>)>,
    pub(crate) timeout: Duration,
    #[cfg(feature = "tls")]
    tls: evenkeel_net::Tls,
}

impl Cluster {
    /// The member of this machine, `http://127.0.0.1:2379`.
    #[must_use]
    pub fn local() -> Self {
        Self::new(vec!["http://127.0.0.1:2379".parse().expect("a member's address")])
    }

    /// These members. If one fails, the next is asked.
    ///
    /// # Errors
    /// If one of them is not a valid [`Server`], or if there is none.
    pub fn at<'a>(members: impl IntoIterator<Item = &'a str>) -> Result<Self, ServerError> {
        let members: Vec<Server> = members.into_iter().map(str::parse).collect::<Result<_, _>>()?;
        if members.is_empty() {
            return Err(ServerError { text: String::new(), reason: "no member is named" });
        }
        Ok(Self::new(members))
    }

    fn new(members: Vec<Server>) -> Self {
        Self {
            members,
            user: None,
            timeout: Duration::from_secs(5),
            #[cfg(feature = "tls")]
            tls: evenkeel_net::Tls::system(),
        }
    }

    /// Sets the user and the password. Default: none.
    #[must_use]
    pub fn user(mut self, name: impl Into<Arc<str>>, password: impl Into<Arc<str>>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// Sets the TLS configuration for `https`. Default: trusts what the system trusts.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: evenkeel_net::Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Sets how long a member may take for an answer. Default: 5 s.
    ///
    /// A short one gives up on members that are busy or elect a leader; a long one is slow to
    /// notice that one hangs.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        assert!(Duration::ZERO < timeout, "no answer comes in no time");
        self.timeout = timeout;
        self
    }

    pub(crate) fn name(&self, index: usize) -> String {
        format!("etcd {}", self.members[index % self.members.len()])
    }

    /// The client of the member at `index`, shared by all that ask this cluster in the same way.
    pub(crate) fn shared(&self, index: usize) -> Arc<Shared> {
        Shared::of(Way {
            server: self.members[index % self.members.len()].clone(),
            user: self.user.clone(),
            timeout: self.timeout,
            #[cfg(feature = "tls")]
            tls: self.tls.clone(),
            runtime: tokio::runtime::Handle::current().id(),
        })
    }

    /// An authenticated client of the member at `index`, which starts over after the last.
    pub(crate) async fn client(&self, index: usize) -> Result<Client, BoxError> {
        let server = &self.members[index % self.members.len()];
        let dialer = Dialer::new().connect_timeout(self.timeout).alpn_protocols(&[b"h2"]);
        #[cfg(feature = "tls")]
        let dialer = dialer.tls(self.tls.clone());
        let dial = Dial::new(server.clone(), dialer);
        let client = Client::new(server.clone(), dial, self.timeout)?;
        match &self.user {
            Some((name, password)) => client.authenticated(name, password).await,
            None => Ok(client),
        }
    }
}

/// A password stays out of logs.
impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = self.user.as_ref().map(|(name, _)| name);
        f.debug_struct("Cluster")
            .field("members", &self.members)
            .field("user", &user)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_printed_and_a_user_is() {
        let cluster = format!("{:?}", Cluster::local().user("orders", "s3cret"));
        assert!(!cluster.contains("s3cret"), "{cluster}");
        assert!(cluster.contains("orders"), "{cluster}");
    }
}
