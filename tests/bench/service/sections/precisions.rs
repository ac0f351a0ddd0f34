//! The forward pass in each precision, compared with that in f32.

use muse_model::precision::Precision;

use crate::{
    figures::Figures,
    forward::Forward,
    options::Options,
    report::{Report, Target, progress},
    workload::Texts,
};

/// Measures all of them alternately.
pub(crate) fn measure(
    options: &Options,
    report: &mut Report,
    texts: &Texts,
    f32: &Forward,
    others: &[Forward],
) {
    progress("the forward pass in each precision");
    let mut base = Figures::default();
    let mut rates = vec![Figures::default(); others.len()];
    for _ in 0..options.rounds {
        base.push(f32.rate(texts, options.duration()).sentences);
        for (forward, rates) in others.iter().zip(&mut rates) {
            rates.push(forward.rate(texts, options.duration()).sentences);
        }
    }
    for (forward, rates) in others.iter().zip(&rates) {
        report.precision = forward.precision().to_string();
        let name = format!("forward, {}, over f32, {}", forward.kernel(), f32.kernel());
        report.row(name, "times", minimum_over_f32(forward.kernel()), ratio(rates, &base));
    }
    let of = |precision| others.iter().position(|forward| forward.precision() == precision);
    if let (Some(bf16), Some(int8)) = (of(Precision::Bf16), of(Precision::Int8)) {
        let (bf16_kernel, int8_kernel) = (others[bf16].kernel(), others[int8].kernel());
        let target = if int8_kernel == "AMX-INT8" { Target::AtLeast(1.2) } else { Target::None };
        let name = format!("forward, {int8_kernel}, over bf16, {bf16_kernel}");
        report.row(name, "times", target, ratio(&rates[int8], &rates[bf16]));
    }
}

/// The quotient of each round.
fn ratio(rates: &Figures, base: &Figures) -> Figures {
    rates.iter().zip(base.iter()).map(|(rate, base)| rate / base).collect()
}

/// The target of a kernel.
fn minimum_over_f32(kernel: &str) -> Target {
    match kernel {
        "AVX512-VNNI" => Target::AtLeast(2.5),
        "AVX2" => Target::AtLeast(0.9),
        _ => Target::None,
    }
}
