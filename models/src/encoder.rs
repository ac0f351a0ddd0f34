//! The encoder's forward pass over a flat batch: sentences one after the other, never padded to each other.
//!
//! It is written to be traced into TorchScript, which asks three things of it. No size may be read out of a tensor into Rust,
//! or the example's sizes would be baked in: what depends on a size is computed by tensor operations. Every constant is made
//! before the tracing starts: one that is made inside is traced as zeros. And no operation may name a device, or the module
//! would run on that alone, wherever it is loaded.

use muse_embedder::model_dir::Precision;
use tch::{Device, Kind, TchError, Tensor};

use crate::{
    onnx::OnnxError,
    weights::{DIMENSION, SHARDS, Table, Weights},
};

const HIDDEN: i64 = 256;
const FEATURES: i64 = DIMENSION as i64 + 3 * HIDDEN;
/// Width of the narrow hidden layers.
const BOTTLENECK: i64 = 320;
const EPSILON: f64 = 1e-12;
/// Each n-gram order, and how many tokens to the left of its own a window begins.
const ORDERS: [(i64, i64); 3] = [(2, 0), (3, 1), (5, 2)];
/// The neighbours that the widest window reaches, and which of them is the token itself.
const REACH: [i64; 5] = [-2, -1, 0, 1, 2];
const CENTRE: i64 = 2;

/// Floating-point operations of the matrix products of a forward pass, two for each multiplication with its addition. All
/// else is left out.
#[must_use]
pub fn flops(tokens: usize, sentences: usize) -> f64 {
    let dimension = DIMENSION as i64;
    let windows: i64 = ORDERS.iter().map(|(order, _)| 2 * order * HIDDEN * HIDDEN).sum();
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
    kind: Kind,
    embedding: Embedding,
    projection: Linear,
    branches: Vec<Branch>,
    norm: Norm,
    neighbours: Tensor,
    outside: Tensor,
    dense: Linear,
    dense_bias: Tensor,
    // The layers after the sum have no bias. The first is two that read the same input.
    hidden_0_and_depth_1: Linear,
    hidden_1: Linear,
    hidden_2: Linear,
    depth_3: Linear,
    hidden_3: Linear,
}

#[derive(Debug)]
enum Embedding {
    Bytes { rows: Tensor, scales: Tensor, zero_points: Tensor },
    Floats(Tensor),
}

/// `weight` is (out, in), as libtorch's linear wants it; ONNX has (in, out).
#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

#[derive(Debug)]
struct Norm {
    gamma: Tensor,
    beta: Tensor,
}

/// One n-gram order: a LayerNorm of its projection, then two layers over windows.
#[derive(Debug)]
struct Branch {
    order: i64,
    left: i64,
    norm: Norm,
    layers: [Linear; 2],
}

