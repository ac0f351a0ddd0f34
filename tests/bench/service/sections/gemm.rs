//! The forward pass over a plain matrix product.

use muse_model::precision::Precision;

use super::Bench;
use crate::{
    figures::Figures,
    forward::Forward,
    gemm::Gemm,
    report::{Target, progress},
};

/// Measures both alternately.
pub(crate) fn measure(bench: &mut Bench<'_>, forward: &Forward) {
    progress("forward and GEMM");
    let gemm = Gemm::new(bench.precision);
    let duration = bench.options.duration();
    let [mut ratio, mut over_convolution, mut rate, mut matmul, mut convolution] = <[Figures; 5]>::default();
    for _ in 0..bench.options.rounds {
        // Short turns, so that other load on the machine affects all three equally.
        let product = gemm.matmul(duration / 2);
        let as_convolution = gemm.convolution(duration / 2);
        let pass = forward.rate(&bench.workload.texts, duration).flops;
        ratio.push(pass / product);
        over_convolution.push(pass / as_convolution);
        rate.push(pass / 1e9);
        matmul.push(product / 1e9);
        convolution.push(as_convolution / 1e9);
    }
    let target = bench.at_least(&[(Precision::F32, 0.80), (Precision::Bf16, 0.50)]);
    bench.report.row("forward over GEMM, FLOP/s", "", target, ratio);
    bench.report.row("forward over the same GEMM as a convolution", "", Target::None, over_convolution);
    bench.report.row("forward", "GFLOP/s", Target::None, rate);
    bench.report.row("GEMM 4096x1280 @ 1280x256 (`matmul`)", "GFLOP/s", Target::None, matmul);
    bench.report.row("the same GEMM as a 1x1 convolution (oneDNN)", "GFLOP/s", Target::None, convolution);
}
