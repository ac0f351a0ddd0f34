//! The APIs of the public port, one folder each, and their common parts.

mod accept;
pub(crate) mod grpc;
pub(crate) mod http_response;
mod json_request;
mod json_vectors;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod openai;
pub(crate) mod openapi;
mod paging;
pub(crate) mod problem;
mod quota;
pub(crate) mod request;
mod resource;
mod response_memory;
pub(crate) mod rest;
pub(crate) mod routing;
pub(crate) mod server_timing;
pub(crate) mod status;
pub(crate) mod usage;
pub(crate) mod users;

pub(crate) use accept::weighted;