impl Encoder {
    /// Takes the weights out of an ONNX graph.
    pub fn new(weights: &Weights<'_>, precision: Precision) -> Result<Encoder, EncoderError> {
        let kind = match precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
        };
        let dimension = DIMENSION as i64;
        let (mut projection, mut projection_bias) = (Vec::new(), Vec::new());
        let mut branches = Vec::new();
        for (order, left) in ORDERS {
            let part = format!("CNN_layers/ngram_order_{order}");
            let dense = format!("{part}/input_size_projection/dense");
            projection.push(transposed(weights, &format!("{dense}/kernel"), dimension, HIDDEN)?);
            projection_bias.push(vector(weights, &format!("{dense}/bias"), HIDDEN)?);
            let layer = |name| {
                let name = format!("{part}/Ngram-{order}-{name}");
                let weight = transposed(weights, &format!("{name}/weights"), order * HIDDEN, HIDDEN)?;
                let bias = vector(weights, &format!("{name}/bias"), HIDDEN)?;
                Ok::<_, EncoderError>(Linear::over_tokens(&weight, &bias, kind)?)
            };
            branches.push(Branch {
                order,
                left,
                norm: Norm::new(weights, &part, HIDDEN, kind)?,
                layers: [layer("Conv")?, layer("Conv_1")?],
            });
        }
        let hidden = |names: &[&str], rows, columns| {
            let names = names.iter().map(|name| format!("DNN/ResidualHidden_{name}/kernel"));
            let parts =
                names.map(|name| transposed(weights, &name, rows, columns)).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, EncoderError>(Linear::new(&Tensor::f_cat(&parts, 0)?, None, Kind::Float)?)
        };
        Ok(Encoder {
            kind,
            embedding: Embedding::new(weights.table()?, kind)?,
            projection: Linear::over_tokens(
                &Tensor::f_cat(&projection, 0)?,
                &Tensor::f_cat(&projection_bias, 0)?,
                kind,
            )?,
            branches,
            norm: Norm::new(weights, "CNN_layers", FEATURES, Kind::Float)?,
            neighbours: Tensor::f_from_slice(&REACH)?,
            outside: Tensor::f_zeros([1, HIDDEN], (kind, Device::Cpu))?,
            dense: Linear::new(
                &transposed(weights, "CNN_layers/dense/kernel", FEATURES, dimension)?,
                None,
                Kind::Float,
            )?,
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
        let ends = lengths.f_cumsum(0, Kind::Int64)?;
        let starts = ends.f_sub(lengths)?;
        let positions = ids.f_ones_like()?.f_cumsum(0, Kind::Int64)?.f_sub_scalar(1)?;
        let windows = self.neighbour_rows(&positions, &starts, &ends, lengths)?;

        let embedded = self.embedding.gather(ids)?;
        let projected = self.projection.apply(&as_kind(&embedded, self.kind)?)?;
        let mut features = vec![embedded];
        for (branch, part) in self.branches.iter().zip(projected.f_chunk(ORDERS.len() as i64, 1)?) {
            features.push(branch.forward(&part, &windows, &self.outside)?);
        }
        // Concatenating with the float32 embeddings makes the whole float32, which the sum needs.
        let normed = self.norm.apply(&Tensor::f_cat(&features, 1)?)?;
        let no_weights = None::<&Tensor>;
        // A bag is a sentence; mode 0 is the sum. Unlike segment_reduce it uses all threads.
        let (sums, ..) =
            Tensor::f_embedding_bag(&normed, &positions, &starts, false, 0, false, no_weights, false)?;
        self.finish(&sums, lengths)
    }

    // For each token the rows of its neighbours, (T, 5); a neighbour in another sentence is the row after the last, which
    // is zero.
    fn neighbour_rows(
        &self,
        positions: &Tensor,
        starts: &Tensor,
        ends: &Tensor,
        lengths: &Tensor,
    ) -> Result<Tensor, TchError> {
        let sentence = Tensor::f_repeat_interleave(lengths, None)?;
        let first = starts.f_index_select(0, &sentence)?.f_unsqueeze(1)?;
        let end = ends.f_index_select(0, &sentence)?.f_unsqueeze(1)?;
        let rows = positions.f_unsqueeze(1)?.f_add(&self.neighbours)?;
        let inside = rows.f_ge_tensor(&first)?.f_logical_and(&rows.f_lt_tensor(&end)?)?;
        rows.f_where_self(&inside, &ends.f_slice(0, -1, None, 1)?)
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

impl Embedding {
    fn new(table: Table, kind: Kind) -> Result<Embedding, TchError> {
        let shape = |values: usize| [(values / DIMENSION) as i64, DIMENSION as i64];
        Ok(match table {
            Table::Bytes { rows, scales, zero_points } => Embedding::Bytes {
                rows: Tensor::f_from_slice(&rows)?.f_view(shape(rows.len()))?,
                scales: Tensor::f_from_slice(&scales)?.f_unsqueeze(1)?,
                zero_points: Tensor::f_from_slice(&zero_points)?.f_unsqueeze(1)?,
            },
            Table::Floats(rows) => {
                Embedding::Floats(Tensor::f_from_slice(&rows)?.f_view(shape(rows.len()))?.f_to_kind(kind)?)
            }
        })
    }

    // The rows of the ids, in float32.
    fn gather(&self, ids: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Embedding::Floats(rows) => as_kind(&rows.f_index_select(0, ids)?, Kind::Float),
            Embedding::Bytes { rows, scales, zero_points } => {
                let shard = ids.f_remainder(SHARDS as i64)?;
                let mut values = as_kind(&rows.f_index_select(0, ids)?, Kind::Float)?;
                let _ = values.f_sub_(&zero_points.f_index_select(0, &shard)?)?;
                values.f_mul_(&scales.f_index_select(0, &shard)?)
            }
        }
    }
}

impl Linear {
    fn new(weight: &Tensor, bias: Option<&Tensor>, kind: Kind) -> Result<Linear, TchError> {
        let bias = bias.map(|bias| bias.f_to_kind(kind)).transpose()?;
        Ok(Linear { weight: weight.f_to_kind(kind)?.f_contiguous()?, bias })
    }

    /// For rows that are tokens. In float32 it becomes a convolution over one element, which is the same sum: libtorch gives
    /// a float32 linear to MKL, which on processors other than Intel's runs at half the speed of oneDNN, and a convolution
    /// to oneDNN. The lower precisions are oneDNN's either way.
    ///
    /// Rows that are sentences stay with MKL, because oneDNN makes new kernels for every new number of rows. The embedder
    /// rounds the number of tokens up to a few sizes, but not that of sentences.
    fn over_tokens(weight: &Tensor, bias: &Tensor, kind: Kind) -> Result<Linear, TchError> {
        let mut linear = Linear::new(weight, Some(bias), kind)?;
        if kind == Kind::Float {
            linear.weight = linear.weight.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
        }
        Ok(linear)
    }

    fn apply(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let [_, inputs, _, _] = self.weight.size()[..] else {
            return input.f_linear(&self.weight, self.bias.as_ref());
        };
        // The rows are the width of one picture whose channels lie together, (1, inputs, 1, T), without a copy.
        let picture = input.f_reshape([1, 1, -1, inputs])?.f_permute([0, 3, 1, 2])?;
        let (once, none) = ([1_i64, 1], [0_i64, 0]);
        // On a GPU a plain conv2d may round to TF32; spelt out, it may not.
        let (transposed, benchmark, deterministic, cudnn, tf32) = (false, false, false, true, false);
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        let output = picture.f_internal_convolution(
            weight,
            bias,
            once,
            none,
            once,
            transposed,
            none,
            1,
            benchmark,
            deterministic,
            cudnn,
            tf32,
        )?;
        output.f_permute([0, 2, 3, 1])?.f_flatten(0, 2)
    }
}

impl Norm {
    fn new(weights: &Weights<'_>, name: &str, size: i64, kind: Kind) -> Result<Norm, EncoderError> {
        let part = |part| {
            Ok::<_, EncoderError>(
                vector(weights, &format!("{name}/LayerNorm/{part}"), size)?.f_to_kind(kind)?,
            )
        };
        Ok(Norm { gamma: part("gamma")?, beta: part("beta")? })
    }

    fn apply(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let size = self.gamma.size();
        let (output, ..) = input.f_native_layer_norm(size, Some(&self.gamma), Some(&self.beta), EPSILON)?;
        Ok(output)
    }
}

impl Branch {
    fn forward(&self, projected: &Tensor, windows: &Tensor, outside: &Tensor) -> Result<Tensor, TchError> {
        let rows = windows.f_narrow(1, CENTRE - self.left, self.order)?.f_reshape([-1])?;
        let mut hidden = self.norm.apply(projected)?;
        for layer in &self.layers {
            let padded = Tensor::f_cat(&[&hidden, outside], 0)?;
            let window = padded.f_index_select(0, &rows)?.f_reshape([-1, self.order * HIDDEN])?;
            hidden = layer.apply(&window)?.f_relu_()?.f_add_(&hidden)?;
        }
        Ok(hidden)
    }
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
