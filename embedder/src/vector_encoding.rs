//! The components of a vector in the response: how many, and in which format.

use bytes::{BufMut, Bytes, BytesMut};
use half::f16;
use muse_proto::{
    Error, Reason,
    v1::{Embedding, VectorFormat},
};

use crate::dimensions::Dimensions;

/// The largest absolute value of an 8-bit vector. -128 is not used, so that vectors that differ in
/// their sign only remain so.
const INT8_MAX: f32 = 127.0;

/// How a caller receives vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorEncoding {
    dimensions: Dimensions,
    format: VectorFormat,
}

impl VectorEncoding {
    /// Whole vectors in single precision.
    pub const DEFAULT: Self = Self { dimensions: Dimensions::ALL, format: VectorFormat::Unspecified };

    /// The values of `EmbedRequest.dimensions` and `EmbedRequest.format`.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`] if the model has fewer dimensions, or there is no such format.
    pub fn requested(dimensions: u32, format: i32) -> Result<Self, Error> {
        let format = VectorFormat::try_from(format).map_err(|_| {
            let text = format!("format: {format} is not a value of VectorFormat");
            Error::new(Reason::InvalidArgument, text).with_field("format")
        })?;
        Ok(Self { dimensions: Dimensions::requested(dimensions)?, format })
    }

    /// Sets the components of an embedding, from a vector of packed little-endian `f32`.
    pub fn set(self, embedding: &mut Embedding, vector: Bytes) {
        let vector = self.dimensions.truncate(vector);
        match self.format {
            VectorFormat::Unspecified => embedding.packed = vector,
            VectorFormat::Float16 => embedding.encoded = to_float16(&vector),
            VectorFormat::Int8 => embedding.encoded = to_int8(&vector),
        }
    }
}

fn components(vector: &[u8]) -> impl ExactSizeIterator<Item = f32> + Clone + '_ {
    let (components, _) = vector.as_chunks();
    components.iter().map(|component| f32::from_le_bytes(*component))
}

fn to_float16(vector: &[u8]) -> Bytes {
    let mut encoded = BytesMut::with_capacity(vector.len() / 2);
    components(vector).for_each(|component| encoded.put_slice(&f16::from_f32(component).to_le_bytes()));
    encoded.freeze()
}

/// Symmetric quantization with a scale per vector.
fn to_int8(vector: &[u8]) -> Bytes {
    let largest = components(vector).map(f32::abs).fold(0.0, f32::max);
    let scale = if largest > 0.0 { INT8_MAX / largest } else { 0.0 };
    let mut encoded = BytesMut::with_capacity(vector.len() / 4);
    // The conversion saturates: the product may exceed 127 by its rounding error only.
    components(vector).for_each(|component| encoded.put_i8((component * scale).round_ties_even() as i8));
    encoded.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(vector: &[f32], dimensions: u32, format: VectorFormat) -> Embedding {
        let mut embedding = Embedding::default();
        let encoding = VectorEncoding::requested(dimensions, format.into()).unwrap();
        encoding.set(&mut embedding, Embedding::new(vector, 0).packed);
        embedding
    }

    #[test]
    fn float16_is_little_endian_and_rounded_to_nearest_even() {
        // 2049 and 2051 are halfway between two neighbours.
        let vector = [1.0, -2.0, 2049.0, 2051.0, 0.0, 6e-8, 1e-9];
        let found = encoded(&vector, 0, VectorFormat::Float16);
        let expected = [0x3c00_u16, 0xc000, 0x6800, 0x6802, 0, 1, 0];
        assert_eq!(found.encoded, expected.map(u16::to_le_bytes).concat());
        assert!(found.packed.is_empty());
    }

    #[test]
    fn int8_scales_the_largest_component_to_127() {
        let int8 = |vector: &[f32]| encoded(vector, 0, VectorFormat::Int8).encoded.to_vec();
        assert_eq!(int8(&[0.5, -0.25, 0.125, 0.0]), [127, 0_u8.wrapping_sub(64), 32, 0]);
        assert_eq!(int8(&[-1e-30, 1e-30]), [0_u8.wrapping_sub(127), 127]);
        assert_eq!(int8(&[0.0, 0.0]), [0, 0]);
    }

    #[test]
    fn truncation_precedes_the_conversion() {
        let found = encoded(&[0.3, 0.4, 10.0], 2, VectorFormat::Int8);
        assert_eq!(found.encoded.to_vec(), [95, 127]);
    }

    #[test]
    fn unknown_format_is_rejected() {
        let error = VectorEncoding::requested(0, 3).unwrap_err();
        assert_eq!((error.reason(), error.field()), (Reason::InvalidArgument, Some("format")));
    }
}
