//! What stands for the rules of a layer that was not given any.

use std::convert::Infallible;

use evenkeel_core::{connect::Connect, retry::Ruled};

use crate::balance::Balance;

/// The rules of a layer that was not given any: it makes no service.
///
/// Only the protocol knows what may be sent again. So there is no default: over HTTP, rules that
/// know
/// nothing retry hardly anything.
#[derive(Clone, Copy, Debug, Default)]
#[rustfmt::skip] // The compiler quotes the line below where the bound is not met.
pub struct NoRules(()); // To mend it: `.rules(HttpRetry::new())` over HTTP and gRPC, else `.rules(AnyRules::new())`.

/// Implemented by no part of a stack.
///
/// While the compiler does not know all of a stack yet, these impls might hold. So it goes on, and
/// fails later with the message of `Ruled`, not with a method whose bounds are not met. There are
/// two impls, since it would infer a single one.
trait Absent {}

impl Absent for Infallible {}

impl Absent for NoRules {}

#[diagnostic::do_not_recommend]
impl<S: Absent> Ruled<S> for NoRules {}

#[diagnostic::do_not_recommend]
impl<C: Connect + Absent> Ruled<Balance<C>> for NoRules {}
