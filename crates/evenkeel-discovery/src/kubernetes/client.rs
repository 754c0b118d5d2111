//! Lists and watches of the slices of one service, with bounds on size and time.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use evenkeel_core::{BoxError, number::digits};
use http::{
    HeaderMap, Request, Response,
    header::{ACCEPT_ENCODING, HeaderValue, RETRY_AFTER},
};
use http_body_util::{BodyExt, Limited};
use kube::{
    client::Body,
    core::{
        Request as Asked,
        params::{ListParams, VersionMatch, WatchParams},
    },
};
use serde::de::DeserializeOwned;

use super::{
    error::{ServerRefused, ServerTimeout},
    slice::{Line, Object, Page, Slice, Status},
};

/// The number of slices in one page of a list.
const PAGE: u32 = 500;
/// The most pages of a list: ten million endpoints, at 100 a slice.
const MAX_PAGES: usize = 200;
/// The most bytes of one page.
const MAX_PAGE_BYTES: usize = 64 << 20;
/// The most bytes of one line of a watch. The largest object that etcd accepts has 1.5 MiB.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Lists and watches the slices of one service.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) kube: kube::Client,
    pub(super) timeout: Duration,
    /// The label of the service's slices.
    pub(super) label: String,
    pub(super) namespace: String,
    /// Whether the server is older than 1.21.
    pub(super) is_old: bool,
}

/// An event of a watch.
#[derive(Debug)]
pub(super) enum Event {
    Put(Box<Slice>),
    Deleted(String),
    /// A new version without a change, or an object that cannot be read.
    Version,
}

impl Client {
    /// All slices, and the version after which to watch. They are as they are now. With a version,
    /// they are as they were at that one or later, which a server knows without asking etcd.
    pub(super) async fn list(
        &self,
        version: Option<&str>,
    ) -> Result<(Vec<Slice>, String), BoxError> {
        match self.pages(Some(PAGE), version).await {
            // The list took longer than the server remembers its version; a list without pages does
            // not.
            Err(error) if is_expired(&error) => self.pages(None, None).await,
            listed => listed,
        }
    }

    async fn pages(
        &self,
        limit: Option<u32>,
        version: Option<&str>,
    ) -> Result<(Vec<Slice>, String), BoxError> {
        let mut slices = vec![];
        let mut params = ListParams { limit, ..ListParams::default().labels(&self.label) };
        params.resource_version = version.map(ToOwned::to_owned);
        params.version_match = version.map(|_| VersionMatch::NotOlderThan);
        for _ in 0..MAX_PAGES {
            let request = self.asked().list(&params)?;
            let page: Page = self.bounded(self.answer(request)).await?;
            for item in page.items {
                match serde_json::from_str(item.get()) {
                    Ok(slice) => slices.push(slice),
                    Err(error) => tracing::debug!(%error, "an unreadable slice is left out"),
                }
            }
            if page.metadata.r#continue.is_empty() {
                return Ok((slices, page.metadata.resource_version));
            }
            params.continue_token = Some(page.metadata.r#continue);
            (params.resource_version, params.version_match) = (None, None);
        }
        Err(format!("a list of more than {MAX_PAGES} pages").into())
    }

    /// What changes after `version`, for at most `time`.
    pub(super) async fn watch(&self, version: &str, time: Duration) -> Result<Events, BoxError> {
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1);
        let params = WatchParams::default().labels(&self.label).timeout(seconds);
        let request = self.asked().watch(&params, version)?;
        let response = self.bounded(self.send(request)).await?;
        let body = response.into_body();
        Ok(Events { body, read: BytesMut::new(), searched: 0, version: version.to_owned() })
    }

    fn asked(&self) -> Asked {
        let group = if self.is_old { "v1beta1" } else { "v1" };
        let namespace = &self.namespace;
        let path = format!("/apis/discovery.k8s.io/{group}/namespaces/{namespace}/endpointslices");
        Asked::new(path)
    }

    async fn bounded<T>(
        &self,
        answer: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        let after = self.timeout;
        tokio::time::timeout(after, answer).await.map_err(|_| ServerTimeout { after })?
    }

    async fn answer<T: DeserializeOwned>(&self, request: Request<Vec<u8>>) -> Result<T, BoxError> {
        let body = self.send(request).await?.into_body();
        let body = Limited::new(body, MAX_PAGE_BYTES).collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }

    async fn send(&self, mut request: Request<Vec<u8>>) -> Result<Response<Body>, BoxError> {
        // Servers compress each event separately, which some clients of a program cannot read.
        let identity = HeaderValue::from_static("identity");
        request.headers_mut().insert(ACCEPT_ENCODING, identity);
        let response = self.kube.send(request.map(Body::from)).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let read = Limited::new(body, MAX_LINE_BYTES).collect().await;
        let text = read.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let mut status: Status = serde_json::from_slice(&text).unwrap_or_default();
        if status.message.is_empty() {
            status.message = String::from_utf8_lossy(&text[..text.len().min(300)]).into_owned();
        }
        if status.reason.is_empty() {
            status.reason = head.status.canonical_reason().unwrap_or_default().to_owned();
        }
        status.code = head.status.as_u16();
        Err(refusal(status, Some(&head.headers)).into())
    }
}

