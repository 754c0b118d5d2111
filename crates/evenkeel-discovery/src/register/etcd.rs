//! Registration in etcd.
//!
//! The entry is a key attached to a lease, which heartbeats keep alive. When they stop, the key is
//! removed after the TTL. etcd's minimum is 2 s, and a new leader gives every lease its whole TTL
//! again. Checks are not made, since etcd has none.
//!
//! A key that was put by hand has no lease, and is taken over. An unspecified address (`0.0.0.0`)
//! is refused ([`Registry::validate`]), since no better one is known here.
//!
//! Weight 0 and maintenance are written as weight 0. If a [layout](crate::etcd::dialect) has no
//! weights, the key is removed instead.
//!
//! **Connections.** All registrations of one runtime share a connection to a member if they ask it
//! as the same user, with the same timeout and the same TLS.
//!
//! **Rights** that a user needs: to read and write the keys of the service.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{BoxError, endpoint::Address};

use super::{Entry, InvalidEntry, Kept, Registry};
use crate::etcd::{Cluster, Dialect, client::Client, dialect::Plain, shared::Shared};

/// Enters services in etcd. See the [module docs](self).
///
/// ```
/// use evenkeel::discovery::{etcd::{Cluster, dialect::Naming}, register::EtcdRegistry};
///
/// let registry = EtcdRegistry::new(Cluster::local()).dialect(Naming);
/// # let _ = registry;
/// ```
pub struct EtcdRegistry {
    cluster: Cluster,
    dialect: Arc<dyn Dialect>,
    /// The member that is asked; starts over after the last.
    asked: usize,
    /// The client that was asked last, which other registrations use too.
    shared: Option<Arc<Shared>>,
    /// Whether it has answered; false while an attempt is under way, and after one that failed.
    has_answered: bool,
    lease: Option<i64>,
    /// The key of the entry; none while it is removed.
    key: Option<String>,
}

impl EtcdRegistry {
    /// Enters services in this cluster, laid out as [`Plain`] by default.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            dialect: Arc::new(Plain),
            asked: 0,
            shared: None,
            has_answered: false,
            lease: None,
            key: None,
        }
    }

    /// Sets how entries are laid out. Default: [`Plain`].
    #[must_use]
    pub fn dialect(mut self, dialect: impl Dialect) -> Self {
        self.dialect = Arc::new(dialect);
        self
    }

    /// Begins an attempt at one member. After an attempt that fails or is dropped, the next member
    /// is asked.
    async fn client(&mut self) -> Result<Client, BoxError> {
        let shared = match self.shared.take() {
            Some(shared) if self.has_answered => shared,
            failed => {
                failed.iter().for_each(|failed| failed.give_up());
                self.asked += 1;
                self.cluster.shared(self.asked - 1)
            }
        };
        self.has_answered = false;
        let (cluster, index) = (&self.cluster, self.asked - 1);
        self.shared.insert(shared).client(|| cluster.client(index)).await
    }

    async fn enter_at(
        &mut self,
        client: &Client,
        entry: &Entry,
        ttl: Duration,
    ) -> Result<(), BoxError> {
        // An expired lease would remove the key as soon as it is put.
        if let Some(lease) = self.lease
            && !client.keep(lease).await?
        {
            self.lease = None;
        }
        let lease = match self.lease {
            Some(lease) => lease,
            None => *self.lease.insert(client.grant(ttl).await?),
        };
        let (key, value) = self.dialect.write(entry, lease)?;
        if entry.effective_weight() == 0 && !self.dialect.has_weights() {
            // The key is attached to the lease and is removed with it.
            client.revoke(lease).await?;
            (self.lease, self.key) = (None, None);
            return Ok(());
        }
        client.put(&key, value, lease).await?;
        self.key = Some(key);
        Ok(())
    }

    async fn keep_at(&mut self, client: &Client) -> Result<Kept, BoxError> {
        let (Some(lease), Some(key)) = (self.lease, &self.key) else {
            return Ok(Kept::Alive);
        };
        let is_alive = client.keep(lease).await?;
        let found = client.find(key.as_bytes(), 0).await?;
        let kept = match found {
            // A key that was put by hand has no owner, and may be taken over.
            Some(found) if found.lease == 0 => Kept::Lost,
            Some(found) if found.lease != lease => Kept::Taken,
            Some(_) if is_alive => Kept::Alive,
            _ => Kept::Lost,
        };
        // While another instance has the key, an expired lease is not dropped: without a lease, the
        // next heartbeat would not look at the key.
        if kept == Kept::Lost && !is_alive {
            self.lease = None;
        }
        Ok(kept)
    }
}

impl Registry for EtcdRegistry {
    fn origin(&self) -> String {
        self.cluster.name(self.asked.saturating_sub(1))
    }

    fn validate(&self, entry: &Entry) -> Result<(), InvalidEntry> {
        entry.validate()?;
        match entry.address {
            Address::Socket(address) if address.ip().is_unspecified() => {
                let reason =
                    "an unspecified address is no place to connect to: enter the machine's own";
                Err(InvalidEntry::new(entry, reason))
            }
            _ => Ok(()),
        }
    }

    async fn enter(&mut self, entry: &Entry, ttl: Duration) -> Result<(), BoxError> {
        let client = self.client().await?;
        self.enter_at(&client, entry, ttl).await?;
        self.has_answered = true;
        Ok(())
    }

    async fn keep(&mut self, _: &Entry, _: Duration) -> Result<Kept, BoxError> {
        let client = self.client().await?;
        let kept = self.keep_at(&client).await?;
        self.has_answered = true;
        Ok(kept)
    }

    async fn leave(&mut self, _: &Entry) -> Result<(), BoxError> {
        let Some(lease) = self.lease else { return Ok(()) };
        let client = self.client().await?;
        // Only keys of this lease go: another instance's entry under the same key has its own.
        client.revoke(lease).await?;
        self.has_answered = true;
        Ok(())
    }
}

impl std::fmt::Debug for EtcdRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdRegistry")
            .field("cluster", &self.cluster)
            .field("lease", &self.lease)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_refused() {
        let registry = EtcdRegistry::new(Cluster::local());
        let check = |address: &str| registry.validate(&Entry::new("web", address.parse().unwrap()));
        assert!(check("0.0.0.0:80").is_err());
        assert!(check("[::]:80").is_err());
        assert_eq!(check("127.0.0.1:80"), Ok(()));
        assert_eq!(check("web.internal:80"), Ok(()));
    }

    #[test]
    #[should_panic(expected = "port 0 cannot be connected to")]
    fn a_registration_is_refused_when_it_is_made() {
        let unbound: std::net::SocketAddr = "10.0.0.1:0".parse().unwrap();
        let entry = Entry::new("web", unbound.into());
        let _ = crate::register::Registration::new(EtcdRegistry::new(Cluster::local()), entry);
    }
}
