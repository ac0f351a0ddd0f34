//! The kernels agree with a forward pass in float64 for batches of many shapes.

mod reference;

use std::{collections::HashMap, env, process::Command};

use muse_kernels::{PARAMETERS, PackError, PackedWeights, SCALE, TABLE, ZERO_POINT, kernel};
use muse_test_support::{Requirement, skip};
use tch::{Device, Kind, Tensor};

const VOCABULARY: i64 = 170;

/// Random parameters of a small model, with either form of the table, with values that `kind` can
/// represent.
fn parameters(kind: Kind, bytes: bool) -> HashMap<String, Tensor> {
    let floats = (Kind::Float, Device::Cpu);
    let representable = |values: Tensor| values.to_kind(kind).to_kind(Kind::Float);
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

fn assert_kernel_agrees(kind: Kind, bytes: bool, tolerance: f64) {
    let Some(name) = kernel(kind) else {
        let requirement = if kind == Kind::Float { Requirement::Avx2 } else { Requirement::Amx };
        skip(requirement, format_args!("there is no kernel for {kind:?} on this processor"));
        return;
    };
    eprintln!("{kind:?} by {name}");
    let parameters = parameters(kind, bytes);
    let packed = PackedWeights::pack(&parameters, kind).expect("they are complete");
    for lengths in batches() {
        let tokens: i64 = lengths.iter().sum();
        let ids: Vec<i64> = (0..tokens).map(|token| token * 31 % VOCABULARY).collect();
        let expected = reference::encode(&ids, &lengths, &parameters);
        let (ids, all) = (Tensor::from_slice(&ids), Tensor::from_slice(&lengths));
        for threads in [1, 3] {
            tch::set_num_threads(threads);
            let found = packed.encode(&ids, &all).expect("the kernel computes it");
            let difference = difference(&found, &expected);
            assert!(difference < tolerance, "{name}, {threads} threads, {lengths:?}: {difference}");
        }
    }
}

#[test]
fn float32_kernel_agrees_with_float64() {
    assert_kernel_agrees(Kind::Float, true, 5e-6);
    assert_kernel_agrees(Kind::Float, false, 5e-6);
}

/// On a processor with AVX-512 the previous test runs once more, in a process limited to AVX2.
#[test]
fn avx2_kernel_agrees_with_float64() {
    if kernel(Kind::Float) != Some("AVX-512") {
        skip(Requirement::Avx512, "this processor has no AVX-512");
        return;
    }
    let ran = Command::new(env::current_exe().expect("this is a program"))
        .args(["--exact", "float32_kernel_agrees_with_float64", "--nocapture"])
        .env("ATEN_CPU_CAPABILITY", "avx2")
        .output()
        .expect("it starts");
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && stderr.contains("by AVX2"), "{stderr}");
}

#[test]
fn bfloat16_kernel_agrees_with_float64() {
    // The kernel rounds the inputs of the matrix products to bfloat16.
    assert_kernel_agrees(Kind::BFloat16, true, 0.01);
    assert_kernel_agrees(Kind::BFloat16, false, 0.01);
}

#[test]
fn missing_parameter_is_an_error() {
    for name in ["dnn.3.weight", TABLE, ZERO_POINT] {
        let mut few = parameters(Kind::Float, true);
        few.remove(name);
        let error = PackedWeights::pack(&few, Kind::Float).expect_err("one is missing");
        assert!(matches!(error, PackError::Missing(missing) if missing == name), "{error}");
    }
}

#[test]
fn parameter_of_another_shape_is_an_error() {
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
        let error = PackedWeights::pack(&all, Kind::Float).expect_err("it has another shape");
        assert!(matches!(error, PackError::Unexpected { .. }), "{name}: {error}");
    }
}

#[test]
fn invalid_batch_is_an_error() {
    if kernel(Kind::Float).is_none() {
        skip(Requirement::Avx2, "there is no kernel for Float on this processor");
        return;
    }
    let packed = PackedWeights::pack(&parameters(Kind::Float, true), Kind::Float).expect("they are complete");
    for (ids, lengths) in [
        (&[1, 2][..], &[1][..]),
        (&[1, 2], &[1, 2]),
        (&[1, 2], &[3, -1]),
        (&[1, 2], &[2, 0]),
        (&[1, VOCABULARY], &[2]),
        (&[-1], &[1]),
    ] {
        let error = packed.encode(&Tensor::from_slice(ids), &Tensor::from_slice(lengths));
        assert!(error.is_err(), "{ids:?} {lengths:?}");
    }
}
