//! Helpers of the tests of conversions.

#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses some of them")]

pub(crate) mod saved_model;
pub(crate) mod table;

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use muse_model::{
    inference::{DIMENSION, Model},
    model_dir::ModelDir,
    precision::Precision,
};
use muse_models::{
    convert::{ConversionOutcome, convert},
    onnx::{NodeProto, TensorProto, data_type},
};
use prost::Message;
use tch::Device;

/// `onnx.ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelProto {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<GraphProto>,
}

/// `onnx.GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<TensorProto>,
}

/// The ONNX export that `fetch.py` downloads.
pub(crate) fn onnx_path() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache"))).unwrap_or_default();
    let usual = cache.join("muse/onnx/universal-sentence-encoder-multilingual-3-int8.onnx");
    let path = env::var_os("MUSE_ONNX").map_or(usual, PathBuf::from);
    assert!(path.is_file(), "there is no ONNX export at {}: run `make model`", path.display());
    path
}

/// The export, parsed.
pub(crate) fn onnx_model() -> ModelProto {
    ModelProto::decode(fs::read(onnx_path()).expect("the export is readable").as_slice()).expect("it is ONNX")
}

/// The SentencePiece model of an export.
pub(crate) fn sentencepiece_model(model: &ModelProto) -> &[u8] {
    let mut nodes = model.graph.iter().flat_map(|graph| &graph.node);
    let node = nodes.find(|node| node.op_type == "SentencepieceTokenizer").expect("it has a tokenizer");
    &node.attribute.iter().find(|attribute| attribute.name == "model").expect("it has a model").s
}

/// A float32 tensor.
#[derive(Debug, Clone)]
pub(crate) struct FloatTensor {
    pub(crate) shape: Vec<i64>,
    pub(crate) values: Vec<f32>,
}

/// The tensors of an export by name, dequantised.
pub(crate) fn float_tensors(model: &ModelProto) -> HashMap<String, FloatTensor> {
    let tensors = &model.graph.as_ref().expect("it has a graph").initializer;
    let named = |name: String| tensors.iter().find(|tensor| tensor.name == name).expect("it is there");
    let float = |tensor: &TensorProto| {
        let Some(name) = tensor.name.strip_suffix("_quantized") else {
            let is_parameter = ["_scale", "_zero_point"].iter().any(|suffix| tensor.name.ends_with(suffix));
            let values = tensor.floats().ok().filter(|_| !is_parameter)?;
            return Some((tensor.name.clone(), FloatTensor { shape: tensor.dims.clone(), values }));
        };
        let scale = named(format!("{name}_scale")).floats().expect("it is float32")[0];
        let zero_point =
            f32::from(named(format!("{name}_zero_point")).small_integers().expect("it is int8")[0]);
        let values = tensor.small_integers().expect("it is int8");
        let values = values.iter().map(|value| (f32::from(*value) - zero_point) * scale).collect();
        Some((name.to_owned(), FloatTensor { shape: tensor.dims.clone(), values }))
    };
    tensors.iter().filter_map(float).collect()
}

/// Writes the int8 export with dequantised weights, in the format of an export that is not
/// quantised.
pub(crate) fn write_float32_export(path: &Path) {
    let mut model = onnx_model();
    let tensors = float_tensors(&model);
    let graph = model.graph.as_mut().expect("it has a graph");
    let float = |(name, tensor): (String, FloatTensor)| TensorProto {
        name,
        dims: tensor.shape,
        data_type: data_type::FLOAT,
        raw_data: tensor.values.into_iter().flat_map(f32::to_le_bytes).collect(),
        ..TensorProto::default()
    };
    graph.initializer = tensors.into_iter().map(float).collect();
    write_onnx(&model, path);
}

/// Writes an ONNX file.
pub(crate) fn write_onnx(model: &ModelProto, path: &Path) {
    fs::write(path, model.encode_to_vec()).expect("the test's own folder is writable");
}

/// Converts the export and loads the result, in f32.
pub(crate) fn converted(folder: &Path) -> Model {
    let out = folder.join("from_onnx");
    assert_eq!(convert(&onnx_path(), &out).expect("it converts"), ConversionOutcome::Converted);
    load(&out)
}

/// The model of the export in f32, converted once for all tests of the program.
pub(crate) fn f32_model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| converted(tempfile::tempdir().expect("a folder").path()))
}

/// Loads a model directory, in f32.
pub(crate) fn load(path: &Path) -> Model {
    Model::load(&ModelDir::open(path).expect("it opens"), Device::Cpu, Precision::F32).expect("it loads")
}

/// The vectors of sentences, computed in one batch.
pub(crate) fn embed(model: &Model, sentences: &[Vec<i64>]) -> Vec<Vec<f32>> {
    let lengths: Vec<i64> = sentences.iter().map(|ids| ids.len() as i64).collect();
    let flat = model.embed(&sentences.concat(), &lengths).expect("it embeds");
    flat.chunks_exact(DIMENSION).map(<[f32]>::to_vec).collect()
}

/// The largest difference between two components.
pub(crate) fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs
        .map(|(a, b)| if a.is_finite() && b.is_finite() { (a - b).abs() } else { f32::INFINITY })
        .fold(0.0, f32::max)
}

/// The ids of the golden sentences.
pub(crate) fn golden_ids() -> Vec<Vec<i64>> {
    let sentences = muse_models::golden::sentences().expect("the golden data is consistent");
    sentences.iter().map(|sentence| sentence.ids.iter().map(|id| i64::from(*id)).collect()).collect()
}
