//! A list, then a watch of what changes, again and again.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{BoxError, number::digits};

use super::{
    ApiServer,
    client::{Client, Event, Events, find_refusal, is_expired},
    error::NoSuchPort,
    reading::{Family, PortChoice, Reading},
    table::Table,
};
use crate::{
    checks::Checks,
    clock,
    pace::Pace,
    watch::{Answer, Session, Source},
};

/// The longest rest that an API server can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The least and the greatest rest between two checks whether the server answers.
const CHECKS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

#[derive(Clone)]
pub(super) struct KubernetesSource {
    pub(super) server: ApiServer,
    pub(super) service: Arc<str>,
    pub(super) namespace: Option<Arc<str>>,
    pub(super) reading: Reading,
    pub(super) wait: Duration,
    pub(super) quiet: Duration,
    kube: Option<kube::Client>,
    is_old: bool,
    table: Table,
    /// The version of the last event that was applied; 0 before the first list.
    listed: u64,
    /// The version for the next list, if the last answer was good: any server that has reached it
    /// may answer.
    position: Option<String>,
    checks: Checks,
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
            kube: None,
            is_old: false,
            table: Table::default(),
            listed: 0,
            position: None,
            checks: Checks::new(CHECKS.0, CHECKS.1),
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
                        pace.record_answer(brought_news || has_lasted);
                    }
                    Ended::Check => {}
                    Ended::List => {
                        pace.record_answer(false);
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
            Err(error) if is_missing(&error) && session.journal().last().is_none() => {
                client.is_old = !client.is_old;
                let listed = client.list(None).await.map_err(|_| error)?;
                self.is_old = client.is_old;
                listed
            }
            listed => listed?,
        };
        let mut table = Table::default();
        for slice in slices {
            table.put(slice, &self.reading, &session.journal());
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
                news = heard(self.quiet, &mut events) => news,
                () = session.wait_out_doubt() => {
                    self.tell(session, false);
                    continue;
                }
                () = self.checks.wanted(session) => break Ended::Check,
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
        *version = events.version;
        Ok(ended)
    }

    /// Applies events that came together; true if there was any besides versions.
    fn apply(&mut self, session: &mut Session, events: Vec<Event>) -> bool {
        let mut has_changed = false;
        for event in events {
            match event {
                Event::Put(slice) => self.table.put(*slice, &self.reading, &session.journal()),
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

    /// Reports the content of the table.
    fn tell(&self, session: &mut Session, is_rebuilt: bool) {
        let misfit = self.table.misfit().map(|there| NoSuchPort {
            service: self.service.clone(),
            wanted: self.reading.port.to_string(),
            there,
        });
        match misfit {
            // An empty set must not be reported if none was known: the service may have endpoints.
            // Those that were known stay as long as they exist.
            Some(misfit) if session.journal().last().is_none() => session.fail(misfit),
            misfit => {
                let whole = Answer::new(self.table.endpoints(&self.reading));
                session.answer(whole.rebuilt(is_rebuilt).trouble(misfit.map(Into::into)));
            }
        }
    }
}

/// Whether the server does not have the resource that was asked for.
fn is_missing(error: &BoxError) -> bool {
    find_refusal(error).is_some_and(|refused| refused.status == 404)
}

/// The events of a watch; none if it was silent for too long.
async fn heard(quiet: Duration, events: &mut Events) -> Result<Option<Vec<Event>>, BoxError> {
    match tokio::time::timeout(quiet, events.next()).await {
        Ok(news) => news,
        // A server reports each minute how far it has come. One that does not may be gone, or old.
        Err(_) => Ok(None),
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
            find_refusal(&error).map_or((0, None), |refused| (refused.status, refused.retry_after));
        if status == 401 {
            // The token is no longer known, so credentials are read again.
            self.kube = None;
        }
        match retry_after {
            Some(delay) => {
                session.fail(error);
                // Clients that were sent away together must not come back together.
                let delay = delay.min(MAX_RETRY_AFTER).mul_f64(1.0 + session.rng().unit() / 2.0);
                tokio::time::sleep(delay).await;
                Ok(())
            }
            None => Err(error),
        }
    }
}
