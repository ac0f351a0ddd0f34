//! The encoder: its weights as the operator `muse::encode` takes them, which is all that is traced into TorchScript.
//!
//! Every constant is made before the tracing starts: one that is made inside is traced as zeros.

use muse_model::model_dir::Precision;
use muse_operators as operators;
use tch::{Kind, TchError, Tensor};

use crate::{
    onnx::OnnxError,
    weights::{DIMENSION, Table, Weights},
};

const HIDDEN: i64 = 256;
const FEATURES: i64 = DIMENSION as i64 + 3 * HIDDEN;
/// Width of the narrow hidden layers.
const BOTTLENECK: i64 = 320;
/// The n-gram orders.
const ORDERS: [i64; 3] = [2, 3, 5];

/// Floating-point operations of the matrix products of a forward pass, two for each multiplication with its addition. All
/// else is left out.
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

/// Why an encoder cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// The weights are not all there, or not as they must be.
    #[error(transparent)]
    Weights(#[from] OnnxError),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// All weights, as tensors in the precision that they are used in.
#[derive(Debug)]
pub struct Encoder(operators::Weights);

impl Encoder {
    /// Takes the weights out of an ONNX graph.
    pub fn new(weights: &Weights<'_>, precision: Precision) -> Result<Encoder, EncoderError> {
        let kind = match precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
        };
        let dimension = DIMENSION as i64;
        let mut list = List::new(table(weights.table()?, kind)?, kind);
        let part = |order: i64| format!("CNN_layers/ngram_order_{order}");
        let (mut projection, mut projection_bias) = (Vec::new(), Vec::new());
        for order in ORDERS {
            let dense = format!("{}/input_size_projection/dense", part(order));
            projection.push(transposed(weights, &format!("{dense}/kernel"), dimension, HIDDEN)?);
            projection_bias.push(vector(weights, &format!("{dense}/bias"), HIDDEN)?);
        }
        list.matrix(&Tensor::f_cat(&projection, 0)?, kind)?;
        list.vector(&Tensor::f_cat(&projection_bias, 0)?, kind)?;
        for order in ORDERS {
            let part = part(order);
            for name in ["LayerNorm/gamma", "LayerNorm/beta"] {
                list.vector(&vector(weights, &format!("{part}/{name}"), HIDDEN)?, kind)?;
            }
            for name in ["Conv", "Conv_1"] {
                let name = format!("{part}/Ngram-{order}-{name}");
                list.matrix(&transposed(weights, &format!("{name}/weights"), order * HIDDEN, HIDDEN)?, kind)?;
                list.vector(&vector(weights, &format!("{name}/bias"), HIDDEN)?, kind)?;
            }
        }
        for name in ["CNN_layers/LayerNorm/gamma", "CNN_layers/LayerNorm/beta"] {
            list.vector(&vector(weights, name, FEATURES)?, Kind::Float)?;
        }
        list.matrix(&transposed(weights, "CNN_layers/dense/kernel", FEATURES, dimension)?, Kind::Float)?;
        list.vector(&vector(weights, "CNN_layers/dense/bias", dimension)?, Kind::Float)?;
        // Two that are added are one of both inputs side by side. None has a bias.
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
            list.matrix(&Tensor::f_cat(&parts.collect::<Result<Vec<_>, _>>()?, 1)?, Kind::Float)?;
        }
        Ok(Encoder(list.weights))
    }

    /// `ids` int64 (T), `lengths` int64 (N) with sum T and none below 1; gives float32 (N, 512).
    pub fn forward(&self, ids: &Tensor, lengths: &Tensor) -> Result<Tensor, TchError> {
        operators::encode(ids, lengths, &self.0)
    }
}

/// The operator's weights in the making.
struct List {
    kind: Kind,
    weights: operators::Weights,
}

impl List {
    fn new(table: Vec<Tensor>, kind: Kind) -> List {
        List { kind, weights: operators::Weights { table, weights: Vec::new(), packed: Vec::new() } }
    }

    /// No kernel computes in float16.
    fn has_kernels(&self) -> bool {
        self.kind != Kind::Half
    }

    /// A weight (outputs, inputs), for libtorch's operators in `kind`.
    fn matrix(&mut self, weight: &Tensor, kind: Kind) -> Result<(), TchError> {
        if self.has_kernels() {
            self.weights.packed.push(operators::packed(&weight.f_to_kind(self.kind)?)?);
        }
        self.weights.weights.push(weight.f_to_kind(kind)?.f_contiguous()?);
        Ok(())
    }

    /// A bias, or a part of a LayerNorm, for libtorch's operators in `kind`.
    fn vector(&mut self, values: &Tensor, kind: Kind) -> Result<(), TchError> {
        if self.has_kernels() {
            self.weights.packed.push(values.shallow_clone());
        }
        self.weights.weights.push(values.f_to_kind(kind)?);
        Ok(())
    }
}

fn table(table: Table, kind: Kind) -> Result<Vec<Tensor>, TchError> {
    let shape = |values: usize| [(values / DIMENSION) as i64, DIMENSION as i64];
    Ok(match table {
        Table::Bytes { rows, scales, zero_points } => vec![
            Tensor::f_from_slice(&rows)?.f_view(shape(rows.len()))?,
            Tensor::f_from_slice(&scales)?.f_unsqueeze(1)?,
            Tensor::f_from_slice(&zero_points)?.f_unsqueeze(1)?,
        ],
        Table::Floats(rows) => vec![Tensor::f_from_slice(&rows)?.f_view(shape(rows.len()))?.f_to_kind(kind)?],
    })
}

fn transposed(weights: &Weights<'_>, name: &str, rows: i64, columns: i64) -> Result<Tensor, EncoderError> {
    let values = weights.encoder(name, &[rows, columns])?;
    Ok(Tensor::f_from_slice(&values)?.f_view([rows, columns])?.f_transpose(0, 1)?)
}

fn vector(weights: &Weights<'_>, name: &str, size: i64) -> Result<Tensor, EncoderError> {
    Ok(Tensor::f_from_slice(&weights.encoder(name, &[size])?)?)
}
