//! The kernels with the weights of the model: they return the same bits on every processor, and the
//! int8 kernels use the integers of the source and find the same sentences.

mod common;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    path::Path,
};

use muse_kernels::{Kernel, PackedWeights, QuantizedMatrix, quantize};
use muse_model::model_dir::MODEL_FILE;
use muse_models::{convert::convert, golden};
use muse_test_support::{Requirement, skip};
use sha2::{Digest, Sha256};
use tch::{CModule, Device, Kind, Tensor};

use common::{golden_ids, onnx_model, onnx_path};

/// The sha256 of the vectors of the golden sentences, in order, as little-endian float32. A change
/// of a kernel that changes them changes the vectors of all users: think twice.
const GOLDEN_BITS: [(Kind, &str); 2] = [
    (Kind::Float, "e618bb7de7befd7ff09080d0f56bd9df4d95dcc049b1496b6b740db6e7d7cc56"),
    (Kind::Int8, "49fbf5ded41e49ea34b793d9acdd9ef2ba944e8c33d48b1cd85ae024acda0dc4"),
];
/// The least share of sentences whose nearest sentence is the same in int8.
const SAME_NEIGHBOUR: f64 = 0.98;

fn parameters(folder: &Path) -> HashMap<String, Tensor> {
    let out = folder.join("model");
    convert(&onnx_path(), &out).expect("it converts");
    let module = CModule::load_on_device(out.join(MODEL_FILE), Device::Cpu).expect("it loads");
    module.named_parameters().expect("it has parameters").into_iter().collect()
}

fn kernels(kind: Kind) -> Vec<Kernel> {
    Kernel::supported().into_iter().filter(|kernel| kernel.kind() == kind).collect()
}

/// The vectors of sentences in batches, (N, 512).
fn vectors(packed: &PackedWeights, sentences: &[Vec<i64>], batch: usize) -> Tensor {
    let embed = |sentences: &[Vec<i64>]| {
        let lengths: Vec<i64> = sentences.iter().map(|ids| ids.len() as i64).collect();
        let (ids, lengths) = (Tensor::from_slice(&sentences.concat()), Tensor::from_slice(&lengths));
        packed.encode(&ids, &lengths).expect("it computes")
    };
    Tensor::cat(&sentences.chunks(batch).map(embed).collect::<Vec<_>>(), 0)
}

/// The row of one sentence of each length.
fn rows_of_each_length(sentences: &[Vec<i64>]) -> Vec<i64> {
    let rows: BTreeMap<usize, i64> = sentences.iter().map(Vec::len).zip(0..).collect();
    rows.into_values().collect()
}

fn sha256(vectors: &Tensor) -> String {
    let mut bytes = vec![0; vectors.numel() * 4];
    vectors.view_dtype(Kind::Uint8).copy_data_u8(&mut bytes, vectors.numel() * 4);
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn golden_vectors_have_the_same_bits_with_each_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let parameters = parameters(folder.path());
    let sentences = golden_ids();
    let rows = rows_of_each_length(&sentences);
    let of_each_length: Vec<Vec<i64>> = rows.iter().map(|&row| sentences[row as usize].clone()).collect();
    for (kind, expected) in GOLDEN_BITS {
        if kernels(kind).is_empty() {
            skip(Requirement::Avx2, format_args!("there is no kernel for {kind:?} on this processor"));
        }
        for kernel in kernels(kind) {
            let packed = PackedWeights::pack(&parameters, kernel).unwrap();
            let all = vectors(&packed, &sentences, sentences.len());
            assert_eq!(sha256(&all), expected, "{kind:?}, {}", kernel.name());
            // The other sentences of a batch do not matter.
            let expected = sha256(&all.index_select(0, &Tensor::from_slice(&rows)));
            for batch in [1, 7, rows.len()] {
                let found = sha256(&vectors(&packed, &of_each_length, batch));
                assert_eq!(found, expected, "{kind:?}, {}, batches of {batch}", kernel.name());
            }
        }
    }
}

