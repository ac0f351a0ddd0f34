//! The model of MUSE as Service, without a server: the model directory, the tokenizer, the device
//! and the forward pass. The embedder serves it, the converter writes and verifies it.

#![deny(unsafe_code)]

pub mod batch;
pub mod device;
mod encoder;
mod error;
pub mod inference;
pub mod model_dir;
pub mod precision;
pub mod selection;
pub mod sentences;
pub mod tokenizer;
mod transfer;
