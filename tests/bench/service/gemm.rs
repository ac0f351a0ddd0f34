//! A plain matrix product, the reference of the forward pass.

use std::time::{Duration, Instant};

use muse_model::precision::Precision;
use tch::{Device, Kind, Tensor};

/// Tokens, inputs and outputs of the product: a layer over windows of five on a large batch.
const SHAPE: [i64; 3] = [4096, 1280, 256];

/// Two matrices of a precision.
pub(crate) struct Gemm {
    rows: Tensor,
    columns: Tensor,
    /// The columns as the weights of a convolution of width 1.
    kernel: Tensor,
    image: Tensor,
}

impl Gemm {
    /// Random matrices, because zeros can be faster and denormal numbers slower.
    pub(crate) fn new(precision: Precision) -> Self {
        let kind = match precision {
            // int8 is compared with the arithmetic of float32.
            Precision::F32 | Precision::Int8 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
        };
        let [rows, inner, columns] = SHAPE;
        let random = |shape: [i64; 2]| Tensor::rand(shape, (Kind::Float, Device::Cpu)).to_kind(kind);
        let (rows, columns) = (random([rows, inner]), random([inner, columns]));
        let kernel = columns.transpose(0, 1).contiguous().unsqueeze(-1).unsqueeze(-1);
        // One image in channels-last layout whose width is the rows.
        let image = rows.reshape([1, 1, -1, inner]).permute([0, 3, 1, 2]);
        Self { rows, columns, kernel, image }
    }

    /// FLOP/s of `matmul`.
    pub(crate) fn matmul(&self, duration: Duration) -> f64 {
        rate(duration, || self.rows.matmul(&self.columns))
    }

    /// FLOP/s of the same product as a convolution, which libtorch always computes with oneDNN.
    pub(crate) fn convolution(&self, duration: Duration) -> f64 {
        rate(duration, || self.image.conv2d(&self.kernel, None::<&Tensor>, 1, 0, 1, 1))
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
