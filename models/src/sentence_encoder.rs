//! The encoder of sentences: the parameters of the TorchScript module, and its methods.

use std::path::Path;

use muse_kernels::{BOTTLENECK, DIMENSION, FEATURES, HIDDEN, PARAMETERS, SCALE, TABLE, ZERO_POINT};
use muse_model::model_dir::hex;
use muse_torchscript::SaveError;
use sha2::{Digest, Sha256};
use tch::{TchError, Tensor};

use crate::weights::{EmbeddingTable, WeightError, WeightSource};

/// The n-gram orders.
const ORDERS: [i64; 3] = [2, 3, 5];

/// The methods of the module besides `gather`.
const METHODS: &str = include_str!("encoder.torchscript");
/// Looks up the embeddings of ids as float32, (T, 512), in a table of float32.
const GATHER_FLOATS: &str = "
def gather(self, ids: Tensor) -> Tensor:
    return self.embedding.weight.index_select(0, ids).to(self.dense.weight.dtype)
";
/// The same in a table of bytes, which it dequantises.
const GATHER_BYTES: &str = "
def gather(self, ids: Tensor) -> Tensor:
    rows = self.embedding.weight.index_select(0, ids).to(self.dense.weight.dtype)
    shard = ids.remainder(self.embedding.scale.size(0))
    scale = self.embedding.scale.index_select(0, shard)
    return rows.sub_(self.embedding.zero_point.index_select(0, shard)).mul_(scale)
";

/// Floating-point operations of the matrix products of a forward pass: two for each multiplication
/// with its addition, and none for other operations.
#[must_use]
pub fn flops(tokens: usize, sentences: usize) -> f64 {
    let multiplications = |name_starts: &[&str]| -> i64 {
        let named =
            PARAMETERS.iter().filter(|(name, _)| name_starts.iter().any(|start| name.starts_with(start)));
        named
            .filter_map(
                |(_, shape)| if let [outputs, inputs] = shape { Some(outputs * inputs) } else { None },
            )
            .sum()
    };
    let (token, sentence) = (multiplications(&["cnn."]), multiplications(&["dense.", "dnn."]));
    2.0 * (token as f64 * tokens as f64 + sentence as f64 * sentences as f64)
}

/// Why an encoder cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// A weight is missing or not valid.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// The encoder: all parameters in float32, or bytes for a table of bytes.
#[derive(Debug)]
pub struct SentenceEncoder {
    parameters: Vec<(&'static str, Tensor)>,
    gather: &'static str,
    weights_sha256: String,
}

impl SentenceEncoder {
    /// Creates it from the weights of a source.
    ///
    /// # Errors
    ///
    /// If a weight is missing or has another shape, or libtorch fails.
    pub fn new(weights: &dyn WeightSource) -> Result<SentenceEncoder, EncoderError> {
        let mut digest = Sha256::new();
        let table = weights.table()?;
        table.for_each_row(|row| update(&mut digest, row));
        let gather = match table {
            EmbeddingTable::Bytes { .. } => GATHER_BYTES,
            EmbeddingTable::Floats(_) => GATHER_FLOATS,
        };
        let mut parameters = table_parameters(table)?;
        for ((name, _), values) in PARAMETERS.into_iter().zip(values(weights)?) {
            let values = values.f_contiguous()?;
            let mut floats = vec![0.0_f32; values.numel()];
            values.f_copy_data(&mut floats, values.numel())?;
            update(&mut digest, &floats);
            parameters.push((name, values));
        }
        let weights_sha256 = hex(&digest.finalize());
        Ok(SentenceEncoder { parameters, gather, weights_sha256 })
    }

    /// The sha256, in hexadecimal, of the parameters as little-endian float32: the rows of the
    /// table in the order of the tokens, then the others in the order of [`PARAMETERS`].
    #[must_use]
    pub fn weights_sha256(&self) -> &str {
        &self.weights_sha256
    }

    /// Writes the TorchScript module.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), SaveError> {
        let parameters: Vec<(&str, &Tensor)> =
            self.parameters.iter().map(|(name, tensor)| (*name, tensor)).collect();
        muse_torchscript::save(path, "Muse", &format!("{METHODS}{}", self.gather), &parameters)
    }
}

