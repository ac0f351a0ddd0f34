//! The kernels agree with libtorch's operators for batches of many shapes.

use std::{env, process::Command};

use muse_operators::{Weights, encode, kernel, packed};
use muse_test_support::{Requirement, skip};
use tch::{Device, Kind, Tensor};

const VOCABULARY: i64 = 170;

/// A small model of random weights, with either form of the table.
fn weights(kind: Kind, bytes: bool) -> Weights {
    let floats = (Kind::Float, Device::Cpu);
    let table = if bytes {
        let rows = Tensor::randint(256, [VOCABULARY, 512], (Kind::Uint8, Device::Cpu));
        let scales = Tensor::rand([17, 1], floats) * 0.01 + 0.005;
        vec![rows, scales, Tensor::randint_low(100, 150, [17, 1], floats)]
    } else {
        vec![Tensor::randn([VOCABULARY, 512], floats).to_kind(kind)]
    };
    let mut all = Weights { table, weights: Vec::new(), packed: Vec::new() };
    // The kernels' weights have one data type, libtorch's have two.
    let matrix = |all: &mut Weights, outputs: i64, inputs: i64, natural: Kind| {
        let weight = (Tensor::randn([outputs, inputs], floats) / (inputs as f64).sqrt()).to_kind(kind);
        all.packed.push(packed(&weight).expect("it divides"));
        all.weights.push(weight.to_kind(natural));
    };
    let vector = |all: &mut Weights, size: i64, centre: f64, natural: Kind| {
        let values = (Tensor::randn([size], floats) * 0.1 + centre).to_kind(natural);
        all.packed.push(values.to_kind(Kind::Float));
        all.weights.push(values);
    };
    matrix(&mut all, 768, 512, kind);
    vector(&mut all, 768, 0.0, kind);
    for order in [2, 3, 5] {
        vector(&mut all, 256, 1.0, kind);
        vector(&mut all, 256, 0.0, kind);
        for _ in 0..2 {
            matrix(&mut all, 256, order * 256, kind);
            vector(&mut all, 256, 0.0, kind);
        }
    }
    vector(&mut all, 1280, 1.0, Kind::Float);
    vector(&mut all, 1280, 0.0, Kind::Float);
    matrix(&mut all, 512, 1280, Kind::Float);
    vector(&mut all, 512, 0.0, Kind::Float);
    for (outputs, inputs) in [(320, 512), (320, 832), (512, 320), (512, 832)] {
        matrix(&mut all, outputs, inputs, Kind::Float);
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
    let by_kernel = weights(kind, bytes);
    let shared = |tensors: &[Tensor]| tensors.iter().map(Tensor::shallow_clone).collect();
    let by_libtorch =
        Weights { table: shared(&by_kernel.table), weights: shared(&by_kernel.weights), packed: Vec::new() };
    for lengths in batches() {
        let tokens: i64 = lengths.iter().sum();
        let ids = Tensor::from_slice(&(0..tokens).map(|token| token * 31 % VOCABULARY).collect::<Vec<_>>());
        let all = Tensor::from_slice(&lengths);
        let expected = encode(&ids, &all, &by_libtorch).expect("libtorch computes it");
        for threads in [1, 3] {
            tch::set_num_threads(threads);
            let found = encode(&ids, &all, &by_kernel).expect("the kernel computes it");
            let difference = difference(&found, &expected);
            assert!(difference < tolerance, "{name}, {threads} threads, {lengths:?}: {difference}");
        }
    }
}

#[test]
fn float32_kernel_agrees_with_libtorch() {
    assert_kernel_agrees(Kind::Float, true, 5e-6);
    assert_kernel_agrees(Kind::Float, false, 5e-6);
}

/// On a processor with AVX-512 the previous test runs once more, in a process limited to AVX2.
#[test]
fn avx2_kernel_agrees_with_libtorch() {
    if kernel(Kind::Float) != Some("AVX-512") {
        skip(Requirement::Avx512, "this processor has no AVX-512");
        return;
    }
    let ran = Command::new(env::current_exe().expect("this is a program"))
        .args(["--exact", "float32_kernel_agrees_with_libtorch", "--nocapture"])
        .env("ATEN_CPU_CAPABILITY", "avx2")
        .output()
        .expect("it starts");
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && stderr.contains("by AVX2"), "{stderr}");
}

#[test]
fn bfloat16_kernel_agrees_with_libtorch() {
    // libtorch rounds to bfloat16 after each step, the kernel does not.
    assert_kernel_agrees(Kind::BFloat16, true, 0.01);
    assert_kernel_agrees(Kind::BFloat16, false, 0.01);
}

#[test]
fn missing_weight_is_an_error() {
    let mut few = weights(Kind::Float, true);
    few.weights.pop();
    let error = encode(&Tensor::from_slice(&[1_i64]), &Tensor::from_slice(&[1_i64]), &few);
    assert!(error.expect_err("one is missing").to_string().contains("there are 28 weights"));
}

#[test]
fn invalid_batch_is_an_error() {
    if kernel(Kind::Float).is_none() {
        skip(Requirement::Avx2, "there is no kernel for Float on this processor");
        return;
    }
    let weights = weights(Kind::Float, true);
    for (ids, lengths) in [
        (&[1, 2][..], &[1][..]),
        (&[1, 2], &[1, 2]),
        (&[1, 2], &[3, -1]),
        (&[1, 2], &[2, 0]),
        (&[1, VOCABULARY], &[2]),
        (&[-1], &[1]),
    ] {
        let error = encode(&Tensor::from_slice(ids), &Tensor::from_slice(lengths), &weights);
        assert!(error.is_err(), "{ids:?} {lengths:?}");
    }
}
