//! A simulated DNS server that does what real ones do on bad days.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::SRV},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Notify,
};

/// The size limit of an answer over UDP.
const MAX_UDP_SIZE: usize = 1_232;
/// The limit without EDNS (RFC 1035).
const MIN_UDP_SIZE: usize = 512;

#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Addresses(Vec<IpAddr>),
    Services(Vec<(u16, u16, u16, &'static str)>),
    NoData,
    NxDomain,
    ServFail,
    Refused,
    Silence,
    Garbage,
}

impl Reply {
    pub(crate) fn v4(ips: &[&str]) -> Self {
        Self::Addresses(ips.iter().map(|ip| ip.parse().unwrap()).collect())
    }

    pub(crate) fn srv(records: &[(u16, u16, u16, &'static str)]) -> Self {
        Self::Services(records.to_vec())
    }
}

/// The reply to a question with EDNS, instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WithoutEdns {
    FormErr,
    /// Only a header, as from a server that cannot read the question.
    BareFormErr,
    NotImp,
    Silence,
}

#[derive(Default)]
struct State {
    without_edns: Mutex<Option<WithoutEdns>>,
    replies: Mutex<HashMap<String, Reply>>,
    /// Replies that are given once, before the records.
    once: Mutex<HashMap<String, Reply>>,
    asked_at: Mutex<Vec<Instant>>,
    udp: AtomicUsize,
    tcp: AtomicUsize,
    asked: Notify,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

impl Server {
    /// Starts on a free port, the same for UDP and TCP.
    pub(crate) async fn start() -> Self {
        let state = Arc::<State>::default();
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        tokio::spawn(serve_udp(udp, state.clone()));
        tokio::spawn(serve_tcp(tcp, state.clone()));
        Self { address, state }
    }

    pub(crate) fn reply(&self, name: &str, reply: Reply) {
        self.state.replies.lock().unwrap().insert(name.to_owned(), reply);
    }

    /// Stops understanding EDNS.
    pub(crate) fn forget_edns(&self, answer: WithoutEdns) {
        *self.state.without_edns.lock().unwrap() = Some(answer);
    }

    /// Gives this reply to the next question of any kind.
    pub(crate) fn reply_once(&self, name: &str, reply: Reply) {
        self.state.once.lock().unwrap().insert(name.to_owned(), reply);
    }

    /// When it was asked.
    pub(crate) fn asked_at(&self) -> Vec<Instant> {
        self.state.asked_at.lock().unwrap().clone()
    }

    pub(crate) fn asked(&self) -> usize {
        self.state.udp.load(SeqCst) + self.asked_over_tcp()
    }

    pub(crate) fn asked_over_tcp(&self) -> usize {
        self.state.tcp.load(SeqCst)
    }

    pub(crate) async fn asked_again(&self, times: usize) {
        let enough = self.asked() + times;
        while self.asked() < enough {
            self.state.asked.notified().await;
        }
    }
}

async fn serve_udp(socket: UdpSocket, state: Arc<State>) {
    let mut buffer = [0; 4_096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        state.udp.fetch_add(1, SeqCst);
        state.asked.notify_one();
        if let Some(answer) = state.answer(&buffer[..length], MAX_UDP_SIZE) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_stream(stream, state.clone()));
    }
}

async fn serve_stream(mut stream: TcpStream, state: Arc<State>) -> std::io::Result<()> {
    loop {
        let mut question = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut question).await?;
        state.tcp.fetch_add(1, SeqCst);
        if let Some(answer) = state.answer(&question, usize::from(u16::MAX)) {
            stream.write_u16(answer.len() as u16).await?;
            stream.write_all(&answer).await?;
        }
    }
}

impl State {
    fn answer(&self, question: &[u8], max_size: usize) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let name = query.name().to_ascii().to_lowercase();
        self.asked_at.lock().unwrap().push(Instant::now());
        let without_edns = *self.without_edns.lock().unwrap();
        if let Some(without_edns) = without_edns.filter(|_| question.edns.is_some()) {
            let mut answer = Message::response(question.id, question.op_code);
            answer.metadata.response_code = match without_edns {
                WithoutEdns::Silence => return None,
                WithoutEdns::NotImp => ResponseCode::NotImp,
                WithoutEdns::FormErr | WithoutEdns::BareFormErr => ResponseCode::FormErr,
            };
            if without_edns != WithoutEdns::BareFormErr {
                answer.add_query(query);
            }
            return Some(answer.to_vec().unwrap());
        }
        let max_size = match question.edns {
            None if max_size == MAX_UDP_SIZE => MIN_UDP_SIZE,
            _ => max_size,
        };
        let once = self.once.lock().unwrap().remove(&name);
        let reply = once
            .or_else(|| self.replies.lock().unwrap().get(&name).cloned())
            .unwrap_or(Reply::NxDomain);
        let mut answer = Message::response(question.id, question.op_code);
        answer.add_query(query.clone());
        let records: Vec<RData> = match reply {
            Reply::Silence => return None,
            Reply::Garbage => return Some(vec![0xff; 64]),
            Reply::Addresses(ips) => ips.into_iter().map(RData::from).collect(),
            Reply::Services(records) => records.into_iter().map(srv).collect(),
            Reply::NoData => vec![],
            Reply::NxDomain => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                vec![]
            }
            Reply::ServFail => {
                answer.metadata.response_code = ResponseCode::ServFail;
                vec![]
            }
            Reply::Refused => {
                answer.metadata.response_code = ResponseCode::Refused;
                vec![]
            }
        };
        let kind: RecordType = query.query_type();
        let records = records.into_iter().filter(|data| data.record_type() == kind);
        answer.add_answers(records.map(|data| Record::from_rdata(query.name().clone(), 60, data)));
        let bytes = answer.to_vec().unwrap();
        if bytes.len() <= max_size {
            return Some(bytes);
        }
        answer.answers.clear();
        answer.metadata.truncation = true;
        Some(answer.to_vec().unwrap())
    }
}

fn srv((priority, weight, port, target): (u16, u16, u16, &str)) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
}
