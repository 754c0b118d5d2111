//! A list, then a watch of what changes, again and again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use evenkeel_core::{
    BoxError,
    endpoint::{Address, Endpoint},
    number::digits,
};
use tokio::time::Instant;

use super::{
    ApiServer,
    checks::Checks,
    client::{Client, Event, Events, is_expired, refused},
    error::NoSuchPort,
    reading::{Family, PortChoice, Reading},
    table::Table,
};
use crate::{
    clock,
    doubt::{AWAY, Doubt},
    error::NotConfirmed,
    pace::Pace,
    watch::{Session, Source},
};

/// The longest rest that an API server can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// More changes at once than this are reported as a whole set.
const CHANGES_MAX: usize = 256;

#[derive(Clone)]
pub(super) struct KubernetesSource {
    pub(super) server: ApiServer,
    pub(super) service: Arc<str>,
    pub(super) namespace: Option<Arc<str>>,
    pub(super) reading: Reading,
    pub(super) wait: Duration,
    pub(super) quiet: Duration,
    pub(super) hold: Duration,
    kube: Option<kube::Client>,
    is_old: bool,
    table: Table,
    /// The version of the last event that was applied; 0 before the first list.
    listed: u64,
    /// The version for the next list, if the last answer was good: any server that has reached it
    /// may answer.
    position: Option<String>,
    checks: Checks,
    doubt: Doubt,
    /// The last set that was reported; none before the first list.
    told: Option<BTreeMap<Address, Endpoint>>,
}

/// Why a watch has ended.
enum Ended {
    /// The server has ended it, as it does after some time, or it was silent for too long.
    Again { brought_news: bool },
    /// An endpoint cannot be reached, so it is checked whether the server answers.
    Check,
    /// The events that follow are lost, so everything has to be listed.
    List,
}

impl KubernetesSource {
    pub(super) fn new(server: ApiServer, service: Arc<str>) -> Self {
        let reading =
            Reading { port: PortChoice::Only, family: Family::default(), zone: None, node: None };
        Self {
            server,
            service,
            namespace: None,
            reading,
            wait: Duration::from_secs(300),
            quiet: Duration::from_secs(90),
            hold: Duration::from_secs(5),
            kube: None,
            is_old: false,
            table: Table::default(),
            listed: 0,
            position: None,
            checks: Checks::default(),
            doubt: Doubt::default(),
            told: None,
        }
    }

    async fn client(&mut self) -> Result<Client, BoxError> {
        let kube = match &self.kube {
            Some(kube) => kube.clone(),
            None => self.kube.insert(self.server.client().await?).clone(),
        };
        let namespace = self.namespace.as_deref().unwrap_or(kube.default_namespace()).to_owned();
        Ok(Client {
            kube,
            timeout: self.server.answers_within(),
            label: format!("kubernetes.io/service-name={}", self.service),
            namespace,
            is_old: self.is_old,
        })
    }

    /// Follows the server until it fails.
    async fn follow(&mut self, session: &mut Session) -> Result<(), BoxError> {
        let mut client = self.client().await?;
        let mut pace = Pace::new(clock::now());
        loop {
            let mut version = self.list(session, &mut client).await?;
            loop {
                tokio::time::sleep(pace.delay(clock::now())).await;
                let began = clock::now();
                match self.watch(session, &client, &mut version).await? {
                    Ended::Again { brought_news } => {
                        let has_lasted = self.wait.min(self.quiet) / 2 <= clock::now() - began;
                        pace.answered(brought_news || has_lasted);
                    }
                    Ended::Check => {}
                    Ended::List => {
                        pace.answered(false);
                        break;
                    }
                }
            }
        }
    }

