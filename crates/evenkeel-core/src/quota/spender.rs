//! Finds the quota that a request spends.

/// Finds the quota that a request spends, by a key.
///
/// A function of the request is a `Spender` if its result can be read as bytes:
///
/// ```
/// use evenkeel::core::quota::Spender;
///
/// struct Request { tenant: String }
///
/// let spender = |request: &Request| Some(request.tenant.clone());
/// let request = Request { tenant: "acme".to_owned() };
/// assert!(spender.with_key(&request, |key| key == Some(b"acme")));
/// ```
///
/// The key is borrowed, so that your own type can read it out of the request without a copy.
pub trait Spender<Req> {
    /// Calls `spend` with the key of the sender of `request`, or with `None` if it is not limited.
    fn with_key<T>(&self, request: &Req, spend: impl FnOnce(Option<&[u8]>) -> T) -> T;
}

/// All requests spend the same quota.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everyone;

impl<Req> Spender<Req> for Everyone {
    #[inline]
    fn with_key<T>(&self, _: &Req, spend: impl FnOnce(Option<&[u8]>) -> T) -> T {
        spend(Some(b""))
    }
}

impl<F, Req, K> Spender<Req> for F
where
    F: Fn(&Req) -> Option<K>,
    K: AsRef<[u8]>,
{
    #[inline]
    fn with_key<T>(&self, request: &Req, spend: impl FnOnce(Option<&[u8]>) -> T) -> T {
        let key = self(request);
        spend(key.as_ref().map(AsRef::as_ref))
    }
}
