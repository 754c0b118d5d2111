//! Probes for active health checks: HTTP, gRPC, TLS, TCP.

mod body;
mod grpc;
mod http;
mod line;
mod message;
mod tcp;
#[cfg(feature = "tls")]
mod tls;

#[cfg(feature = "tls")]
pub use self::tls::TlsProbe;
pub use self::{grpc::GrpcProbe, http::HttpProbe, tcp::TcpProbe};
