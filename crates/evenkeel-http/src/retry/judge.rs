//! Judges attempts by the rules of HTTP and gRPC.

use std::error::Error;

use evenkeel_core::{
    BoxError,
    error::{SharedError, cause},
    retry::{Reach, Rules, Verdict, judge_error},
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;

use super::{
    call::HttpCall,
    peek::{Peek, PeekedBody},
    rules::{HttpRetry, Seen},
};
use crate::{
    classify::{grpc_status, is_grpc},
    delay,
    error::{ConnectError, RequestError, is_left_undone},
    grpc_status::{UNAVAILABLE, grpc_code},
};

const RESOURCE_EXHAUSTED: u32 = 8;

impl<B: Body, R: Body + Unpin> Rules<Request<B>, Response<R>> for HttpRetry {
    type Response = Response<PeekedBody<R>>;
    type Peek = Peek<R>;

    fn peek(&self, response: Response<R>) -> Peek<R> {
        Peek::new(response, self.max_peek)
    }

    fn judge(
        &self,
        call: &mut HttpCall<B>,
        result: &mut Result<Self::Response, BoxError>,
    ) -> Verdict {
        let result = &*result;
        let seen = match result {
            Ok(response) => Seen::Response {
                status: response.status(),
                headers: response.headers(),
                trailers: response.body().trailers(),
            },
            Err(error) => Seen::Error(&**error),
        };
        let said = self.ask(seen);
        let verdict = said.unwrap_or_else(|| self.judge_by_rules(seen));
        if verdict == Verdict::Success {
            return verdict;
        }
        // A layer of this process made the response from an error, which tells more.
        let made_of = match result {
            Ok(response) if said.is_none() => response.extensions().get::<SharedError>(),
            _ => None,
        };
        let (seen, verdict) = match made_of.map(SharedError::inner).map(Seen::Error) {
            Some(error) => (error, self.judge_seen(error)),
            None => (seen, verdict),
        };
        call.is_unavailable = match seen {
            Seen::Response { .. } => true,
            Seen::Error(error) => grpc_code(error) == Some(UNAVAILABLE),
        };
        verdict
    }
}

impl HttpRetry {
    fn judge_seen(&self, seen: Seen<'_>) -> Verdict {
        self.ask(seen).unwrap_or_else(|| self.judge_by_rules(seen))
    }

    /// The verdict of the user's predicate.
    fn ask(&self, seen: Seen<'_>) -> Option<Verdict> {
        self.predicate.as_ref().and_then(|predicate| predicate(seen))
    }

    fn judge_by_rules(&self, seen: Seen<'_>) -> Verdict {
        match seen {
            Seen::Error(error) => judge_http_error(error),
            Seen::Response { status: StatusCode::OK, headers, trailers } if is_grpc(headers) => {
                self.judge_grpc(trailers.unwrap_or(headers))
            }
            Seen::Response { status, headers, .. } => self.judge_status(status, headers),
        }
    }

    fn judge_status(&self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        let after = delay::asked_for(headers);
        if status == StatusCode::TOO_MANY_REQUESTS && after.is_some() {
            return Verdict::Again { reach: Reach::Unprocessed, after };
        }
        if self.statuses.contains(&status) {
            return Verdict::Again { reach: Reach::Processed, after };
        }
        if status.is_server_error() { Verdict::Final } else { Verdict::Success }
    }

    fn judge_grpc(&self, trailers: &HeaderMap) -> Verdict {
        let code = match grpc_status(trailers) {
            // No status yet: a message comes first.
            None | Some(0) => return Verdict::Success,
            Some(code) => code,
        };
        let after = match delay::pushback(trailers) {
            Some(None) => return Verdict::Forbidden,
            pushback => pushback.flatten(),
        };
        let is_listed = code < 32 && self.grpc_codes & 1 << code != 0;
        if after.is_some() && (is_listed || code == RESOURCE_EXHAUSTED) {
            return Verdict::Again { reach: Reach::Unprocessed, after };
        }
        if is_listed { Verdict::Again { reach: Reach::Processed, after } } else { Verdict::Final }
    }
}

fn judge_http_error(error: &(dyn Error + 'static)) -> Verdict {
    let unprocessed = Verdict::Again { reach: Reach::Unprocessed, after: None };
    let is_shed = cause::<tower::load_shed::error::Overloaded>(error).is_some();
    if is_shed || cause::<ConnectError>(error).is_some() {
        return unprocessed;
    }
    if cause::<RequestError>(error).is_some_and(RequestError::is_callers_fault) {
        return Verdict::Final;
    }
    if cause::<h2::Error>(error).is_some_and(is_left_undone) {
        unprocessed
    } else {
        judge_error(error)
    }
}