#[test]
fn int8_weights_are_the_integers_of_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let parameters = parameters(folder.path());
    let graph = onnx_model().graph.unwrap();
    let source = |name: &str, inputs: i64| {
        let name = format!("StatefulPartitionedCall/EncoderDNN/CNN_layers/{name}:0_quantized");
        let tensor = graph.initializer.iter().find(|tensor| tensor.name == name).expect("it is there");
        Tensor::from_slice(&tensor.small_integers().unwrap()).view([inputs, 256]).transpose(0, 1)
    };
    let projections = [2, 3, 5]
        .map(|order| source(&format!("ngram_order_{order}/input_size_projection/dense/kernel"), 512));
    let mut expected = vec![("cnn.projection.weight".to_owned(), Tensor::cat(&projections, 0))];
    for order in [2, 3, 5] {
        for (index, layer) in ["Conv", "Conv_1"].into_iter().enumerate() {
            let integers = source(&format!("ngram_order_{order}/Ngram-{order}-{layer}/weights"), order * 256);
            expected.push((format!("cnn.{order}.conv.{index}.weight"), integers));
        }
    }
    for (name, expected) in expected {
        let QuantizedMatrix { codes, scales } = quantize(&parameters[&name]).unwrap();
        assert!(codes.to_kind(Kind::Int16).equal(&expected), "{name}");
        let restored = codes.to_kind(Kind::Float) * scales.unsqueeze(1);
        let error = (restored - &parameters[&name]).abs().max().double_value(&[]);
        assert!(error < 1e-6, "{name}: {error}");
    }
}

#[test]
fn float32_weights_are_quantised_per_output() {
    let weight = Tensor::randn([512, 512], (Kind::Float, Device::Cpu))
        * Tensor::rand([512, 1], (Kind::Float, Device::Cpu)).pow_tensor_scalar(4);
    let QuantizedMatrix { codes, scales } = quantize(&weight).unwrap();
    let largest = codes.to_kind(Kind::Float).abs().amax([1].as_slice(), false);
    assert_eq!((largest.min().double_value(&[]), largest.max().double_value(&[])), (127.0, 127.0));
    let error = (codes.to_kind(Kind::Float) * scales.unsqueeze(1) - &weight).abs() / scales.unsqueeze(1);
    assert!(error.max().double_value(&[]) <= 0.5001);
    // A matrix of zeros has no scale.
    let QuantizedMatrix { codes, scales } = quantize(&weight.zeros_like()).unwrap();
    assert_eq!((codes.count_nonzero(None).int64_value(&[]), scales.max().double_value(&[])), (0, 0.0));
}

/// The row of the nearest other row, for each row.
fn nearest(vectors: &Tensor) -> Tensor {
    let similarity = vectors.matmul(&vectors.transpose(0, 1));
    (similarity - Tensor::eye(vectors.size()[0], (Kind::Float, Device::Cpu)) * 4.0).argmax(1, false)
}

#[test]
fn int8_finds_the_neighbours_that_f32_finds() {
    let (Some(float), Some(int8)) =
        (kernels(Kind::Float).first().copied(), kernels(Kind::Int8).first().copied())
    else {
        skip(Requirement::Avx2, "there is no kernel for int8 on this processor");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let parameters = parameters(folder.path());
    let sentences = golden::sentences().unwrap();
    let ordinary: Vec<i64> = (0..)
        .zip(&sentences)
        .filter(|(_, sentence)| !sentence.kind.starts_with("hard:"))
        .map(|(row, _)| row)
        .collect();
    let [float, int8] = [float, int8].map(|kernel| {
        let packed = PackedWeights::pack(&parameters, kernel).unwrap();
        let vectors = vectors(&packed, &golden_ids(), 50);
        nearest(&vectors.index_select(0, &Tensor::from_slice(&ordinary)))
    });
    let same = float.eq_tensor(&int8).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
    println!("{:.1} % of {} sentences have the same nearest sentence", 100.0 * same, ordinary.len());
    assert!(same >= SAME_NEIGHBOUR, "{same}");
}
