//! The weights of the encoder in an ONNX graph, by their names in TensorFlow.

use std::collections::HashMap;

use muse_model::inference::DIMENSION;

use crate::onnx::{GraphProto, OnnxError, TensorProto, data_type};

/// Token `i` is row `i / SHARDS` of shard `i % SHARDS`.
pub const SHARDS: usize = 17;
/// Rows of one shard.
pub const SHARD_ROWS: usize = 7530;

const ENCODER: &str = "StatefulPartitionedCall/EncoderDNN";

/// The embedding table, in token order.
#[derive(Debug)]
pub enum EmbeddingTable {
    /// One byte per component, dequantised as `(byte - zero_point) * scale` with the values of the
    /// token's shard.
    Bytes {
        /// The rows.
        rows: Vec<u8>,
        /// Scale of each shard.
        scales: Vec<f32>,
        /// Zero point of each shard.
        zero_points: Vec<f32>,
    },
    /// float32 components.
    Floats(Vec<f32>),
}

impl EmbeddingTable {
    /// Calls `each` with the float32 components of each row.
    pub fn for_each_row(&self, mut each: impl FnMut(&[f32])) {
        match self {
            EmbeddingTable::Bytes { rows, scales, zero_points } => {
                let mut row = [0.0; DIMENSION];
                for (token, bytes) in rows.chunks_exact(DIMENSION).enumerate() {
                    let (scale, zero_point) =
                        (scales[token % scales.len()], zero_points[token % scales.len()]);
                    for (value, byte) in row.iter_mut().zip(bytes) {
                        *value = (f32::from(*byte) - zero_point) * scale;
                    }
                    each(&row);
                }
            }
            EmbeddingTable::Floats(rows) => rows.chunks_exact(DIMENSION).for_each(each),
        }
    }
}

/// The tensors of an ONNX graph by name, as float32 or quantised.
#[derive(Debug)]
pub struct OnnxWeights<'graph> {
    tensors: HashMap<&'graph str, &'graph TensorProto>,
}

impl<'graph> OnnxWeights<'graph> {
    /// The tensors of a graph.
    pub fn of(graph: &'graph GraphProto) -> OnnxWeights<'graph> {
        OnnxWeights {
            tensors: graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(),
        }
    }

    /// A tensor of the encoder as float32, in row-major order.
    pub fn encoder(&self, name: &str, shape: &[i64]) -> Result<Vec<f32>, OnnxError> {
        self.floats(&format!("{ENCODER}/{name}:0"), shape)
    }

    /// The embedding table.
    pub fn table(&self) -> Result<EmbeddingTable, OnnxError> {
        let shape = [SHARD_ROWS as i64, DIMENSION as i64];
        let names: Vec<String> =
            (1..=SHARDS).map(|shard| format!("Func/StatefulPartitionedCall/input/_{shard}:0")).collect();
        let is_bytes = |name: &String| {
            let tensor = self.tensors.get(quantised(name).as_str());
            tensor.is_some_and(|tensor| tensor.data_type == data_type::UINT8)
        };
        if !names.iter().all(is_bytes) {
            let shards = names.iter().map(|name| self.floats(name, &shape)).collect::<Result<Vec<_>, _>>()?;
            return Ok(EmbeddingTable::Floats(interleave(&shards)));
        }
        let (mut shards, mut scales, mut zero_points) = (Vec::new(), Vec::new(), Vec::new());
        for name in &names {
            let tensor = self.tensor(&quantised(name))?;
            tensor.expect_shape(&shape)?;
            shards.push(tensor.small_integers()?.iter().map(|value| *value as u8).collect::<Vec<u8>>());
            let (scale, zero_point) = self.scale_and_zero_point(name)?;
            scales.push(scale);
            zero_points.push(zero_point);
        }
        Ok(EmbeddingTable::Bytes { rows: interleave(&shards), scales, zero_points })
    }

    fn floats(&self, name: &str, shape: &[i64]) -> Result<Vec<f32>, OnnxError> {
        if let Some(tensor) = self.tensors.get(name) {
            tensor.expect_shape(shape)?;
            return tensor.floats();
        }
        let stored = self
            .tensors
            .get(quantised(name).as_str())
            .ok_or_else(|| OnnxError::MissingTensor(name.to_owned()))?;
        stored.expect_shape(shape)?;
        let (scale, zero_point) = self.scale_and_zero_point(name)?;
        let values = stored.small_integers()?;
        Ok(values.iter().map(|value| (f32::from(*value) - zero_point) * scale).collect())
    }

    fn scale_and_zero_point(&self, name: &str) -> Result<(f32, f32), OnnxError> {
        let scale = self.tensor(&format!("{name}_scale"))?;
        let zero_point = self.tensor(&format!("{name}_zero_point"))?;
        scale.expect_shape(&[])?;
        zero_point.expect_shape(&[])?;
        // Their shape is that of one value.
        Ok((scale.floats()?[0], f32::from(zero_point.small_integers()?[0])))
    }

    fn tensor(&self, name: &str) -> Result<&'graph TensorProto, OnnxError> {
        self.tensors.get(name).copied().ok_or_else(|| OnnxError::MissingTensor(name.to_owned()))
    }
}

fn quantised(name: &str) -> String {
    format!("{name}_quantized")
}

// Converts the order of the shards to that of the tokens.
fn interleave<T: Copy>(shards: &[Vec<T>]) -> Vec<T> {
    let mut rows = Vec::with_capacity(SHARDS * SHARD_ROWS * DIMENSION);
    for row in 0..SHARD_ROWS {
        for shard in shards {
            rows.extend_from_slice(&shard[row * DIMENSION..(row + 1) * DIMENSION]);
        }
    }
    rows
}
