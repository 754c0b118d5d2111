//! The faults: what happens, for how long, and how it is repaired.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use crate::{
    BoxError,
    contestants::Announce,
    endpoint::Mode,
    process::Endpoint,
    scene::{ENDPOINTS, Lane, Protocol},
};

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    GracefulStop,
    Crash,
    SilentNew,
    SilentHttp1,
    SilentHttp2,
    Fails,
    Slow,
    Hangs,
    Flaps,
    AllFail,
    RollingRestart,
}

/// How long a flapping endpoint is up, and down.
const FLAP: Duration = Duration::from_secs(1);

/// How often it flaps.
const FLAPS: u32 = 2;

/// How long an endpoint is down in a rolling restart, and how long the next one then waits.
const RESTART: Duration = Duration::from_millis(200);

impl Fault {
    pub(crate) const ALL: [Self; 11] = [
        Self::GracefulStop,
        Self::Crash,
        Self::SilentNew,
        Self::SilentHttp1,
        Self::SilentHttp2,
        Self::Fails,
        Self::Slow,
        Self::Hangs,
        Self::Flaps,
        Self::AllFail,
        Self::RollingRestart,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GracefulStop => "F1",
            Self::Crash => "F2",
            Self::SilentNew => "F3new",
            Self::SilentHttp1 => "F3h1",
            Self::SilentHttp2 => "F3h2",
            Self::Fails => "F4a",
            Self::Slow => "F4b",
            Self::Hangs => "F4c",
            Self::Flaps => "F5",
            Self::AllFail => "F6",
            Self::RollingRestart => "F7",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::GracefulStop => "graceful stop of one: deregistered and SIGTERM",
            Self::Crash => "crash of one: SIGKILL, then connection refused",
            Self::SilentNew => "silent loss of one, new connections: SYNs are dropped",
            Self::SilentHttp1 => "silent loss of one, pooled HTTP/1.1: SIGSTOP",
            Self::SilentHttp2 => "silent loss of one, pooled HTTP/2: SIGSTOP",
            Self::Fails => "one answers 500 at once",
            Self::Slow => "one is 100 times slower: 200 ms instead of 2",
            Self::Hangs => "one accepts and never answers",
            Self::Flaps => "one crashes and comes back every second",
            Self::AllFail => "all answer 500",
            Self::RollingRestart => "rolling restart of all: deregistered, SIGTERM, 200 ms away",
        }
    }

    /// How long the fault lasts, and how long the trial goes on after it.
    pub(crate) fn lasts(self) -> (Duration, Duration) {
        let (fault, after) = match self {
            Self::GracefulStop => (1_500, 1_500),
            Self::Crash | Self::Fails | Self::Slow => (2_000, 2_000),
            Self::SilentNew | Self::SilentHttp1 | Self::SilentHttp2 | Self::Hangs => (3_000, 2_000),
            Self::Flaps => (3_000, 2_000),
            Self::AllFail => (5_000, 2_500),
            Self::RollingRestart => (3_000, 500),
        };
        (Duration::from_millis(fault), Duration::from_millis(after))
    }

    pub(crate) fn protocol(self) -> Protocol {
        if self == Self::SilentHttp2 { Protocol::Http2 } else { Protocol::Http1 }
    }

    /// Whether endpoints close each connection after one answer.
    pub(crate) fn closes_connections(self) -> bool {
        self == Self::SilentNew
    }

    /// Whether one endpoint is bad the whole time, so that the time of the last attempt there is
    /// meaningful.
    pub(crate) fn has_one_target(self) -> bool {
        !matches!(self, Self::Flaps | Self::AllFail | Self::RollingRestart)
    }

    /// Whether one fixed endpoint is bad or comes and goes.
    pub(crate) fn has_survivors(self) -> bool {
        !matches!(self, Self::AllFail | Self::RollingRestart)
    }

    /// Whether all endpoints must get their share again, instead of one.
    pub(crate) fn strikes_all(self) -> bool {
        self == Self::AllFail
    }
}

/// The parts of a trial that a fault acts on.
pub(crate) struct Stage<'a> {
    pub(crate) endpoints: &'a mut Vec<Endpoint>,
    pub(crate) announce: &'a mut (dyn Announce + Send),
    pub(crate) lane: Lane,
    pub(crate) target: usize,
}

impl Stage<'_> {
    fn target(&mut self) -> &mut Endpoint {
        &mut self.endpoints[self.target]
    }

    /// Starts the fault, and returns when it is over except for what [`heal`](Self::heal) does.
    pub(crate) async fn strike(&mut self, fault: Fault) -> Result<(), BoxError> {
        let (lasts, _) = fault.lasts();
        let lane = self.lane;
        match fault {
            Fault::GracefulStop => self.stop_gracefully(self.target)?,
            Fault::Crash => self.target().kill().await?,
            Fault::SilentHttp1 | Fault::SilentHttp2 => self.target().signal(Signal::STOP)?,
            Fault::SilentNew => {
                self.target().signal(Signal::STOP)?;
                self.target().fill_queue(lane).await;
            }
            Fault::Fails => self.target().set_mode(Mode::Fail).await?,
            Fault::Slow => self.target().set_mode(Mode::Slow).await?,
            Fault::Hangs => self.target().set_mode(Mode::Hang).await?,
            Fault::Flaps => return self.flap().await,
            Fault::AllFail => {
                for endpoint in &mut *self.endpoints {
                    endpoint.set_mode(Mode::Fail).await?;
                }
            }
            Fault::RollingRestart => return self.restart_all().await,
        }
        sleep(lasts).await;
        Ok(())
    }

    /// Ends the fault, and returns when the endpoint answers again.
    pub(crate) async fn heal(&mut self, fault: Fault) -> Result<(), BoxError> {
        match fault {
            Fault::GracefulStop => self.come_back(self.target).await,
            Fault::Crash | Fault::Flaps => self.target().restart().await,
            Fault::SilentHttp1 | Fault::SilentHttp2 => self.target().signal(Signal::CONT),
            Fault::SilentNew => {
                self.target().drop_fillers();
                self.target().signal(Signal::CONT)
            }
            Fault::Fails | Fault::Slow | Fault::Hangs => self.target().set_mode(Mode::Ok).await,
            Fault::AllFail => {
                for endpoint in &mut *self.endpoints {
                    endpoint.set_mode(Mode::Ok).await?;
                }
                Ok(())
            }
            Fault::RollingRestart => Ok(()),
        }
    }

    /// Informs the contestant if it can be informed, and then stops the endpoint.
    fn stop_gracefully(&mut self, index: usize) -> Result<(), BoxError> {
        self.announce.remove(index)?;
        self.endpoints[index].signal(Signal::TERM)
    }

    async fn come_back(&mut self, index: usize) -> Result<(), BoxError> {
        self.endpoints[index].ended().await?;
        self.endpoints[index].restart().await?;
        self.announce.insert(index)
    }

    async fn flap(&mut self) -> Result<(), BoxError> {
        for flap in 1..=FLAPS {
            self.target().kill().await?;
            sleep(FLAP).await;
            if flap < FLAPS {
                self.target().restart().await?;
                sleep(FLAP).await;
            }
        }
        Ok(())
    }

    async fn restart_all(&mut self) -> Result<(), BoxError> {
        for index in 0..ENDPOINTS {
            self.stop_gracefully(index)?;
            self.endpoints[index].ended().await?;
            sleep(RESTART).await;
            self.come_back(index).await?;
            sleep(RESTART).await;
        }
        Ok(())
    }
}
