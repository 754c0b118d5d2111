//! What a balancer promises, behaviour by behaviour, on a paused clock.

mod discovery;
mod in_flight;
mod probe;
mod removal;