    /// Reads all slices, and reports the differences from the last set.
    async fn list(
        &mut self,
        session: &mut Session,
        client: &mut Client,
    ) -> Result<String, BoxError> {
        // Only once: a server that lost its data would never reach that version.
        let position = self.position.take();
        let (slices, version) = match client.list(position.as_deref()).await {
            // The group version does not exist: before 1.21 there was another.
            Err(error) if is_missing(&error) && self.told.is_none() => {
                client.is_old = !client.is_old;
                let listed = client.list(None).await.map_err(|_| error)?;
                self.is_old = client.is_old;
                listed
            }
            listed => listed?,
        };
        let mut table = Table::default();
        let none = BTreeMap::new();
        for slice in slices {
            table.put(slice, &self.reading, self.told.as_ref().unwrap_or(&none));
        }
        // A server that lost its data starts counting again, or has other slices under the same
        // names.
        let number = digits(&version).unwrap_or_default();
        let is_rebuilt = number < self.listed || table.is_unlike(&self.table);
        (self.table, self.listed) = (table, number);
        self.position = (0 < number).then(|| version.clone());
        self.tell(session, is_rebuilt);
        Ok(version)
    }

    async fn watch(
        &mut self,
        session: &mut Session,
        client: &Client,
        version: &mut String,
    ) -> Result<Ended, BoxError> {
        // Spread, so that watches do not all end together after a server has restarted.
        let spread = session.rng().below_u64(self.wait.as_secs() / 4 + 1);
        let time = self.wait.saturating_sub(Duration::from_secs(spread));
        let mut events = match client.watch(version, time).await {
            Err(error) if is_expired(&error) => return Ok(Ended::List),
            events => events?,
        };
        let mut brought_news = false;
        let ended = loop {
            let news = tokio::select! {
                news = self.heard(&mut events) => news,
                () = until(self.doubt.ends_at(self.hold)) => {
                    self.tell(session, false);
                    continue;
                }
                () = check_wanted(self.checks.next(), session) => break Ended::Check,
            };
            match news {
                // A server that lost its data starts counting again, and its events fit nothing
                // that is known.
                Ok(Some(_)) if events.number() < self.listed => {
                    self.position = None;
                    break Ended::List;
                }
                Ok(Some(news)) => {
                    self.listed = events.number();
                    self.position = Some(events.version.clone());
                    brought_news |= self.apply(session, news);
                }
                Ok(None) => break Ended::Again { brought_news },
                Err(error) if is_expired(&error) => break Ended::List,
                Err(error) => return Err(error),
            }
        };
        if matches!(ended, Ended::Check) {
            self.checks.make(clock::now(), session.rng());
        }
        *version = events.version;
        Ok(ended)
    }

    /// The events of the watch; none if it was silent for too long.
    async fn heard(&self, events: &mut Events) -> Result<Option<Vec<Event>>, BoxError> {
        match tokio::time::timeout(self.quiet, events.next()).await {
            Ok(news) => news,
            // A server reports each minute how far it has come. One that does not may be gone, or
            // old.
            Err(_) => Ok(None),
        }
    }

    /// Applies events that came together; true if there was any besides versions.
    fn apply(&mut self, session: &mut Session, events: Vec<Event>) -> bool {
        let mut has_changed = false;
        let none = BTreeMap::new();
        for event in events {
            match event {
                Event::Put(slice) => {
                    let told = self.told.as_ref().unwrap_or(&none);
                    self.table.put(*slice, &self.reading, told);
                }
                Event::Deleted(name) => self.table.delete(&name),
                Event::Version => continue,
            }
            has_changed = true;
        }
        if has_changed {
            self.tell(session, false);
        }
        has_changed
    }

