//! Truncation of vectors: the first components, scaled to norm 1.

use bytes::{BufMut, Bytes, BytesMut};
use muse_model::inference::DIMENSION;
use muse_proto::{Error, Reason};

/// The number of components of a vector that a caller requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions(usize);

impl Dimensions {
    /// The whole vector.
    pub const ALL: Self = Self(DIMENSION);

    /// The value of `EmbedRequest.dimensions`; 0 stands for all.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`] if the model has fewer.
    pub fn requested(dimensions: u32) -> Result<Self, Error> {
        match dimensions as usize {
            0 => Ok(Self::ALL),
            some @ 1..=DIMENSION => Ok(Self(some)),
            _ => Err(Error::new(
                Reason::InvalidArgument,
                format!(
                    "dimensions: {dimensions}; vectors have {DIMENSION} components: leave `dimensions` out, or \
                     ask for at most {DIMENSION}"
                ),
            )
            .with_field("dimensions")),
        }
    }

    /// Truncates a vector of packed little-endian `f32`. A vector of all components is returned
    /// unchanged; if all remaining components are zero, so is the result.
    #[must_use]
    pub fn truncate(self, vector: Bytes) -> Bytes {
        let (components, _) = vector.as_chunks();
        let Some(first) = components.get(..self.0).filter(|_| self.0 < components.len()) else {
            return vector;
        };
        let first = first.iter().map(|component| f64::from(f32::from_le_bytes(*component)));
        let norm = first.clone().map(|x| x * x).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { norm } else { 1.0 };
        let mut truncated = BytesMut::with_capacity(self.0 * size_of::<f32>());
        for x in first {
            truncated.put_f32_le((x / scale) as f32);
        }
        truncated.freeze()
    }
}

#[cfg(test)]
mod tests {
    use muse_proto::v1::Embedding;

    use super::*;

    fn truncated(vector: Vec<f32>, dimensions: u32) -> Vec<f32> {
        let packed = Embedding::new(&vector, 0).packed;
        let packed = Dimensions::requested(dimensions).expect("it has so many").truncate(packed);
        Embedding { packed, ..Embedding::default() }.to_vec()
    }

    #[test]
    fn truncated_vector_has_norm_one() {
        assert_eq!(truncated(vec![3.0, 4.0, 12.0], 2), [0.6, 0.8]);
        // Its square is not an f32.
        assert_eq!(truncated(vec![-1e-30, 1.0], 1), [-1.0]);
        assert_eq!(truncated(vec![0.0, 0.0, 1.0], 2), [0.0, 0.0]);
    }

    #[test]
    fn full_vector_is_unchanged() {
        let whole = vec![0.123; DIMENSION];
        for all in [0, 512] {
            assert_eq!(truncated(whole.clone(), all), whole);
        }
        let rejected = Dimensions::requested(513).unwrap_err();
        assert_eq!((rejected.reason(), rejected.field()), (Reason::InvalidArgument, Some("dimensions")));
    }
}