/// A watch under way.
pub(super) struct Events {
    body: Body,
    read: BytesMut,
    /// How many of the bytes in `read` are known to contain no end of a line.
    searched: usize,
    /// The version up to which all events have been returned.
    pub(super) version: String,
}

impl Events {
    /// The version as a number, which it is in every API server.
    pub(super) fn number(&self) -> u64 {
        digits(&self.version).unwrap_or_default()
    }

    /// All events since the last call, at least one; none when the server ends the watch as agreed.
    ///
    /// Events that arrive together are returned together: an endpoint that moves from one slice to
    /// another is in both.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Event>>, BoxError> {
        loop {
            let mut events = vec![];
            while let Some(line) = self.line() {
                if !line.trim_ascii().is_empty() {
                    events.push(self.event(&line)?);
                }
            }
            if !events.is_empty() {
                return Ok(Some(events));
            }
            if MAX_LINE_BYTES < self.read.len() {
                return Err(format!("a line of more than {MAX_LINE_BYTES} bytes").into());
            }
            match self.body.frame().await.transpose()? {
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                None if self.read.is_empty() => return Ok(None),
                None => return Err("the watch ended within a line".into()),
            }
        }
    }

    fn line(&mut self) -> Option<BytesMut> {
        let Some(end) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.read.len();
            return None;
        };
        let line = self.read.split_to(self.searched + end);
        self.read.advance(1);
        self.searched = 0;
        Some(line)
    }

    fn event(&mut self, line: &[u8]) -> Result<Event, BoxError> {
        let Line { kind, object } = serde_json::from_slice(line)?;
        if kind == "ERROR" {
            let status: Status = serde_json::from_str(object.get())?;
            return Err(refusal(status, None).into());
        }
        let Object { metadata } = serde_json::from_str(object.get())?;
        if !metadata.resource_version.is_empty() {
            self.version = metadata.resource_version;
        }
        Ok(match kind {
            "DELETED" => Event::Deleted(metadata.name),
            "ADDED" | "MODIFIED" => match serde_json::from_str(object.get()) {
                Ok(slice) => Event::Put(Box::new(slice)),
                Err(error) => {
                    let name = metadata.name;
                    tracing::debug!(name, %error, "an unreadable slice stays as it was");
                    Event::Version
                }
            },
            _ => Event::Version,
        })
    }
}

fn refusal(status: Status, headers: Option<&HeaderMap>) -> ServerRefused {
    let header = headers.and_then(|headers| digits(headers.get(RETRY_AFTER)?));
    let seconds = header.unwrap_or(status.details.retry_after_seconds);
    let mut message = status.message;
    message.truncate(message.floor_char_boundary(300));
    ServerRefused {
        status: status.code,
        reason: status.reason,
        message,
        retry_after: (0 < seconds).then(|| Duration::from_secs(seconds)),
    }
}

/// The refusal, if the error is one.
pub(super) fn find_refusal(error: &BoxError) -> Option<&ServerRefused> {
    error.downcast_ref()
}

/// Whether the version that was asked for is older than the server remembers.
pub(super) fn is_expired(error: &BoxError) -> bool {
    find_refusal(error).is_some_and(|refused| refused.status == 410)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_consists_of_digits_only() {
        for (text, seconds) in [("3", Some(3)), ("0", None), ("+3", None), ("soon", None)] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            let refused = refusal(Status::default(), Some(&headers));
            assert_eq!(refused.retry_after, seconds.map(Duration::from_secs), "{text}");
        }
    }
}
