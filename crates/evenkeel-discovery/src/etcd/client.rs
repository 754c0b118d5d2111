//! The gRPC client of one member of etcd: calls with a time limit, and a watch that proves it is
//! alive.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::BoxError;
use futures_core::Stream;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::{sync::mpsc, time::Instant};
use tonic::{Request, Status, Streaming, body::Body, metadata::AsciiMetadataValue};

use super::{
    error::{MemberRefused, MemberTimeout, WatchEnded},
    proto::{
        AuthenticateRequest, KeyValue, LeaseGrantRequest, LeaseKeepAliveRequest,
        LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
        WatchProgressRequest, WatchRequest, WatchResponse, auth_client::AuthClient,
        kv_client::KvClient, lease_client::LeaseClient, request_op, watch_client::WatchClient,
        watch_request,
    },
};
use crate::{
    client::{Dial, Server},
    clock,
};

/// The number of keys in one page of a list.
const PAGE: i64 = 1_000;

/// The most bytes of one message. A member splits responses of a watch above 2 MiB; a page of a
/// list may be larger.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The interval of pings to a member. It must not be below the 5 s that members allow.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How often a member is asked for a sign of life within the time that it has to give one.
const QUESTIONS: u32 = 4;

/// A client of one member. Clones share its connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: legacy::Client<Dial, Body>,
    server: Server,
    origin: http::Uri,
    timeout: Duration,
    token: Option<AsciiMetadataValue>,
}

/// The moment of a list; a watch reports what changes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) cluster: u64,
    pub(crate) revision: i64,
}

impl Client {
    pub(crate) fn new(server: Server, dial: Dial, timeout: Duration) -> Result<Self, BoxError> {
        let http = legacy::Client::builder(TokioExecutor::new())
            .http2_only(true)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(timeout)
            .http2_adaptive_window(true)
            .build(dial);
        let origin = server.uri()?;
        Ok(Self { http, server, origin, timeout, token: None })
    }

