//! The plain matrix product that the forward pass is measured by.

use std::time::{Duration, Instant};

use muse_model::model_dir::Precision;
use tch::{Device, Kind, Tensor};

/// Tokens, inputs and outputs of the product: a layer over windows of five on a large batch.
const SHAPE: [i64; 3] = [4096, 1280, 256];

/// Two matrices of a precision.
pub(crate) struct Gemm {
    rows: Tensor,
    columns: Tensor,
    /// The columns as the weights of a convolution over one element.
    kernel: Tensor,
    picture: Tensor,
}

impl Gemm {
    /// Random matrices: zeros could be multiplied faster, and denormal numbers slower.
    pub(crate) fn new(precision: Precision) -> Self {
        let kind = match precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
        };
        let [rows, inner, columns] = SHAPE;
        let random = |shape: [i64; 2]| Tensor::rand(shape, (Kind::Float, Device::Cpu)).to_kind(kind);
        let (rows, columns) = (random([rows, inner]), random([inner, columns]));
        let kernel = columns.transpose(0, 1).contiguous().unsqueeze(-1).unsqueeze(-1);
        // The rows are the width of one picture whose channels lie together.
        let picture = rows.reshape([1, 1, -1, inner]).permute([0, 3, 1, 2]);
        Self { rows, columns, kernel, picture }
    }

    /// Floating-point operations a second of `matmul`.
    pub(crate) fn matmul(&self, duration: Duration) -> f64 {
        rate(duration, || self.rows.matmul(&self.columns))
    }

    /// The same of the same product as a convolution, which libtorch always gives to oneDNN.
    pub(crate) fn convolution(&self, duration: Duration) -> f64 {
        rate(duration, || self.picture.conv2d(&self.kernel, None::<&Tensor>, 1, 0, 1, 1))
    }
}

fn rate(duration: Duration, product: impl Fn() -> Tensor) -> f64 {
    let _no_grad = tch::no_grad_guard();
    let _ = product();
    let (started, mut times) = (Instant::now(), 0);
    while started.elapsed() < duration {
        let _ = product();
        times += 1;
    }
    let flops = 2 * SHAPE.iter().product::<i64>() * times;
    flops as f64 / started.elapsed().as_secs_f64()
}
