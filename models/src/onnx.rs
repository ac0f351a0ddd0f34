//! Reads an ONNX file: the messages and fields of its protobuf schema that contain the weights and
//! the tokenizer.

use prost::Message;

/// `onnx.ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub struct ModelProto {
    /// The version of the ONNX format, which each ONNX file has.
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    /// The network.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
}

/// `onnx.GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub struct GraphProto {
    /// Its operations.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    /// Its constants, among them the weights.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
}

/// `onnx.NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub struct NodeProto {
    /// The kind of operation.
    #[prost(string, tag = "4")]
    pub op_type: String,
    /// Its attributes.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
}

/// `onnx.AttributeProto`.
#[derive(Clone, PartialEq, Message)]
pub struct AttributeProto {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value, if that is bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
}

/// `onnx.TensorProto`.
#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    /// The shape.
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    /// One of [`data_type`].
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    /// Values of a float32 tensor, if they are not in `raw_data`.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Values of the small integer types, if they are not in `raw_data`.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    /// Name in the graph.
    #[prost(string, tag = "8")]
    pub name: String,
    /// Values in little-endian order.
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
    /// 1 if the values are in another file, which is not supported.
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

/// The used values of `onnx.TensorProto.DataType`.
pub mod data_type {
    /// float32.
    pub const FLOAT: i32 = 1;
    /// uint8.
    pub const UINT8: i32 = 2;
    /// int8.
    pub const INT8: i32 = 3;
}

/// Why a file or a tensor in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The bytes are not an ONNX model.
    #[error("this is not an ONNX file")]
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

/// Parses a file.
pub fn parse(bytes: &[u8]) -> Result<GraphProto, OnnxError> {
    let model = ModelProto::decode(bytes).map_err(|_| OnnxError::NotOnnx)?;
    match (model.ir_version, model.graph) {
        // Many unrelated files are an empty message to protobuf.
        (Some(_), Some(graph)) if !graph.initializer.is_empty() => Ok(graph),
        _ => Err(OnnxError::NotOnnx),
    }
}

/// The SentencePiece model, an attribute of the node of the tokenizer.
pub fn tokenizer_model(graph: &GraphProto) -> Result<&[u8], OnnxError> {
    graph
        .node
        .iter()
        .filter(|node| node.op_type == "SentencepieceTokenizer")
        .flat_map(|node| &node.attribute)
        .find(|attribute| attribute.name == "model" && !attribute.s.is_empty())
        .map(|attribute| attribute.s.as_slice())
        .ok_or(OnnxError::NoTokenizer)
}

impl TensorProto {
    /// The values of a float32 tensor.
    pub fn floats(&self) -> Result<Vec<f32>, OnnxError> {
        if self.data_type != data_type::FLOAT {
            return Err(self.wrong("is not float32"));
        }
        let values = if self.raw_data.is_empty() {
            self.float_data.clone()
        } else {
            let (values, rest) = self.raw_data.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(self.wrong("has a broken last value"));
            }
            values.iter().map(|value| f32::from_le_bytes(*value)).collect()
        };
        self.complete(values)
    }

    /// The values of an int8 or uint8 tensor.
    pub fn small_integers(&self) -> Result<Vec<i16>, OnnxError> {
        let signed = self.data_type == data_type::INT8;
        if !signed && self.data_type != data_type::UINT8 {
            return Err(self.wrong("is not int8 or uint8"));
        }
        let values = if self.raw_data.is_empty() {
            let range = if signed { -128..=127 } else { 0..=255 };
            if !self.int32_data.iter().all(|value| range.contains(value)) {
                return Err(self.wrong("has a value outside its type"));
            }
            self.int32_data.iter().map(|value| *value as i16).collect()
        } else if signed {
            self.raw_data.iter().map(|value| i16::from(value.cast_signed())).collect()
        } else {
            self.raw_data.iter().map(|value| i16::from(*value)).collect()
        };
        self.complete(values)
    }

    /// Checks the shape.
    pub fn expect_shape(&self, expected: &[i64]) -> Result<(), OnnxError> {
        // Biases have the shape (256) or (1, 256): leading dimensions of 1 are ignored.
        let start = self.dims.iter().take_while(|size| **size == 1).count();
        if self.dims == expected || self.dims[start..] == *expected {
            return Ok(());
        }
        let (name, found) = (self.name.clone(), self.dims.clone());
        Err(OnnxError::Shape { name, found, expected: expected.to_vec() })
    }

    fn complete<T>(&self, values: Vec<T>) -> Result<Vec<T>, OnnxError> {
        if self.data_location != 0 {
            return Err(self.wrong("keeps its values in another file: export the model into one file"));
        }
        let count = self.dims.iter().try_fold(1_i64, |count, size| count.checked_mul(*size));
        if count.and_then(|count| usize::try_from(count).ok()) != Some(values.len()) {
            return Err(self.wrong(&format!("has {} values for the shape {:?}", values.len(), self.dims)));
        }
        Ok(values)
    }

    fn wrong(&self, reason: &str) -> OnnxError {
        OnnxError::Values { name: self.name.clone(), reason: reason.to_owned() }
    }
}
