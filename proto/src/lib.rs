//! The contract between the services of MUSE as Service and their clients: the generated code of package `muse.v1`,
//! its descriptor set, the table of errors, the limits of requests, and the fingerprint of a model.

mod codec;
mod embedding;
mod error;
mod fingerprint;
pub mod limits;
mod tokenized;
pub mod wire;

pub use codec::{Codec, MessageDecoder, MessageEncoder, blocking_runs, run_blocking};
pub use error::{Error, Reason};
pub use fingerprint::{FINGERPRINT, Fingerprint, NotAFingerprint};
pub use limits::Limited;
pub use tokenized::TokenizeResponseWriter;

/// Package `muse.v1`.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    reason = "generated code; the documentation is in the .proto files"
)]
pub mod v1 {
    pub use crate::{embedding::Embedding, tokenized::TokenizeResponse};

    tonic::include_proto!("muse.v1");
}

/// The paths of all methods of package `muse.v1`, as in `/muse.v1.AuthService/Login`.
pub const METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// The encoded `FileDescriptorSet` of package `muse.v1`, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/muse_descriptor.bin"));
