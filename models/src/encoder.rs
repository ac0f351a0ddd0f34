//! The encoder's forward pass over a flat batch: sentences one after the other, never padded to each other.
//!
//! It is written to be traced into TorchScript, which asks three things of it. No size may be read out of a tensor into Rust,
//! or the example's sizes would be baked in: what depends on a size is computed by tensor operations. Every constant is made
//! before the tracing starts: one that is made inside is traced as zeros. And no operation may name a device, or the module
//! would run on that alone, wherever it is loaded.

use muse_embedder::model_dir::Precision;
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
pub struct Encoder {
    tokens: operators::Weights,
    dense: Linear,
    dense_bias: Tensor,
    // The layers after the sum have no bias. The first is two that read the same input.
    hidden_0_and_depth_1: Linear,
    hidden_1: Linear,
    hidden_2: Linear,
    depth_3: Linear,
    hidden_3: Linear,
}

/// `weight` is (out, in), as libtorch's linear wants it; ONNX has (in, out).
#[derive(Debug)]
struct Linear(Tensor);

impl Encoder {
    /// Takes the weights out of an ONNX graph.
    pub fn new(weights: &Weights<'_>, precision: Precision) -> Result<Encoder, EncoderError> {
        let kind = match precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
        };
        let dimension = DIMENSION as i64;
        let mut tokens = Tokens::new(table(weights.table()?, kind)?, kind);
        let part = |order: i64| format!("CNN_layers/ngram_order_{order}");
        let (mut projection, mut projection_bias) = (Vec::new(), Vec::new());
        for order in ORDERS {
            let dense = format!("{}/input_size_projection/dense", part(order));
            projection.push(transposed(weights, &format!("{dense}/kernel"), dimension, HIDDEN)?);
            projection_bias.push(vector(weights, &format!("{dense}/bias"), HIDDEN)?);
        }
        tokens.linear(&Tensor::f_cat(&projection, 0)?, &Tensor::f_cat(&projection_bias, 0)?)?;
        for order in ORDERS {
            let part = part(order);
            tokens.norm(&norm(weights, &part, HIDDEN)?, kind)?;
            for name in ["Conv", "Conv_1"] {
                let name = format!("{part}/Ngram-{order}-{name}");
                let weight = transposed(weights, &format!("{name}/weights"), order * HIDDEN, HIDDEN)?;
                tokens.linear(&weight, &vector(weights, &format!("{name}/bias"), HIDDEN)?)?;
            }
        }
        tokens.norm(&norm(weights, "CNN_layers", FEATURES)?, Kind::Float)?;
        let hidden = |names: &[&str], rows, columns| {
            let names = names.iter().map(|name| format!("DNN/ResidualHidden_{name}/kernel"));
            let parts =
                names.map(|name| transposed(weights, &name, rows, columns)).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, EncoderError>(Linear(Tensor::f_cat(&parts, 0)?.f_contiguous()?))
        };
        Ok(Encoder {
            tokens: tokens.weights,
            dense: Linear(
                transposed(weights, "CNN_layers/dense/kernel", FEATURES, dimension)?.f_contiguous()?,
            ),
            dense_bias: vector(weights, "CNN_layers/dense/bias", dimension)?,
            hidden_0_and_depth_1: hidden(&["0/dense", "1/AdjustDepth/projection"], dimension, BOTTLENECK)?,
            hidden_1: hidden(&["1/dense"], BOTTLENECK, BOTTLENECK)?,
            hidden_2: hidden(&["2/dense"], BOTTLENECK, dimension)?,
            depth_3: hidden(&["3/AdjustDepth/projection"], BOTTLENECK, dimension)?,
            hidden_3: hidden(&["3/dense"], dimension, dimension)?,
        })
    }

    /// `ids` int64 (T), `lengths` int64 (N) with sum T and none below 1; gives float32 (N, 512).
    pub fn forward(&self, ids: &Tensor, lengths: &Tensor) -> Result<Tensor, TchError> {
        self.finish(&operators::sum_features(ids, lengths, &self.tokens)?, lengths)
    }

    // sum_t(f @ D + d) / sqrt(n) = sum_t(f) @ D / sqrt(n) + d * sqrt(n), and then the last four layers.
    fn finish(&self, sums: &Tensor, lengths: &Tensor) -> Result<Tensor, TchError> {
        let root = as_kind(lengths, Kind::Float)?.f_sqrt()?.f_unsqueeze(1)?;
        let dense = self.dense.apply(sums)?;
        let y = dense.f_div(&root)?.f_add(&self.dense_bias.f_mul(&root)?)?;
        let both = self.hidden_0_and_depth_1.apply(&y)?.f_chunk(2, 1)?;
        let y0 = both[0].f_relu()?;
        let y1 = both[1].f_add(&self.hidden_1.apply(&y0)?)?.f_relu()?;
        let y2 = self.hidden_2.apply(&y1)?.f_relu()?;
        let z = self.depth_3.apply(&y1)?.f_add(&self.hidden_3.apply(&y2)?)?.f_tanh()?;
        let squares = z.f_mul(&z)?.f_sum_dim_intlist(&[1_i64][..], true, Kind::Float)?;
        z.f_div(&squares.f_clamp_min(1e-12)?.f_sqrt()?)
    }
}

impl Linear {
    // These rows are sentences, and libtorch gives them to MKL: oneDNN would make new kernels for every new number of rows.
    fn apply(&self, input: &Tensor) -> Result<Tensor, TchError> {
        input.f_linear(&self.0, None::<&Tensor>)
    }
}

/// The operator's weights in the making.
struct Tokens {
    kind: Kind,
    weights: operators::Weights,
}

impl Tokens {
    fn new(table: Vec<Tensor>, kind: Kind) -> Tokens {
        Tokens { kind, weights: operators::Weights { table, weights: Vec::new(), packed: Vec::new() } }
    }

    fn linear(&mut self, weight: &Tensor, bias: &Tensor) -> Result<(), TchError> {
        let natural = weight.f_to_kind(self.kind)?.f_contiguous()?;
        // No kernel computes in float16.
        if self.kind != Kind::Half {
            self.weights.packed.push(operators::packed(&natural)?);
            self.weights.packed.push(bias.shallow_clone());
        }
        self.weights.weights.push(natural);
        self.weights.weights.push(bias.f_to_kind(self.kind)?);
        Ok(())
    }

    fn norm(&mut self, gamma_and_beta: &[Tensor; 2], kind: Kind) -> Result<(), TchError> {
        for part in gamma_and_beta {
            if self.kind != Kind::Half {
                self.weights.packed.push(part.shallow_clone());
            }
            self.weights.weights.push(part.f_to_kind(kind)?);
        }
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

fn norm(weights: &Weights<'_>, name: &str, size: i64) -> Result<[Tensor; 2], EncoderError> {
    let part = |part| vector(weights, &format!("{name}/LayerNorm/{part}"), size);
    Ok([part("gamma")?, part("beta")?])
}

// `f_to_kind` names the tensor's device as well: it is traced as a copy to the CPU.
fn as_kind(tensor: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
    tensor.f_to_dtype(kind, false, false)
}

fn transposed(weights: &Weights<'_>, name: &str, rows: i64, columns: i64) -> Result<Tensor, EncoderError> {
    let values = weights.encoder(name, &[rows, columns])?;
    Ok(Tensor::f_from_slice(&values)?.f_view([rows, columns])?.f_transpose(0, 1)?)
}

fn vector(weights: &Weights<'_>, name: &str, size: i64) -> Result<Tensor, EncoderError> {
    Ok(Tensor::f_from_slice(&weights.encoder(name, &[size])?)?)
}
