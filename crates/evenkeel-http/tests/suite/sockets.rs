//! What a caller sees over real sockets, with healthy endpoints and with failing ones.

mod compose;
mod faults;
mod grpc;
mod grpc_status;
mod http;
mod http2_faults;
mod in_flight;
mod latency;
mod load;
mod probe;
#[cfg(feature = "reqwest")]
mod reqwest_stack;
mod shared_client;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod trace;
