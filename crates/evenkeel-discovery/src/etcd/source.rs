//! A list, then a watch of what changes, on one member after the other.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{BoxError, endpoint::Endpoint};

use super::{
    Cluster, Dialect,
    client::{Client, Position},
    error::{MemberRefused, WatchEnded},
    proto::{Event, KeyValue, WatchResponse, event::EventType},
    table::{Stamp, Table, net},
};
use crate::{
    error::chain,
    watch::{Answer, Session, Source},
};

#[derive(Clone)]
pub(super) struct EtcdSource {
    pub(super) service: Arc<str>,
    pub(super) cluster: Cluster,
    pub(super) dialect: Arc<dyn Dialect>,
    pub(super) quiet: Duration,
    /// Which member is asked; starts over after the last.
    asked: usize,
    /// Up to where the table is current; none before the first list, and when it has to be listed
    /// again.
    position: Option<Position>,
    /// Where the last list or event was, even if `position` has been cleared.
    last: Option<Position>,
    table: Table,
}

impl EtcdSource {
    pub(super) fn new(service: Arc<str>, cluster: Cluster, dialect: Arc<dyn Dialect>) -> Self {
        Self {
            service,
            cluster,
            dialect,
            quiet: Duration::from_secs(5),
            asked: 0,
            position: None,
            last: None,
            table: Table::default(),
        }
    }

    /// Follows one member until it fails.
    async fn follow(&mut self, session: &mut Session) -> Result<(), BoxError> {
        let client = self.cluster.client(self.asked).await?;
        let mut is_rebuilt = false;
        if let Some(position) = self.position {
            match self.is_as_known(&client, position).await? {
                Some(true) => {}
                Some(false) => (self.position, is_rebuilt) = (None, true),
                None => self.position = None,
            }
        }
        loop {
            let position = match self.position {
                Some(position) => position,
                None => self.list(session, &client, is_rebuilt).await?,
            };
            is_rebuilt = self.watch(session, &client, position).await?;
            self.position = None;
        }
    }

    /// Whether the member has the known history, so that a watch can be resumed; none if it cannot
    /// tell. A cluster that lost its data has the same name, and soon the same revision again.
    async fn is_as_known(
        &self,
        client: &Client,
        position: Position,
    ) -> Result<Option<bool>, BoxError> {
        let Some((key, stamp)) = self.table.sample() else { return Ok(None) };
        match client.find(key, position.revision).await {
            Ok(found) => Ok(Some(found.as_ref().map(stamp_of) == Some(stamp))),
            Err(error) => match error.downcast_ref::<MemberRefused>() {
                Some(refused) if refused.is_compacted() => Ok(None),
                // The position lies in the member's future. The next list may not show that: by
                // then, the new state may have reached the old revision.
                Some(refused) if refused.is_out_of_range() => Ok(Some(false)),
                _ => Err(error),
            },
        }
    }

    /// Reads all keys, and reports the differences from the last set.
    async fn list(
        &mut self,
        session: &mut Session,
        client: &Client,
        is_rebuilt: bool,
    ) -> Result<Position, BoxError> {
        let (keys, position) = client.list(&self.dialect.prefix(&self.service)).await?;
        let goes_on = self.last.is_none_or(|last| !does_not_follow(last, position));
        let mut table = Table::default();
        for entry in keys {
            let endpoints = self.read(&entry.key, &entry.value);
            table.put(&entry.key, stamp_of(&entry), endpoints, &mut vec![]);
        }
        self.table = table;
        self.stand_at(position);
        let whole = Answer::new(self.table.endpoints());
        session.answer(whole.rebuilt(is_rebuilt || !goes_on));
        Ok(position)
    }

