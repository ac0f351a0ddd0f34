//! An ONNX file as a source of weights: it reads one tensor at a time.

mod messages;

use std::{collections::HashMap, fs::File, io, ops::Range, path::Path};

use muse_model::{inference::DIMENSION, model_dir::SourcePrecision};
use prost::Message;

pub use messages::{AttributeProto, NodeProto, TensorProto, data_type};

use crate::{
    proto_file::{Field, ProtoError, ProtoFile, Value},
    weights::{EmbeddingTable, SHARD_ROWS, SHARDS, WeightError, WeightSource, interleave},
};

/// The prefix of the names of the encoder's tensors.
const ENCODER: &str = "StatefulPartitionedCall/EncoderDNN";

/// Fields of `onnx.ModelProto`, `onnx.GraphProto` and `onnx.TensorProto`.
const IR_VERSION: u64 = 1;
const GRAPH: u64 = 7;
const NODE: u64 = 1;
const INITIALIZER: u64 = 5;
const DATA_TYPE: u64 = 2;
const NAME: u64 = 8;

/// Why a file or a tensor in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The bytes are not an ONNX model, or the file ends early.
    #[error("this is not an ONNX file, or not a complete one")]
    NotOnnx,
    /// The file lacks a tensor of the encoder.
    #[error("the ONNX file has no tensor {0}")]
    MissingTensor(String),
    /// A tensor has an unexpected shape.
    #[error("tensor {name} of the ONNX file has the shape {found:?} instead of {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// The shape in the file.
        found: Vec<i64>,
        /// The expected shape.
        expected: Vec<i64>,
    },
    /// The values of a tensor cannot be read.
    #[error("tensor {name} of the ONNX file {reason}")]
    Values {
        /// Name of the tensor.
        name: String,
        /// The problem.
        reason: String,
    },
    /// The file has no SentencePiece model.
    #[error("the ONNX file has no node SentencepieceTokenizer with a model")]
    NoTokenizer,
}

impl From<ProtoError> for OnnxError {
    fn from(error: ProtoError) -> OnnxError {
        match error {
            ProtoError::Io(error) => OnnxError::Io(error),
            ProtoError::Malformed => OnnxError::NotOnnx,
        }
    }
}

/// An ONNX file: the positions of its tensors, float32 or quantised, by name.
#[derive(Debug)]
pub struct OnnxFile {
    file: File,
    tensors: HashMap<String, TensorEntry>,
    graph: Range<u64>,
}

/// A tensor in a file.
#[derive(Debug)]
struct TensorEntry {
    position: Range<u64>,
    data_type: u64,
}

impl OnnxFile {
    /// Reads the names of the tensors.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is not an ONNX model with weights.
    pub fn open(path: &Path) -> Result<OnnxFile, OnnxError> {
        let file = File::open(path)?;
        let mut proto = ProtoFile::new(&file)?;
        let mut rest = proto.message();
        let (mut has_version, mut graph) = (false, None);
        while let Some(field) = proto.next(&mut rest)? {
            match field {
                Field { number: IR_VERSION, value: Value::Varint(_) } => has_version = true,
                Field { number: GRAPH, value: Value::Bytes(position) } => graph = Some(position),
                _ => {}
            }
        }
        // Many unrelated files are an empty message to protobuf.
        let (true, Some(graph)) = (has_version, graph) else { return Err(OnnxError::NotOnnx) };
        let mut tensors = HashMap::new();
        proto.visit(graph.clone(), &[INITIALIZER], &mut |proto, tensor| {
            let (mut name, mut data_type) = (None, 0);
            let mut rest = tensor.clone();
            while let Some(field) = proto.next(&mut rest)? {
                match field {
                    Field { number: NAME, value: Value::Bytes(position) } => {
                        name = Some(proto.string(&position)?);
                    }
                    Field { number: DATA_TYPE, value: Value::Varint(value) } => data_type = value,
                    _ => {}
                }
            }
            if let Some(name) = name {
                tensors.insert(name, TensorEntry { position: tensor, data_type });
            }
            Ok(())
        })?;
        if tensors.is_empty() { Err(OnnxError::NotOnnx) } else { Ok(OnnxFile { file, tensors, graph }) }
    }

