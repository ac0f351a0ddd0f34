//! The weights of the encoder by their names in TensorFlow: the interface of all formats.

use std::fmt;

use muse_model::inference::DIMENSION;

use crate::{onnx::OnnxError, saved_model::SavedModelError};

/// Shards of the embedding table in the original: token `i` is row `i / SHARDS` of shard
/// `i % SHARDS`.
pub const SHARDS: usize = 17;
/// Rows of one shard.
pub const SHARD_ROWS: usize = 7530;
/// Rows of the table.
pub const TABLE_ROWS: usize = SHARDS * SHARD_ROWS;

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

/// A file, or several, that the weights of the encoder can be read from.
pub trait WeightSource: fmt::Debug {
    /// A variable of the encoder as float32, in row-major order. `name` is that of TensorFlow, below
    /// `EncoderDNN`, without `:0`.
    ///
    /// # Errors
    ///
    /// If the variable is missing, has another shape, or cannot be read.
    fn encoder(&self, name: &str, shape: &[i64]) -> Result<Vec<f32>, WeightError>;

    /// The embedding table.
    ///
    /// # Errors
    ///
    /// If a shard is missing, has another shape, or cannot be read.
    fn table(&self) -> Result<EmbeddingTable, WeightError>;
}

/// Why a weight cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The problem of an ONNX file.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// The problem of a SavedModel.
    #[error(transparent)]
    SavedModel(#[from] SavedModelError),
}

/// Whether a shape is the expected one. Biases have the shape (256) or (1, 256): leading dimensions
/// of 1 are ignored.
pub(crate) fn is_shape(found: &[i64], expected: &[i64]) -> bool {
    let start = found.iter().take_while(|size| **size == 1).count();
    found == expected || found[start..] == *expected
}

/// Converts the order of the shards to that of the tokens. Reads one shard at a time, so that the
/// table is in memory once.
pub(crate) fn interleave<T: Copy + Default, E>(
    shards: usize,
    mut shard_values: impl FnMut(usize) -> Result<Vec<T>, E>,
) -> Result<Vec<T>, E> {
    let mut rows = vec![T::default(); TABLE_ROWS * DIMENSION];
    for shard in 0..shards {
        let values = shard_values(shard)?;
        let own = rows.chunks_exact_mut(DIMENSION).skip(shard).step_by(shards);
        for (row, values) in own.zip(values.chunks_exact(DIMENSION)) {
            row.copy_from_slice(values);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_interleaved_in_token_order() {
        for shards in [1, 3, SHARDS] {
            let values = |shard: usize| {
                let tokens = (shard..TABLE_ROWS).step_by(shards);
                Ok::<_, ()>(tokens.flat_map(|token| [token as u32; DIMENSION]).collect())
            };
            let rows = interleave(shards, values).unwrap();
            let mut tokens = rows.chunks_exact(DIMENSION).zip(0..);
            assert!(tokens.all(|(row, token)| row == [token; DIMENSION]));
        }
    }

    #[test]
    fn leading_dimensions_of_one_are_ignored() {
        assert!(is_shape(&[256], &[256]) && is_shape(&[1, 1, 256], &[256]) && is_shape(&[1], &[]));
        assert!(is_shape(&[1, 256], &[1, 256]));
        assert!(!is_shape(&[256, 1], &[256]) && !is_shape(&[2, 128], &[256]) && !is_shape(&[], &[1]));
    }
}
