//! When a caller gives up, and how requests say so.

use std::time::Duration;

use crate::time::Timestamp;

/// When the caller of a request gives up, by the clock of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallDeadline(pub Timestamp);

/// How requests of type `Req` carry their deadline.
pub trait CarryDeadline<Req>: Clone {
    /// The deadline that this process knows the request to have.
    fn deadline(&self, request: &Req) -> Option<CallDeadline>;

    /// The time that the request's sender gave it.
    fn given(&self, request: &Req) -> Option<Duration>;

    /// Makes the request carry the deadline, which is `remaining` away.
    fn carry(&self, request: &mut Req, deadline: CallDeadline, remaining: Duration);
}

/// Requests carry no deadline.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotCarried;

impl<Req> CarryDeadline<Req> for NotCarried {
    fn deadline(&self, _: &Req) -> Option<CallDeadline> {
        None
    }

    fn given(&self, _: &Req) -> Option<Duration> {
        None
    }

    fn carry(&self, _: &mut Req, _: CallDeadline, _: Duration) {}
}