fn update(digest: &mut Sha256, values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    digest.update(bytes);
}

fn table_parameters(table: EmbeddingTable) -> Result<Vec<(&'static str, Tensor)>, TchError> {
    let shape = |values: usize| [values as i64 / DIMENSION, DIMENSION];
    Ok(match table {
        EmbeddingTable::Bytes { rows, scales, zero_points } => vec![
            (TABLE, Tensor::f_from_slice(&rows)?.f_view(shape(rows.len()))?),
            (SCALE, Tensor::f_from_slice(&scales)?.f_unsqueeze(1)?),
            (ZERO_POINT, Tensor::f_from_slice(&zero_points)?.f_unsqueeze(1)?),
        ],
        EmbeddingTable::Floats(rows) => {
            vec![(TABLE, Tensor::f_from_slice(&rows)?.f_view(shape(rows.len()))?)]
        }
    })
}

/// The values of [`PARAMETERS`]. The original has transposed matrices, and layers whose outputs are
/// added where the module has one layer of the concatenated inputs.
fn values(weights: &dyn WeightSource) -> Result<Vec<Tensor>, EncoderError> {
    let matrix = |name: &str, inputs: i64, outputs: i64| matrix(weights, name, inputs, outputs);
    let vector = |name: &str, size: i64| vector(weights, name, size);

    let (mut projections, mut biases) = (Vec::new(), Vec::new());
    for order in ORDERS {
        let dense = format!("CNN_layers/ngram_order_{order}/input_size_projection/dense");
        projections.push(matrix(&format!("{dense}/kernel"), DIMENSION, HIDDEN)?);
        biases.push(vector(&format!("{dense}/bias"), HIDDEN)?);
    }
    let mut values = vec![Tensor::f_cat(&projections, 0)?, Tensor::f_cat(&biases, 0)?];
    for order in ORDERS {
        let branch = format!("CNN_layers/ngram_order_{order}");
        values.push(vector(&format!("{branch}/LayerNorm/gamma"), HIDDEN)?);
        values.push(vector(&format!("{branch}/LayerNorm/beta"), HIDDEN)?);
        for layer in ["Conv", "Conv_1"] {
            let layer = format!("{branch}/Ngram-{order}-{layer}");
            values.push(matrix(&format!("{layer}/weights"), order * HIDDEN, HIDDEN)?);
            values.push(vector(&format!("{layer}/bias"), HIDDEN)?);
        }
    }
    values.push(vector("CNN_layers/LayerNorm/gamma", FEATURES)?);
    values.push(vector("CNN_layers/LayerNorm/beta", FEATURES)?);
    values.push(matrix("CNN_layers/dense/kernel", FEATURES, DIMENSION)?);
    values.push(vector("CNN_layers/dense/bias", DIMENSION)?);
    let hidden = [
        (&[("0/dense", DIMENSION)][..], BOTTLENECK),
        (&[("1/dense", BOTTLENECK), ("1/AdjustDepth/projection", DIMENSION)], BOTTLENECK),
        (&[("2/dense", BOTTLENECK)], DIMENSION),
        (&[("3/AdjustDepth/projection", BOTTLENECK), ("3/dense", DIMENSION)], DIMENSION),
    ];
    for (parts, outputs) in hidden {
        let parts = parts
            .iter()
            .map(|(name, inputs)| matrix(&format!("DNN/ResidualHidden_{name}/kernel"), *inputs, outputs));
        values.push(Tensor::f_cat(&parts.collect::<Result<Vec<_>, _>>()?, 1)?);
    }
    Ok(values)
}

/// A matrix (outputs, inputs). The original has it as (inputs, outputs).
fn matrix(weights: &dyn WeightSource, name: &str, inputs: i64, outputs: i64) -> Result<Tensor, EncoderError> {
    let values = weights.encoder(name, &[inputs, outputs])?;
    Ok(Tensor::f_from_slice(&values)?.f_view([inputs, outputs])?.f_transpose(0, 1)?)
}

fn vector(weights: &dyn WeightSource, name: &str, size: i64) -> Result<Tensor, EncoderError> {
    Ok(Tensor::f_from_slice(&weights.encoder(name, &[size])?)?)
}
