//! The kernels agree with a forward pass in float64 for batches of many shapes.

mod reference;

use std::collections::HashMap;

use muse_kernels::{Kernel, PARAMETERS, PackError, PackedWeights, SCALE, TABLE, ZERO_POINT};
use muse_test_support::{Requirement, skip};
use tch::{Device, Kind, Tensor};

const VOCABULARY: i64 = 170;

/// Random parameters of a small model, with either form of the table, with values that `kind` can
/// represent.
fn parameters(kind: Kind, bytes: bool) -> HashMap<String, Tensor> {
    let floats = (Kind::Float, Device::Cpu);
    let representable = |values: Tensor| match kind {
        Kind::Int8 => values,
        kind => values.to_kind(kind).to_kind(Kind::Float),
    };
    let mut all = HashMap::new();
    if bytes {
        all.insert(TABLE.to_owned(), Tensor::randint(256, [VOCABULARY, 512], (Kind::Uint8, Device::Cpu)));
        all.insert(SCALE.to_owned(), Tensor::rand([17, 1], floats) * 0.01 + 0.005);
        all.insert(ZERO_POINT.to_owned(), Tensor::randint_low(100, 150, [17, 1], floats));
    } else {
        all.insert(TABLE.to_owned(), representable(Tensor::randn([VOCABULARY, 512], floats)));
    }
    for (name, shape) in PARAMETERS {
        let values = match shape {
            [_, inputs] => representable(Tensor::randn(shape, floats) / (*inputs as f64).sqrt()),
            _ if name.ends_with("norm.weight") => Tensor::randn(shape, floats) * 0.1 + 1.0,
            _ => Tensor::randn(shape, floats) * 0.1,
        };
        all.insert(name.to_owned(), values);
    }
    all
}

fn batches() -> Vec<Vec<i64>> {
    let mixed = (0..200).map(|index| 1 + index * index % 47).collect();
    vec![
        vec![1],
        vec![2],
        vec![12],
        vec![1; 40],
        vec![1, 2, 3, 4, 5],
        vec![300, 1, 31, 32, 33],
        vec![2; 257],
        mixed,
    ]
}

/// The relative difference (Frobenius norm) of two matrices. It sums up thousands of rounding
/// errors, so it hardly depends on the random weights, unlike the maximum.
fn difference(one: &Tensor, other: &Tensor) -> f64 {
    let length = |tensor: &Tensor| tensor.norm().double_value(&[]);
    length(&(one - other)) / length(other)
}

fn kernels(kind: Kind) -> impl Iterator<Item = Kernel> {
    Kernel::supported().into_iter().filter(move |kernel| kernel.kind() == kind)
}

/// Reports the kernels that this processor does not support.
fn report_missing(kind: Kind, expected: &[(&str, Requirement)]) {
    let names: Vec<&str> = kernels(kind).map(Kernel::name).collect();
    eprintln!("kernels: {names:?}");
    for (name, requirement) in expected {
        if !names.contains(name) {
            skip(*requirement, format_args!("this processor does not support the kernel {name}"));
        }
    }
}

fn assert_kernels_agree(kind: Kind, bytes: bool, tolerance: f64) {
    let parameters = parameters(kind, bytes);
    for lengths in batches() {
        let tokens: i64 = lengths.iter().sum();
        let ids: Vec<i64> = (0..tokens).map(|token| token * 31 % VOCABULARY).collect();
        let expected = reference::encode(&ids, &lengths, &parameters);
        let (ids, all) = (Tensor::from_slice(&ids), Tensor::from_slice(&lengths));
        let mut bits: Option<Tensor> = None;
        for kernel in kernels(kind) {
            let packed = PackedWeights::pack(&parameters, kernel).expect("they are complete");
            let name = kernel.name();
            for threads in [1, 3] {
                tch::set_num_threads(threads);
                let found = packed.encode(&ids, &all).expect("the kernel computes it");
                let difference = difference(&found, &expected);
                assert!(difference < tolerance, "{name}, {threads} threads, {lengths:?}: {difference}");
                let first = bits.get_or_insert_with(|| found.shallow_clone());
                assert!(found.equal(first), "{name}, {threads} threads, {lengths:?}: other bits");
            }
        }
    }
}

#[test]
fn float32_kernels_agree_with_float64_and_bit_by_bit() {
    report_missing(Kind::Float, &[("AVX-512", Requirement::Avx512), ("AVX2", Requirement::Avx2)]);
    assert_kernels_agree(Kind::Float, true, 5e-6);
    assert_kernels_agree(Kind::Float, false, 5e-6);
}

