//! The embedder of MUSE as Service: text to tokens or to 512-dimensional unit vectors, over gRPC.
//!
//! The path of a sentence: the [`server`] verifies the caller's token, [`service`] checks the
//! request against the [`limits`] and turns it into ids with the
//! [tokenizer](muse_model::tokenizer), the [`batcher`] queues it and runs it, together with other
//! queued sentences, through the [model](muse_model::inference).

#![deny(unsafe_code)]

mod activity;
pub mod batcher;
mod clock;
mod config;
pub mod dimensions;
mod fingerprint;
pub mod limits;
mod memory;
pub mod metrics;
mod outbox;
mod request_tokenizer;
mod server;
pub mod service;
mod stream;
mod stream_limit;
mod timing;
pub mod usage;
pub mod vector_encoding;

pub use config::{Args, ArgsError, Config};
pub use server::{EmbedderError, run};
