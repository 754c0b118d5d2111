//! The HTTP client of one agent, with bounds on the size and the time of an answer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel_core::{BoxError, number::digits};
use http::{
    HeaderMap, Method, Request,
    header::{HOST, HeaderValue},
};
use http_body_util::Full;

use super::{
    agents::{Agents, Token},
    error::{AgentRefused, AgentTimeout},
    line::Line,
};
use crate::{
    client::{Dial, Server},
    clock,
};

/// A client of one agent. Clones share its connection.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    line: Line,
    server: Server,
    token: Token,
    namespace: Option<Arc<str>>,
    partition: Option<Arc<str>>,
    timeout: Duration,
}

/// A successful answer of an agent.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(super) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The index to block on; 0 if there is none.
    pub(super) fn index(&self) -> u64 {
        self.number("x-consul-index").unwrap_or(0)
    }

    /// Whether rows were left out for lack of rights; reported since Consul 1.11.
    pub(super) fn is_filtered(&self) -> bool {
        self.headers.get("x-consul-results-filtered-by-acls").is_some_and(|value| value == "true")
    }

    fn number(&self, name: &str) -> Option<u64> {
        digits(self.headers.get(name)?.as_bytes().trim_ascii())
    }
}

impl Agent {
    pub(super) fn new(agents: &Agents, server: Server, dial: Dial) -> Self {
        Self {
            line: Line::new(dial),
            server,
            token: agents.token.clone(),
            namespace: agents.namespace.clone(),
            partition: agents.partition.clone(),
            timeout: agents.timeout,
        }
    }

    /// Its name and address.
    pub(super) fn name(&self) -> String {
        format!("consul agent {}", self.server)
    }

    /// Waits for `quiet`, and then for a sign that the agent and a server behind it still answer.
    ///
    /// Any answer in time is a sign, also a refusal: a proxy may refuse the question, and an agent
    /// may refuse one more connection, which it accepts first. A refused connection is not a sign:
    /// nothing listens any more, so whatever holds the query back is gone too.
    pub(super) async fn sign_of_life(&self, quiet: Duration) -> Result<(), BoxError> {
        tokio::time::sleep(quiet).await;
        let asked_at = clock::now();
        let asked = self.get("/v1/status/leader", Duration::ZERO).await;
        // An agent counts connections, so only one is kept.
        self.hang_up();
        match asked {
            Err(error) if is_gone(&error) || self.timeout <= clock::now() - asked_at => Err(error),
            _ => Ok(()),
        }
    }

    /// Closes the connection if it is idle.
    pub(crate) fn hang_up(&self) {
        self.line.hang_up();
    }

    /// Asks for `path`, which the agent may hold back for `wait`.
    pub(crate) async fn get(&self, path: &str, wait: Duration) -> Result<Answer, BoxError> {
        // The agent adds up to a sixteenth of the wait, so that not all queries return at once.
        let after = wait + wait / 16 + self.timeout;
        self.ask(Method::GET, path, Bytes::new(), after).await
    }

    pub(crate) async fn put(&self, path: &str, body: Bytes) -> Result<Answer, BoxError> {
        self.ask(Method::PUT, path, body, self.timeout).await
    }

    pub(super) async fn post(&self, path: &str, body: Bytes) -> Result<Answer, BoxError> {
        self.ask(Method::POST, path, body, self.timeout).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        after: Duration,
    ) -> Result<Answer, BoxError> {
        let request = self.request(method, path, body).await?;
        let answered = tokio::time::timeout(after, self.line.ask(request)).await;
        let (head, body) = answered.map_err(|_| AgentTimeout { agent: self.name(), after })??;
        if !head.status.is_success() {
            let message = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
            let status = head.status.as_u16();
            return Err(AgentRefused { agent: self.name(), status, message }.into());
        }
        Ok(Answer { headers: head.headers, body })
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, BoxError> {
        let mut path = path.to_owned();
        for (name, value) in [("ns", &self.namespace), ("partition", &self.partition)] {
            if let Some(value) = value {
                path.push(if path.contains('?') { '&' } else { '?' });
                path.push_str(name);
                path.push('=');
                path.push_str(&encode(value));
            }
        }
        let host = self.server.host();
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = self.token.read().await? {
            let mut token = HeaderValue::from_str(&token)?;
            token.set_sensitive(true);
            request = request.header("x-consul-token", token);
        }
        Ok(request.body(Full::new(body))?)
    }
}

/// Encodes a text as one segment of a path or one value of a query (RFC 3986).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Whether the error says that nothing listens at the agent's address.
pub(crate) fn is_gone(error: &BoxError) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    // The Unix socket of an agent that ended is refused, or missing.
    matches!(kind, Some(std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound))
}

/// The status with which an agent refused, if the error is a refusal.
pub(crate) fn refusal_status(error: &BoxError) -> Option<u16> {
    error.downcast_ref::<AgentRefused>().map(|refused| refused.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_consists_of_digits_only() {
        for (text, index) in [("7", 7), ("0", 0), ("+7", 0), ("-7", 0), ("7.0", 0), ("", 0)] {
            let headers = [("x-consul-index".parse().unwrap(), HeaderValue::from_static(text))];
            let answer = Answer { headers: HeaderMap::from_iter(headers), body: Bytes::new() };
            assert_eq!(answer.index(), index, "{text}");
        }
    }

    #[test]
    fn names_are_sent_as_they_are() {
        assert_eq!(encode("go.micro.api"), "go.micro.api");
        assert_eq!(encode("a/b c?d=é"), "a%2Fb%20c%3Fd%3D%C3%A9");
    }
}
