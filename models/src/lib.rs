//! Converts the model into the model directory of the embedder, and verifies a directory.

#![forbid(unsafe_code)]

pub mod convert;
pub mod golden;
pub mod onnx;
pub mod original;
mod proto_file;
pub mod published;
pub mod saved_model;
pub mod sentence_encoder;
pub mod source;
mod staging;
mod tarball;
pub mod verify;
pub mod weights;
