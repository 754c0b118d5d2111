//! The connection to one agent.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use evenkeel_core::BoxError;
use http::{Request, Response, response::Parts};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};

use crate::client::Dial;

/// The most bytes of an answer that are read: about 30,000 endpoints.
const MAX_ANSWER_BYTES: usize = 64 << 20;

type Sender = SendRequest<Full<Bytes>>;

/// One connection for questions in sequence, and one more for each question at the same time.
///
/// A pool would not do: it dials when it has no idle connection at the moment, although the last
/// answer's connection may be back a moment later.
#[derive(Clone, Debug)]
pub(super) struct Line {
    dial: Dial,
    idle: Arc<Mutex<Option<Sender>>>,
}

impl Line {
    pub(super) fn new(dial: Dial) -> Self {
        Self { dial, idle: Arc::default() }
    }

    /// Asks, and reads the whole answer. A question that is dropped costs its connection.
    pub(super) async fn ask(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Parts, Bytes), BoxError> {
        let idle = self.idle().take();
        // It is ready once all of the last answer is read, or never if the agent has closed it.
        if let Some(mut sender) = idle
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(response) => return self.read(sender, response).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let (mut sender, connection) = http1::handshake(self.dial.clone().connect().await?).await?;
        // Its errors reach the questions that use it.
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        self.read(sender, response).await
    }

    /// Closes the connection if it is idle.
    pub(super) fn hang_up(&self) {
        *self.idle() = None;
    }

    async fn read(
        &self,
        sender: Sender,
        response: Response<Incoming>,
    ) -> Result<(Parts, Bytes), BoxError> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
        *self.idle() = Some(sender);
        Ok((head, body))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Option<Sender>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