    /// Reports the content of the table, as far as it is believed.
    fn tell(&mut self, session: &mut Session, is_rebuilt: bool) {
        let misfit = self.table.misfit();
        // Endpoints that were known stay as long as they exist. If none was known, an empty set
        // must not be reported: the service may have endpoints.
        let missing = if misfit.is_none() || self.told.is_some() {
            self.believe(session, is_rebuilt)
        } else {
            None
        };
        // Good news only when nothing is wrong any more, not with each event until then.
        if misfit.is_none() && missing.is_none() {
            session.confirm();
        }
        if let Some(missing) = missing {
            session.fail(NotConfirmed { missing });
        }
        if let Some(there) = misfit {
            let (service, wanted) = (self.service.clone(), self.reading.port.to_string());
            session.fail(NoSuchPort { service, wanted, there });
        }
    }

    /// Reports the endpoints of the table, as far as they are believed; returns how many missing
    /// ones are kept.
    fn believe(&mut self, session: &mut Session, is_rebuilt: bool) -> Option<usize> {
        let endpoints = self.table.endpoints(&self.reading);
        let is_doubted = self.doubt.ends_at(self.hold).is_some();
        let is_emptied = endpoints.is_empty() && self.told.as_ref().is_some_and(|t| !t.is_empty());
        let was_away = AWAY < session.lost_for();
        if !is_doubted && !is_rebuilt && !is_emptied && !was_away {
            self.announce(session, endpoints);
            return None;
        }
        if !is_doubted {
            let told = self.told.iter().flat_map(|told| told.values().cloned());
            self.doubt.believed(told.collect());
        }
        if was_away {
            self.doubt.was_away(clock::now());
        }
        let verdict = self.doubt.take(endpoints, is_rebuilt, clock::now(), self.hold);
        self.announce(session, verdict.endpoints);
        verdict.kept.map(|(missing, _)| missing)
    }

    /// Reports the differences, or the whole set if there are many.
    fn announce(&mut self, session: &mut Session, endpoints: Vec<Endpoint>) {
        let mut old = self.told.take().unwrap_or_default();
        let is_first = session.known() == 0;
        let mut changed = vec![];
        let mut new = BTreeMap::new();
        for endpoint in endpoints {
            if old.remove(&endpoint.address).as_ref() != Some(&endpoint) {
                changed.push(endpoint.clone());
            }
            new.insert(endpoint.address.clone(), endpoint);
        }
        if is_first || CHANGES_MAX < changed.len() + old.len() {
            session.amend(|journal| journal.replace(new.values().cloned().collect()));
        } else {
            // Endpoints that join come before those that leave.
            for endpoint in changed {
                session.amend(|journal| journal.insert(endpoint));
            }
            for address in old.keys() {
                session.amend(|journal| journal.remove(address));
            }
        }
        self.told = Some(new);
    }
}

/// Whether the server does not have the resource that was asked for.
fn is_missing(error: &BoxError) -> bool {
    refused(error).is_some_and(|refused| refused.status == 404)
}

/// Waits until fresh news is asked for, but not before `not_before`.
async fn check_wanted(not_before: Option<Instant>, session: &mut Session) {
    if let Some(instant) = not_before {
        tokio::time::sleep_until(instant).await;
    }
    session.refresh_wanted().await;
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

impl Source for KubernetesSource {
    fn origin(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("kubernetes service {namespace}/{}", self.service),
            None => format!("kubernetes service {}", self.service),
        }
    }

    async fn session(&mut self, session: &mut Session) -> Result<(), BoxError> {
        let Err(error) = self.follow(session).await else { return Ok(()) };
        let (status, retry_after) =
            refused(&error).map_or((0, None), |refused| (refused.status, refused.retry_after));
        if status == 401 {
            // The token is no longer known, so credentials are read again.
            self.kube = None;
        }
        match retry_after {
            Some(delay) => {
                session.fail(error);
                // Clients that were sent away together must not come back together.
                let delay = delay.min(RETRY_AFTER_MAX).mul_f64(1.0 + session.rng().unit() / 2.0);
                tokio::time::sleep(delay).await;
                Ok(())
            }
            None => Err(error),
        }
    }
}

impl std::fmt::Debug for KubernetesSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesSource")
            .field("server", &self.server)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}
