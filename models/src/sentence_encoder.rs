//! The encoder of sentences: the operator `muse::encode` with its weights, which is traced into
//! TorchScript.
//!
//! Each constant is created before the tracing starts: one that is created inside is traced as
//! zeros.

use muse_model::{inference::DIMENSION, model_dir::Precision};
use muse_operators as operators;
use tch::{Kind, TchError, Tensor};

use crate::weights::{EmbeddingTable, WeightError, WeightSource};

const HIDDEN: i64 = 256;
const FEATURES: i64 = DIMENSION as i64 + 3 * HIDDEN;
/// Width of the narrow hidden layers.
const BOTTLENECK: i64 = 320;
/// The n-gram orders.
const ORDERS: [i64; 3] = [2, 3, 5];

/// Floating-point operations of the matrix products of a forward pass: two for each multiplication
/// with its addition, and none for other operations.
#[must_use]
pub fn flops(tokens: usize, sentences: usize) -> f64 {
    let dimension = DIMENSION as i64;
    let windows: i64 = ORDERS.iter().map(|order| 2 * order * HIDDEN * HIDDEN).sum();
    let token = dimension * ORDERS.len() as i64 * HIDDEN + windows;
    let sentence = (FEATURES + dimension + 2 * BOTTLENECK) * dimension
        + 2 * dimension * BOTTLENECK
        + BOTTLENECK * BOTTLENECK;
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

/// The encoder: all weights, as tensors in the precision of the operator.
#[derive(Debug)]
pub struct SentenceEncoder(operators::Weights);

impl SentenceEncoder {
    /// Creates it from the weights of a source.
    pub fn new(weights: &dyn WeightSource, precision: Precision) -> Result<SentenceEncoder, EncoderError> {
        let kind = match precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
        };
        let dimension = DIMENSION as i64;
        let mut builder = WeightsBuilder::new(table(weights.table()?, kind)?, kind);
        let layer = |order: i64| format!("CNN_layers/ngram_order_{order}");
        let (mut projection, mut projection_bias) = (Vec::new(), Vec::new());
        for order in ORDERS {
            let dense = format!("{}/input_size_projection/dense", layer(order));
            projection.push(transposed(weights, &format!("{dense}/kernel"), dimension, HIDDEN)?);
            projection_bias.push(vector(weights, &format!("{dense}/bias"), HIDDEN)?);
        }
        builder.matrix(&Tensor::f_cat(&projection, 0)?, kind)?;
        builder.vector(&Tensor::f_cat(&projection_bias, 0)?, kind)?;
        for order in ORDERS {
            let layer = layer(order);
            for name in ["LayerNorm/gamma", "LayerNorm/beta"] {
                builder.vector(&vector(weights, &format!("{layer}/{name}"), HIDDEN)?, kind)?;
            }
            for name in ["Conv", "Conv_1"] {
                let name = format!("{layer}/Ngram-{order}-{name}");
                builder.matrix(
                    &transposed(weights, &format!("{name}/weights"), order * HIDDEN, HIDDEN)?,
                    kind,
                )?;
                builder.vector(&vector(weights, &format!("{name}/bias"), HIDDEN)?, kind)?;
            }
        }
        for name in ["CNN_layers/LayerNorm/gamma", "CNN_layers/LayerNorm/beta"] {
            builder.vector(&vector(weights, name, FEATURES)?, Kind::Float)?;
        }
        builder.matrix(&transposed(weights, "CNN_layers/dense/kernel", FEATURES, dimension)?, Kind::Float)?;
        builder.vector(&vector(weights, "CNN_layers/dense/bias", dimension)?, Kind::Float)?;
        // Two layers whose outputs are added are one layer of the concatenated inputs. None has a
        // bias.
        let hidden = [
            (&[("0/dense", dimension)][..], BOTTLENECK),
            (&[("1/dense", BOTTLENECK), ("1/AdjustDepth/projection", dimension)], BOTTLENECK),
            (&[("2/dense", BOTTLENECK)], dimension),
            (&[("3/AdjustDepth/projection", BOTTLENECK), ("3/dense", dimension)], dimension),
        ];
        for (parts, outputs) in hidden {
            let parts = parts.iter().map(|(name, inputs)| {
                transposed(weights, &format!("DNN/ResidualHidden_{name}/kernel"), *inputs, outputs)
            });
            builder.matrix(&Tensor::f_cat(&parts.collect::<Result<Vec<_>, _>>()?, 1)?, Kind::Float)?;
        }
        Ok(SentenceEncoder(builder.weights))
    }

    /// The forward pass. `ids` is int64 (T), `lengths` int64 (N) with sum T and no element below 1;
    /// the result is float32 (N, 512).
    pub fn forward(&self, ids: &Tensor, lengths: &Tensor) -> Result<Tensor, TchError> {
        operators::encode(ids, lengths, &self.0)
    }
}

/// Collects the weights of the operator.
struct WeightsBuilder {
    kind: Kind,
    weights: operators::Weights,
}

impl WeightsBuilder {
    fn new(table: Vec<Tensor>, kind: Kind) -> WeightsBuilder {
        WeightsBuilder {
            kind,
            weights: operators::Weights { table, weights: Vec::new(), packed: Vec::new() },
        }
    }

    /// Whether there are kernels: there is none for float16.
    fn has_kernels(&self) -> bool {
        self.kind != Kind::Half
    }

    /// Adds a weight (outputs, inputs), in `kind` for libtorch's operators.
    fn matrix(&mut self, weight: &Tensor, kind: Kind) -> Result<(), TchError> {
        if self.has_kernels() {
            self.weights.packed.push(operators::packed(&weight.f_to_kind(self.kind)?)?);
        }
        self.weights.weights.push(weight.f_to_kind(kind)?.f_contiguous()?);
        Ok(())
    }

    /// Adds a bias, or a parameter of a LayerNorm, in `kind` for libtorch's operators.
    fn vector(&mut self, values: &Tensor, kind: Kind) -> Result<(), TchError> {
        if self.has_kernels() {
            self.weights.packed.push(values.shallow_clone());
        }
        self.weights.weights.push(values.f_to_kind(kind)?);
        Ok(())
    }
}

fn table(table: EmbeddingTable, kind: Kind) -> Result<Vec<Tensor>, TchError> {
    let shape = |values: usize| [(values / DIMENSION) as i64, DIMENSION as i64];
    Ok(match table {
        EmbeddingTable::Bytes { rows, scales, zero_points } => vec![
            Tensor::f_from_slice(&rows)?.f_view(shape(rows.len()))?,
            Tensor::f_from_slice(&scales)?.f_unsqueeze(1)?,
            Tensor::f_from_slice(&zero_points)?.f_unsqueeze(1)?,
        ],
        EmbeddingTable::Floats(rows) => {
            vec![Tensor::f_from_slice(&rows)?.f_view(shape(rows.len()))?.f_to_kind(kind)?]
        }
    })
}

fn transposed(
    weights: &dyn WeightSource,
    name: &str,
    rows: i64,
    columns: i64,
) -> Result<Tensor, EncoderError> {
    let values = weights.encoder(name, &[rows, columns])?;
    Ok(Tensor::f_from_slice(&values)?.f_view([rows, columns])?.f_transpose(0, 1)?)
}

fn vector(weights: &dyn WeightSource, name: &str, size: i64) -> Result<Tensor, EncoderError> {
    Ok(Tensor::f_from_slice(&weights.encoder(name, &[size])?)?)
}
