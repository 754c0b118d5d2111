//! grpc-go with its DNS resolver and round robin, everything else by default.

use std::time::Duration;

use evenkeel_rig::process::with_parent;
use futures_util::{FutureExt, future::BoxFuture};
use serde::Deserialize;

use super::{Caller, Calling, Change, Seen};
use crate::{
    BoxError,
    event::Event,
    lines::Lines,
    moment::Moment,
    options::Options,
    scene::Scene,
    servers::{find, missing},
};

/// The program. Its source is in `peers`.
const PROGRAM: &str = "grpc-go-client";

/// How long the calls in flight may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct GrpcGo;

impl Caller for GrpcGo {
    fn name(&self) -> &'static str {
        "grpc-go"
    }

    fn about(&self) -> &'static str {
        "grpc-go 1.79, dns:/// and round_robin, all else by its defaults"
    }

    fn missing(&self) -> Option<String> {
        missing("grpc-go", PROGRAM)
    }

    fn reads(&self, registry: &str, event: Event) -> bool {
        registry == "dns" && matches!(event, Event::Join | Event::Leave | Event::Crash)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(8)
    }

    fn start<'a>(
        &'a self,
        scene: &'a Scene,
        options: &'a Options,
        _: u64,
    ) -> BoxFuture<'a, Result<Box<dyn Calling>, BoxError>> {
        async move {
            let program = find("grpc-go", PROGRAM).ok_or("grpc-go is missing")?;
            let mut command = with_parent(&program)?;
            command.arg(format!("--target={}", scene.target));
            command.arg(format!("--rate={}", options.rate));
            Ok(Box::new(Client { process: Lines::spawn(command)? }) as Box<dyn Calling>)
        }
        .boxed()
    }
}

/// The report of the program at its end.
#[derive(Clone, Debug, Deserialize)]
struct Told {
    calls: usize,
    errors: usize,
    first_error: String,
    /// As time of day.
    last_error_nanos: u128,
}

struct Client {
    process: Lines<Told>,
}

impl Calling for Client {
    fn until<'a>(&'a mut self, _: Change, _: Duration) -> BoxFuture<'a, Option<Moment>> {
        std::future::ready(None).boxed()
    }

    fn process(&self) -> Option<u32> {
        self.process.id()
    }

    fn end(mut self: Box<Self>) -> BoxFuture<'static, Result<Seen, BoxError>> {
        async move {
            self.process.close();
            let told = self.process.until(ENDS_WITHIN, |all| all.last().cloned()).await;
            let told = told.ok_or("grpc-go does not end")?;
            let failed = 0 < told.errors;
            Ok(Seen {
                calls: told.calls,
                errors: told.errors,
                first_error: failed.then_some(told.first_error),
                last_error: failed.then(|| Moment::of_day(told.last_error_nanos)),
                ..Seen::default()
            })
        }
        .boxed()
    }
}
