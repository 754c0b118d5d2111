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

/// The most bytes of an answer that are read: some 30,000 endpoints.
const ANSWER_BYTES_MAX: usize = 64 << 20;

type Sender = SendRequest<Full<Bytes>>;

/// One connection while one question follows the other, and another only for those asked at the same time.
///
/// A pool would not do: one that has no idle connection at the moment dials, and the last answer's
/// connection may be back a moment later.
#[derive(Clone, Debug)]
pub(super) struct Line {
    dial: Dial,
    idle: Arc<Mutex<Option<Sender>>>,
}

impl Line {
    pub(super) fn new(dial: Dial) -> Self {
        Self { dial, idle: Arc::default() }
    }

    /// Asks, and reads the whole answer. One that is given up costs its connection.
    pub(super) async fn ask(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Parts, Bytes), BoxError> {
        let idle = self.idle().take();
        // It is ready as soon as all of the last answer is read, or never, where the agent has closed it.
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
        // What becomes of it, those learn who ask over it.
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        self.read(sender, response).await
    }

    /// Closes the connection that no question is using.
    pub(super) fn hang_up(&self) {
        *self.idle() = None;
    }

    async fn read(
        &self,
        sender: Sender,
        response: Response<Incoming>,
    ) -> Result<(Parts, Bytes), BoxError> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        *self.idle() = Some(sender);
        Ok((head, body))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Option<Sender>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