#[test]
fn bfloat16_kernel_agrees_with_float64() {
    if kernels(Kind::BFloat16).next().is_none() {
        skip(Requirement::Amx, "there is no kernel for BFloat16 on this processor");
        return;
    }
    // The kernel rounds the inputs of the matrix products to bfloat16.
    assert_kernels_agree(Kind::BFloat16, true, 0.01);
    assert_kernels_agree(Kind::BFloat16, false, 0.01);
}

#[test]
fn int8_kernels_agree_with_float64_and_bit_by_bit() {
    let expected = [
        ("AMX-INT8", Requirement::Amx),
        ("AVX512-VNNI", Requirement::Avx512Vnni),
        ("AVX-VNNI", Requirement::AvxVnni),
        ("AVX2", Requirement::Avx2),
    ];
    report_missing(Kind::Int8, &expected);
    // Random weights lose more than those of the model.
    assert_kernels_agree(Kind::Int8, true, 0.05);
    assert_kernels_agree(Kind::Int8, false, 0.05);
}

#[test]
fn extreme_weights_give_unit_vectors() {
    // tanh of values of all magnitudes, up to 1 and -1. Large weights multiply rounding errors, too.
    for scale in [1e-6, 1.0, 1e3, 1e6] {
        let mut parameters = parameters(Kind::Float, true);
        let last = parameters.get_mut("dnn.3.weight").expect("it is there");
        *last = &*last * scale;
        let expected = reference::encode(&[1, 5, 2], &[3], &parameters);
        for kernel in kernels(Kind::Float) {
            let packed = PackedWeights::pack(&parameters, kernel).expect("they are complete");
            let found = packed.encode(&Tensor::from_slice(&[1_i64, 5, 2]), &Tensor::from_slice(&[3_i64]));
            let difference = difference(&found.expect("it computes"), &expected);
            assert!(difference < 1e-4, "{}, {scale}: {difference}", kernel.name());
        }
    }
}

fn any_kernel() -> Option<Kernel> {
    let kernel = kernels(Kind::Float).next();
    if kernel.is_none() {
        skip(Requirement::Avx2, "there is no kernel for Float on this processor");
    }
    kernel
}

#[test]
fn missing_parameter_is_an_error() {
    let Some(kernel) = any_kernel() else { return };
    for name in ["dnn.3.weight", TABLE, ZERO_POINT] {
        let mut few = parameters(Kind::Float, true);
        few.remove(name);
        let error = PackedWeights::pack(&few, kernel).expect_err("one is missing");
        assert!(matches!(error, PackError::Missing(missing) if missing == name), "{error}");
    }
}

#[test]
fn parameter_of_another_shape_is_an_error() {
    let Some(kernel) = any_kernel() else { return };
    let floats = (Kind::Float, Device::Cpu);
    for (name, wrong) in [
        ("dense.bias", Tensor::zeros([511], floats)),
        ("cnn.3.conv.1.weight", Tensor::zeros([768, 256], floats)),
        ("norm.weight", Tensor::zeros([1280], (Kind::Int, Device::Cpu))),
        (TABLE, Tensor::zeros([VOCABULARY, 511], floats)),
        (TABLE, Tensor::zeros([VOCABULARY, 512], (Kind::Int8, Device::Cpu))),
        (SCALE, Tensor::zeros([0, 1], floats)),
        (ZERO_POINT, Tensor::zeros([16, 1], floats)),
        (ZERO_POINT, Tensor::zeros([17, 1], (Kind::Double, Device::Cpu))),
    ] {
        let mut all = parameters(Kind::Float, true);
        all.insert(name.to_owned(), wrong);
        let error = PackedWeights::pack(&all, kernel).expect_err("it has another shape");
        assert!(matches!(error, PackError::Unexpected { .. }), "{name}: {error}");
    }
}

#[test]
fn invalid_batch_is_an_error() {
    let Some(kernel) = any_kernel() else { return };
    let packed = PackedWeights::pack(&parameters(Kind::Float, true), kernel).expect("they are complete");
    for (ids, lengths) in [
        (&[1, 2][..], &[1][..]),
        (&[1, 2], &[1, 2]),
        (&[1, 2], &[3, -1]),
        (&[1, 2], &[2, 0]),
        (&[1, VOCABULARY], &[2]),
        (&[-1], &[1]),
        (&[1], &[]),
    ] {
        let error = packed.encode(&Tensor::from_slice(ids), &Tensor::from_slice(lengths));
        assert!(error.is_err(), "{ids:?} {lengths:?}");
    }
}
