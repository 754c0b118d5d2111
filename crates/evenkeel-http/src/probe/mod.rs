//! Probes for active health checks over HTTP, gRPC, TLS and TCP, and probes that ask for load.

mod body;
mod grpc;
mod http;
mod line;
mod load;
mod message;
mod tcp;
#[cfg(feature = "tls")]
mod tls;

#[cfg(feature = "tls")]
pub use self::tls::TlsProbe;
#[cfg(feature = "orca")]
pub(crate) use self::{
    body::{Whole, frame},
    line::{Line, send_over},
    message::take as take_message,
};
pub use self::{
    grpc::GrpcProbe,
    http::HttpProbe,
    load::{GrpcLoadProbe, HttpLoadProbe},
    tcp::TcpProbe,
};