    /// The same client with a token for this user. Without a token if the cluster has no
    /// authentication yet, as with etcd's own client.
    pub(crate) async fn authenticated(
        mut self,
        name: &str,
        password: &str,
    ) -> Result<Self, BoxError> {
        let mut auth = AuthClient::with_origin(self.http.clone(), self.origin.clone());
        let request = AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
        match self.bounded(auth.authenticate(request)).await {
            Ok(answer) => self.token = Some(answer.into_inner().token.parse()?),
            Err(error) if is_not_enabled(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(self)
    }

    pub(crate) fn name(&self) -> String {
        format!("etcd {}", self.server)
    }

    /// All keys that begin with `prefix`, as they were at one moment, and that moment.
    pub(crate) async fn list(&self, prefix: &str) -> Result<(Vec<KeyValue>, Position), BoxError> {
        let range_end = end_of(prefix.as_bytes());
        let (mut key, mut revision) = (prefix.as_bytes().to_vec(), 0);
        let mut all: Vec<KeyValue> = vec![];
        loop {
            let page = RangeRequest { key, range_end: range_end.clone(), limit: PAGE, revision };
            let answer = self.bounded(self.kv().range(self.request(page))).await?.into_inner();
            let header = answer.header.ok_or("an answer without a header")?;
            // The first page decides the moment; the others are asked for the same.
            if revision == 0 {
                revision = header.revision;
            }
            all.extend(answer.kvs);
            match all.last().filter(|_| answer.more) {
                Some(last) => key = [&last.key[..], &[0]].concat(),
                None => {
                    let position = Position { cluster: header.cluster_id, revision };
                    return Ok((all, position));
                }
            }
        }
    }

    /// The entry of one key, as it was at `revision`, or as it is now if `revision` is 0.
    pub(crate) async fn find(
        &self,
        key: &[u8],
        revision: i64,
    ) -> Result<Option<KeyValue>, BoxError> {
        let request = RangeRequest { key: key.into(), revision, ..RangeRequest::default() };
        let answer = self.bounded(self.kv().range(self.request(request))).await?;
        Ok(answer.into_inner().kvs.pop())
    }

    pub(crate) async fn put(&self, key: &str, value: Vec<u8>, lease: i64) -> Result<(), BoxError> {
        let put = PutRequest { key: key.into(), value, lease };
        let put = RequestOp { request: Some(request_op::Request::RequestPut(put)) };
        let request = TxnRequest { success: vec![put], ..TxnRequest::default() };
        self.bounded(self.kv().txn(self.request(request))).await.map(drop)
    }

    /// Grants a lease of about this TTL.
    pub(crate) async fn grant(&self, ttl: Duration) -> Result<i64, BoxError> {
        let seconds = ttl.as_secs() + u64::from(0 < ttl.subsec_nanos());
        let request = LeaseGrantRequest { ttl: i64::try_from(seconds)?, id: 0 };
        let answer =
            self.bounded(self.lease().lease_grant(self.request(request))).await?.into_inner();
        if answer.error.is_empty() { Ok(answer.id) } else { Err(answer.error.into()) }
    }

    /// Sends one heartbeat of a lease; false if the lease is gone.
    pub(crate) async fn keep(&self, lease: i64) -> Result<bool, BoxError> {
        let one = futures_util::stream::iter([LeaseKeepAliveRequest { id: lease }]);
        let mut client = self.lease();
        let answer = async {
            let mut answers = client.lease_keep_alive(self.request(one)).await?.into_inner();
            answers.message().await
        };
        let answer = self.bounded(answer).await?.ok_or("no answer to a heartbeat")?;
        Ok(0 < answer.ttl)
    }

    /// Ends a lease and removes the keys attached to it. It is no error if the lease is already
    /// gone.
    pub(crate) async fn revoke(&self, lease: i64) -> Result<(), BoxError> {
        let request = LeaseRevokeRequest { id: lease };
        let revoked = self.lease_status(request).await;
        match revoked {
            Err(error)
                if error
                    .downcast_ref::<MemberRefused>()
                    .is_some_and(|refused| refused.code == tonic::Code::NotFound as i32) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    async fn lease_status(&self, request: LeaseRevokeRequest) -> Result<(), BoxError> {
        self.bounded(self.lease().lease_revoke(self.request(request))).await.map(drop)
    }

    /// Watches all keys that begin with `prefix`, starting at `revision`.
    pub(crate) async fn watch(&self, prefix: &str, revision: i64) -> Result<Watching, BoxError> {
        let create = WatchCreateRequest {
            key: prefix.as_bytes().to_vec(),
            range_end: end_of(prefix.as_bytes()),
            start_revision: revision,
            progress_notify: true,
            fragment: true,
        };
        // One to create the watch and one question for progress at a time.
        let (sender, requests) = mpsc::channel(2);
        let create = watch_request::RequestUnion::CreateRequest(create);
        sender.send(WatchRequest { request_union: Some(create) }).await?;
        let mut client = WatchClient::with_origin(self.http.clone(), self.origin.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut request = self.request(Requests(requests));
        // A member that has lost its leader then ends the watch instead of falling silent.
        request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
        let responses = self.bounded(client.watch(request)).await?.into_inner();
        Ok(Watching { member: self.name(), sender, responses, owing_since: None })
    }

    fn kv(&self) -> KvClient<legacy::Client<Dial, Body>> {
        KvClient::with_origin(self.http.clone(), self.origin.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn lease(&self) -> LeaseClient<legacy::Client<Dial, Body>> {
        LeaseClient::with_origin(self.http.clone(), self.origin.clone())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, BoxError> {
        let after = self.timeout;
        match tokio::time::timeout(after, call).await {
            Ok(answer) => answer.map_err(|status| refusal(self.name(), &status)),
            Err(_) => Err(MemberTimeout { member: self.name(), after }.into()),
        }
    }
}

/// A watch on one member.
pub(crate) struct Watching {
    member: String,
    sender: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    /// Since when a sign of life from the member is due.
    owing_since: Option<Instant>,
}

impl Watching {
    /// The next response. If there is none for `quiet`, the member is asked for a sign of life, and
    /// has as long again to give it.
    pub(crate) async fn next(&mut self, quiet: Duration) -> Result<WatchResponse, BoxError> {
        loop {
            let owed_at = self.owing_since.map(|since| since + quiet);
            // A member gives none for a watch that is still catching up, so it is asked more than
            // once.
            let wait = match owed_at {
                Some(at) => (quiet / QUESTIONS).min(at.saturating_duration_since(clock::now())),
                None => quiet,
            };
            match tokio::time::timeout(wait, self.responses.message()).await {
                Ok(Ok(Some(response))) => {
                    self.owing_since = None;
                    return Ok(response);
                }
                Ok(Ok(None)) => {
                    let reason = "the stream is over".to_owned();
                    return Err(WatchEnded { member: self.member.clone(), reason }.into());
                }
                Ok(Err(status)) => return Err(refusal(self.member.clone(), &status)),
                Err(_) if owed_at.is_some_and(|at| at <= clock::now()) => {
                    return Err(MemberTimeout { member: self.member.clone(), after: quiet }.into());
                }
                Err(_) => self.ask(),
            }
        }
    }

    /// Asks for a sign of life.
    pub(crate) fn ask(&mut self) {
        let progress = watch_request::RequestUnion::ProgressRequest(WatchProgressRequest {});
        // If there is no room, an earlier question is still on its way.
        let _ = self.sender.try_send(WatchRequest { request_union: Some(progress) });
        self.owing_since.get_or_insert_with(clock::now);
    }
}

struct Requests(mpsc::Receiver<WatchRequest>);

impl Stream for Requests {
    type Item = WatchRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchRequest>> {
        self.0.poll_recv(cx)
    }
}

fn refusal(member: String, status: &Status) -> BoxError {
    let cause = std::error::Error::source(status).map(crate::error::chain);
    let message = match cause {
        Some(cause) => format!("{}: {cause}", status.message()),
        None => status.message().to_owned(),
    };
    MemberRefused { member, code: status.code() as i32, message }.into()
}

/// Whether a member refuses to authenticate because authentication is not enabled.
fn is_not_enabled(error: &BoxError) -> bool {
    error.downcast_ref::<MemberRefused>().is_some_and(|refused| {
        refused.code == tonic::Code::FailedPrecondition as i32
            && refused.message.contains("authentication is not enabled")
    })
}

/// The first key after all keys that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // There is none, so this stands for all keys from here on.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_after_its_prefix() {
        assert_eq!(end_of(b"/web/"), b"/web0");
        assert_eq!(end_of(&[7, 255, 255]), [8]);
        assert_eq!(end_of(&[255]), [0]);
        assert_eq!(end_of(b""), [0]);
    }
}
