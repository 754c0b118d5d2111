//! A contender in a measurement: it carries out requests one after another, in any number of tasks.

use std::{
    fmt::Debug,
    future::Future,
    hint::black_box,
    pin::Pin,
    sync::{Arc, Mutex},
};

use tower::{Service, ServiceExt};

/// The work of one task.
pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Carries out requests.
pub(crate) trait Contender {
    /// Carries out this many requests in one task. Each begins when the one before has ended.
    fn work(&self, requests: u64) -> Work;
}

/// A contender by name, made when its turn comes.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) make: Box<dyn Fn(usize) -> Box<dyn Contender>>,
    max_endpoints: usize,
    is_shared: bool,
}

impl Entry {
    /// `make` makes the contender for a number of endpoints. It is called inside a runtime.
    pub(crate) fn new<C: Contender + 'static>(
        name: impl Into<String>,
        make: impl Fn(usize) -> C + 'static,
    ) -> Self {
        let make = Box::new(move |endpoints| Box::new(make(endpoints)) as Box<dyn Contender>);
        Self { name: name.into(), make, max_endpoints: usize::MAX, is_shared: true }
    }

    /// Sets the most endpoints that it supports, or handles in a reasonable time.
    #[cfg(feature = "pingora")]
    pub(crate) fn max_endpoints(mut self, max_endpoints: usize) -> Self {
        self.max_endpoints = max_endpoints;
        self
    }

    /// Marks that every task has its own copy of all endpoints.
    pub(crate) fn unshared(mut self) -> Self {
        self.is_shared = false;
        self
    }

    /// Whether it can be measured with this many endpoints and tasks.
    pub(crate) fn fits(&self, endpoints: usize, tasks: u64) -> bool {
        const MAX_UNSHARED: usize = 100_000;
        let services = endpoints * tasks as usize;
        endpoints <= self.max_endpoints && (self.is_shared || services <= MAX_UNSHARED)
    }
}

/// A service whose clones share their endpoints. Every task calls its own clone.
pub(crate) struct Shared<S>(pub(crate) S);

impl<S> Contender for Shared<S>
where
    S: Service<u64, Error: Debug, Future: Send> + Clone + Send + 'static,
{
    fn work(&self, requests: u64) -> Work {
        let service = self.0.clone();
        Box::pin(async move {
            call(service, requests).await;
        })
    }
}

/// A service that cannot be shared. Every task has its own, with all its endpoints.
pub(crate) struct Unshared<S> {
    make: Box<dyn Fn() -> S>,
    idle: Arc<Mutex<Vec<S>>>,
}

impl<S> Unshared<S> {
    pub(crate) fn new(make: impl Fn() -> S + 'static) -> Self {
        Self { make: Box::new(make), idle: Arc::default() }
    }
}

impl<S> Contender for Unshared<S>
where
    S: Service<u64, Error: Debug, Future: Send> + Send + 'static,
{
    fn work(&self, requests: u64) -> Work {
        let before = self.idle.lock().expect("no panic under the lock").pop();
        let service = before.unwrap_or_else(&self.make);
        let idle = self.idle.clone();
        Box::pin(async move {
            let service = call(service, requests).await;
            idle.lock().expect("no panic under the lock").push(service);
        })
    }
}

async fn call<S>(mut service: S, requests: u64) -> S
where
    S: Service<u64, Error: Debug>,
{
    for request in 0..requests {
        let ready = service.ready().await.expect("an endpoint is open");
        black_box(ready.call(request).await.expect("every endpoint answers"));
    }
    service
}
