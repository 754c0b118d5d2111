//! A simulated agent, for what a real one cannot be made to do.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

/// The answer to one question about the service. The last of a script is repeated.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// These ports of 10.0.0.1, at this index.
    Ports(u64, Vec<u16>),
    /// These ports at once, unless the question blocks on this index: then it is held back.
    HoldBack(u64, Vec<u16>),
    /// As before, of a node that has lost its data, and so has another ID.
    HoldBackAnew(u64, Vec<u16>),
    Status(u16),
    Body(&'static str),
    /// The head and half of the body.
    Half,
    Silence,
    Close,
    /// An empty list with the notice that something was left out.
    Filtered,
}

#[derive(Clone, Default)]
struct State {
    script: VecDeque<Reply>,
    asked: Vec<String>,
    /// The answer to the question for rights.
    rights: Option<&'static str>,
}

pub(crate) struct Simulated {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    listening: JoinHandle<()>,
}

impl Simulated {
    pub(crate) async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State { script: script.into_iter().collect(), ..State::default() };
        let (state, changed) = (Arc::new(Mutex::new(state)), Arc::<Notify>::default());
        let shared = (state.clone(), changed.clone());
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.0.clone(), shared.1.clone()));
            }
        });
        Self { url, state, changed, listening }
    }

    /// Accepts no more connections, and leaves the existing ones as they are.
    pub(crate) fn stop_listening(&self) {
        self.listening.abort();
    }

    /// Plays this script from now on, also for answers that are being held back.
    pub(crate) fn play(&self, script: impl IntoIterator<Item = Reply>) {
        self.state.lock().unwrap().script = script.into_iter().collect();
        self.changed.notify_waiters();
    }

    pub(crate) fn rights(&self, answer: &'static str) {
        self.state.lock().unwrap().rights = Some(answer);
    }

    /// The requested paths about the service.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>, changed: Arc<Notify>) {
    let mut stream = BufReader::new(stream);
    while let Some(path) = question(&mut stream).await {
        if path.contains("/acl/") {
            let rights = state.lock().unwrap().rights;
            let answer = rights.map_or((404, String::new()), |rights| (200, rights.to_owned()));
            send(&mut stream, answer.0, 0, &answer.1).await;
            continue;
        }
        if path == "/v1/status/leader" {
            let is_silent = matches!(state.lock().unwrap().script.front(), Some(Reply::Silence));
            if is_silent {
                std::future::pending::<()>().await;
            }
            send(&mut stream, 200, 0, "\"127.0.0.1:8300\"").await;
            continue;
        }
        state.lock().unwrap().asked.push(path.clone());
        loop {
            let wait = changed.notified();
            let reply = {
                let mut state = state.lock().unwrap();
                let next = state.script.pop_front().expect("a script is never empty");
                if state.script.is_empty() {
                    state.script.push_back(next.clone());
                }
                next
            };
            match reply {
                Reply::HoldBack(index, _) | Reply::HoldBackAnew(index, _)
                    if path.contains(&format!("index={index}&")) =>
                {
                    wait.await;
                    continue;
                }
                Reply::Silence => {
                    wait.await;
                    continue;
                }
                Reply::Ports(index, ports) | Reply::HoldBack(index, ports) => {
                    send(&mut stream, 200, index, &rows(&ports, "a")).await;
                }
                Reply::HoldBackAnew(index, ports) => {
                    send(&mut stream, 200, index, &rows(&ports, "b")).await;
                }
                Reply::Status(status) => send(&mut stream, status, 0, "refused").await,
                Reply::Body(body) => send(&mut stream, 200, 7, body).await,
                Reply::Filtered => {
                    let head = "HTTP/1.1 200 OK\r\nX-Consul-Results-Filtered-By-ACLs: true\r\n\
                                X-Consul-Index: 9\r\nContent-Length: 2\r\n\r\n[]";
                    let _ = stream.write_all(head.as_bytes()).await;
                }
                Reply::Half => {
                    let rows = rows(&[1, 2, 3], "a");
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nX-Consul-Index: 9\r\nContent-Length: {}\r\n\r\n{}",
                        rows.len(),
                        &rows[..rows.len() / 2]
                    );
                    let _ = stream.write_all(head.as_bytes()).await;
                    return;
                }
                Reply::Close => return,
            }
            break;
        }
    }
}

/// The path of the next request, after reading its body.
async fn question(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut first = String::new();
    stream.read_line(&mut first).await.ok().filter(|read| 0 < *read)?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let line = line.trim().to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    stream.read_exact(&mut vec![0; length]).await.ok()?;
    Some(path)
}

async fn send(stream: &mut BufReader<TcpStream>, status: u16, index: u64, body: &str) {
    let head = format!(
        "HTTP/1.1 {status} Whatever\r\nX-Consul-Index: {index}\r\nLocation: /elsewhere\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).await;
}

fn rows(ports: &[u16], node: &str) -> String {
    let rows = ports.iter().map(|port| {
        format!(
            r#"{{"Node":{{"ID":"{node}","Node":"n","Address":"10.0.0.1"}},"Service":{{"ID":"web-{port}","Port":{port}}},"Checks":[]}}"#
        )
    });
    format!("[{}]", rows.collect::<Vec<_>>().join(","))
}