    /// The SentencePiece model, an attribute of the node of the tokenizer.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn tokenizer(&self) -> Result<Vec<u8>, OnnxError> {
        let mut proto = ProtoFile::new(&self.file)?;
        let mut model = None;
        proto.visit(self.graph.clone(), &[NODE], &mut |proto, node| {
            let node = NodeProto::decode(proto.read(&node)?.as_slice()).map_err(|_| ProtoError::Malformed)?;
            if node.op_type == "SentencepieceTokenizer" {
                let mut attributes = node.attribute.into_iter();
                let found = attributes.find(|attribute| attribute.name == "model" && !attribute.s.is_empty());
                model = model.take().or(found);
            }
            Ok(())
        })?;
        model.map(|attribute: AttributeProto| attribute.s).ok_or(OnnxError::NoTokenizer)
    }

    /// The type of the weights.
    #[must_use]
    pub fn precision(&self) -> SourcePrecision {
        let quantised = self.tensors.keys().any(|name| name.ends_with("_quantized"));
        if quantised { SourcePrecision::Int8 } else { SourcePrecision::Float32 }
    }

    fn floats(&self, name: &str, shape: &[i64]) -> Result<Vec<f32>, OnnxError> {
        if self.tensors.contains_key(name) {
            let tensor = self.tensor(name)?;
            tensor.expect_shape(shape)?;
            return tensor.floats();
        }
        let quantised = quantised(name);
        if !self.tensors.contains_key(&quantised) {
            return Err(OnnxError::MissingTensor(name.to_owned()));
        }
        let stored = self.tensor(&quantised)?;
        stored.expect_shape(shape)?;
        let (scale, zero_point) = self.scale_and_zero_point(name)?;
        let values = stored.small_integers()?;
        Ok(values.iter().map(|value| (f32::from(*value) - zero_point) * scale).collect())
    }

    fn is_bytes(&self, name: &str) -> bool {
        let entry = self.tensors.get(&quantised(name));
        entry.is_some_and(|entry| entry.data_type == data_type::UINT8 as u64)
    }

    fn scale_and_zero_point(&self, name: &str) -> Result<(f32, f32), OnnxError> {
        let scale = self.tensor(&format!("{name}_scale"))?;
        let zero_point = self.tensor(&format!("{name}_zero_point"))?;
        scale.expect_shape(&[])?;
        zero_point.expect_shape(&[])?;
        // Their shape is that of one value.
        Ok((scale.floats()?[0], f32::from(zero_point.small_integers()?[0])))
    }

    fn tensor(&self, name: &str) -> Result<TensorProto, OnnxError> {
        let entry = self.tensors.get(name).ok_or_else(|| OnnxError::MissingTensor(name.to_owned()))?;
        let bytes = ProtoFile::new(&self.file)?.read(&entry.position)?;
        TensorProto::decode(bytes.as_slice()).map_err(|_| OnnxError::NotOnnx)
    }
}

impl WeightSource for OnnxFile {
    fn encoder(&self, name: &str, shape: &[i64]) -> Result<Vec<f32>, WeightError> {
        Ok(self.floats(&format!("{ENCODER}/{name}:0"), shape)?)
    }

    fn table(&self) -> Result<EmbeddingTable, WeightError> {
        let shape = [SHARD_ROWS as i64, DIMENSION as i64];
        let names: Vec<String> =
            (1..=SHARDS).map(|shard| format!("Func/StatefulPartitionedCall/input/_{shard}:0")).collect();
        if !names.iter().all(|name| self.is_bytes(name)) {
            let rows = interleave(SHARDS, |shard| self.floats(&names[shard], &shape))?;
            return Ok(EmbeddingTable::Floats(rows));
        }
        let (mut scales, mut zero_points) = (Vec::new(), Vec::new());
        let rows = interleave(SHARDS, |shard| {
            let name = &names[shard];
            let (scale, zero_point) = self.scale_and_zero_point(name)?;
            scales.push(scale);
            zero_points.push(zero_point);
            let tensor = self.tensor(&quantised(name))?;
            tensor.expect_shape(&shape)?;
            let values = tensor.small_integers()?;
            Ok::<_, OnnxError>(values.iter().map(|value| *value as u8).collect())
        })?;
        Ok(EmbeddingTable::Bytes { rows, scales, zero_points })
    }
}

fn quantised(name: &str) -> String {
    format!("{name}_quantized")
}
