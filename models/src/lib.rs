//! Makes the model directory that the embedder serves from, and checks one.

#![forbid(unsafe_code)]

pub mod convert;
pub mod encoder;
pub mod golden;
pub mod onnx;
pub mod precision;
pub mod published;
pub mod verify;
pub mod weights;
