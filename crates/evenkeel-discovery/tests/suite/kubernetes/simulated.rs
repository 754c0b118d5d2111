//! A simulated API server, for what a real one cannot be made to do.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use evenkeel_discovery::kubernetes::ApiServer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::kubernetes::real::ready;

/// The answer to one request. The last of a script is repeated.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A whole body, with this status and these headers.
    Body(u16, &'static str, String),
    /// These lines, and then a regular end.
    Ended(Vec<String>),
    /// These lines, and then nothing.
    Held(Vec<String>),
    /// These lines, and then a connection that breaks.
    Cut(Vec<String>),
}

#[derive(Default)]
struct State {
    lists: VecDeque<Reply>,
    watches: VecDeque<Reply>,
    asked: Vec<String>,
}

pub(crate) struct Simulated {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Simulated {
    pub(crate) async fn start(
        lists: impl IntoIterator<Item = Reply>,
        watches: impl IntoIterator<Item = Reply>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (lists, watches) = (lists.into_iter().collect(), watches.into_iter().collect());
        let state = Arc::new(Mutex::new(State { lists, watches, asked: vec![] }));
        let simulated = Self { url, state: state.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, state.clone()));
            }
        });
        simulated
    }

    pub(crate) fn server(&self) -> ApiServer {
        ApiServer::at(self.url.parse().unwrap())
    }

    /// The requested paths.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

/// A page of a list, with or without another after it.
pub(crate) fn page(version: u64, slices: &[Value], next: &str) -> Reply {
    let metadata = json!({ "resourceVersion": version.to_string(), "continue": next });
    let body = json!({ "kind": "EndpointSliceList", "metadata": metadata, "items": slices });
    Reply::Body(200, "", body.to_string())
}

pub(crate) fn list(version: u64, slices: &[Value]) -> Reply {
    page(version, slices, "")
}

/// An API server's refusal.
pub(crate) fn status(code: u16, headers: &'static str, reason: &str) -> Reply {
    Reply::Body(code, headers, refusal(code, reason).to_string())
}

pub(crate) fn refusal(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no" })
}

pub(crate) fn slice(name: &str, version: u64, pods: &[u32]) -> Value {
    let endpoints: Vec<_> = pods.iter().map(|pod| ready(*pod, true)).collect();
    json!({
        "metadata": { "name": name, "uid": name, "resourceVersion": version.to_string() },
        "addressType": "IPv4", "ports": [{ "name": "http", "port": 8080 }], "endpoints": endpoints,
    })
}

pub(crate) fn line(kind: &str, object: &Value) -> String {
    json!({ "type": kind, "object": object }).to_string()
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut stream = BufReader::new(stream);
    while let Some(path) = question(&mut stream).await {
        let reply = {
            let mut state = state.lock().unwrap();
            let is_watch = path.contains("watch=true");
            state.asked.push(path);
            let script = if is_watch { &mut state.watches } else { &mut state.lists };
            let next = script.pop_front().expect("a script is never empty");
            if script.is_empty() {
                script.push_back(next.clone());
            }
            next
        };
        if answer(&mut stream, reply).await.is_none() {
            return;
        }
    }
}

async fn question(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut path = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => return path,
            line if path.is_none() => path = line.split(' ').nth(1).map(ToOwned::to_owned),
            _ => {}
        }
    }
}

/// Writes an answer; none if the connection cannot be used again.
async fn answer(stream: &mut BufReader<TcpStream>, reply: Reply) -> Option<()> {
    let (lines, is_ended, is_held) = match reply {
        Reply::Body(status, headers, body) => {
            let head = format!(
                "HTTP/1.1 {status} Status\r\n{headers}Content-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.ok()?;
            return stream.write_all(body.as_bytes()).await.ok();
        }
        Reply::Ended(lines) => (lines, true, false),
        Reply::Held(lines) => (lines, false, true),
        Reply::Cut(lines) => (lines, false, false),
    };
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.ok()?;
    for line in lines {
        let chunk = format!("{:x}\r\n{line}\n\r\n", line.len() + 1);
        stream.write_all(chunk.as_bytes()).await.ok()?;
    }
    if is_ended {
        return stream.write_all(b"0\r\n\r\n").await.ok();
    }
    if is_held {
        // Until the client closes.
        let mut rest = String::new();
        let _ = stream.read_line(&mut rest).await;
    }
    None
}
