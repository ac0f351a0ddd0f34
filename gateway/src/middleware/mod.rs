//! The layers of the public port: limits on connections and open calls, deadlines, the client's address, CORS, gRPC-Web,
//! compression, security headers, quotas, the fingerprint. [`app`](crate::app) lists them in their order.

mod around;
mod authenticate;
mod call_limits;
pub(crate) mod client_address;
mod compression;
mod cors;
mod deadline;
mod detour;
mod fingerprint;
mod grpc_web;
mod quota_headers;
mod security_headers;
mod send_timeout;
mod well_formed;

pub(crate) use around::{Around, AroundLayer, Rejection};
pub(crate) use authenticate::Authenticate;
pub(crate) use call_limits::CallLimits;
pub(crate) use client_address::ClientAddress;
pub use client_address::TrustedProxies;
pub(crate) use compression::compress;
pub use cors::AllowedOrigins;
pub(crate) use cors::Cors;
pub(crate) use deadline::{apply_deadline, with_deadline};
pub(crate) use detour::{Detour, DetourLayer};
pub(crate) use fingerprint::{ReportFingerprint, uses_model};
pub(crate) use grpc_web::GrpcWeb;
pub(crate) use quota_headers::{QUOTA_HEADERS, QuotaHeaders};
pub(crate) use security_headers::SecurityHeaders;
pub(crate) use send_timeout::{ConnectionResponses, StreamExecutor, run_connection, track_response};
pub(crate) use well_formed::WellFormed;
