//! Helpers of the tests of conversions.

#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses some of them")]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use muse_model::{
    inference::{DIMENSION, Model},
    model_dir::{ModelDir, Precision},
};
use muse_models::{
    convert::{ConversionOutcome, convert},
    onnx::ModelProto,
};
use prost::Message;
use tch::Device;

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

/// Writes an ONNX file.
pub(crate) fn write_onnx(model: &ModelProto, path: &Path) {
    fs::write(path, model.encode_to_vec()).expect("the test's own folder is writable");
}

/// Converts the export and loads the result.
pub(crate) fn converted(folder: &Path, precision: Precision) -> Model {
    let out = folder.join(precision.as_str());
    assert_eq!(convert(&onnx_path(), &out, precision).expect("it converts"), ConversionOutcome::Converted);
    load(&out)
}

/// Loads a model directory.
pub(crate) fn load(path: &Path) -> Model {
    Model::load(&ModelDir::open(path).expect("it opens"), Device::Cpu).expect("it loads")
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