    /// Follows what changes until everything has to be listed again, either because revisions are
    /// compacted, or because the member's state does not continue the known one: then it is true.
    async fn watch(
        &mut self,
        session: &mut Session,
        client: &Client,
        position: Position,
    ) -> Result<bool, BoxError> {
        let prefix = self.dialect.prefix(&self.service);
        // From the list's own revision on, not from the next one: since 3.6 a member gives no sign
        // of life to a watch that begins in its future. Events of that revision are repeated, which
        // changes nothing.
        let mut watching = client.watch(&prefix, position.revision).await?;
        let mut events = vec![];
        loop {
            let response = tokio::select! {
                response = watching.next(self.quiet) => response?,
                () = session.wait_out_doubt() => {
                    session.answer(Answer::new(self.table.endpoints()));
                    continue;
                }
                () = session.wait_for_refresh() => {
                    watching.ask();
                    continue;
                }
            };
            if response.canceled {
                if 0 < response.compact_revision {
                    return Ok(false);
                }
                let reason = response.cancel_reason;
                return Err(WatchEnded { member: client.name(), reason }.into());
            }
            if response.created && self.is_elsewhere(&response) {
                return Ok(true);
            }
            events.extend(response.events);
            // A large response comes in parts, which belong together.
            if !response.fragment && !events.is_empty() {
                self.apply(session, std::mem::take(&mut events));
            } else if response.created {
                // The session works, although there is no news.
                session.answer(Answer::new(self.table.endpoints()));
            }
        }
    }

    /// Whether the watch was created on a state that does not continue the known one.
    fn is_elsewhere(&self, response: &WatchResponse) -> bool {
        let now = response
            .header
            .as_ref()
            .map(|header| Position { cluster: header.cluster_id, revision: header.revision });
        now.zip(self.position).is_some_and(|(now, position)| does_not_follow(position, now))
    }

    /// Applies every event of a response.
    fn apply(&mut self, session: &mut Session, events: Vec<Event>) {
        let (mut changes, mut position) = (vec![], self.position);
        for event in events {
            let is_put = event.r#type() == EventType::Put;
            let Some(entry) = event.kv else { continue };
            if let Some(position) = &mut position {
                position.revision = position.revision.max(entry.mod_revision);
            }
            if is_put {
                let endpoints = self.read(&entry.key, &entry.value);
                self.table.put(&entry.key, stamp_of(&entry), endpoints, &mut changes);
            } else {
                self.table.delete(&entry.key, &mut changes);
            }
        }
        if let Some(position) = position {
            self.stand_at(position);
        }
        session.change(net(changes), || self.table.endpoints());
    }

    fn stand_at(&mut self, position: Position) {
        self.position = Some(position);
        self.last = Some(position);
    }

    /// The endpoints in one key. An unreadable key does not affect the others.
    fn read(&self, key: &[u8], value: &[u8]) -> Vec<Endpoint> {
        let text = String::from_utf8_lossy(key);
        self.dialect.read(&self.service, &text, value).unwrap_or_else(|error| {
            let (key, error) = (&*text, chain(&*error));
            tracing::debug!(key, error, "an entry that cannot be read is left out");
            vec![]
        })
    }
}

/// Whether `now` belongs to a state that does not continue `before`.
fn does_not_follow(before: Position, now: Position) -> bool {
    now.cluster != before.cluster || now.revision < before.revision
}

fn stamp_of(entry: &KeyValue) -> Stamp {
    Stamp { revision: entry.mod_revision, lease: entry.lease }
}

impl Source for EtcdSource {
    fn origin(&self) -> String {
        format!("etcd {}", self.dialect.prefix(&self.service))
    }

    async fn session(&mut self, session: &mut Session) -> Result<(), BoxError> {
        let mut failed: BoxError = "no member is named".into();
        for _ in 0..self.cluster.members.len() {
            match self.follow(session).await {
                Ok(()) => return Ok(()),
                Err(error) => failed = error,
            }
            let member = self.cluster.name(self.asked);
            tracing::debug!(member, error = %failed, "the next member is asked");
            self.asked += 1;
        }
        Err(failed)
    }
}
