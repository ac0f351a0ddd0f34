//! Converts the model into the model directory of the embedder, and verifies a directory.

#![forbid(unsafe_code)]

pub mod convert;
pub mod golden;
pub mod onnx;
pub mod precision;
pub mod published;
pub mod sentence_encoder;
pub mod verify;
pub mod weights;
