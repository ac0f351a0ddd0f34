//! The messages and fields of ONNX's protobuf schema that contain the weights and the tokenizer.

use prost::Message;

use super::OnnxError;
use crate::weights::is_shape;

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
        if is_shape(&self.dims, expected) {
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
