//! Vectors of fewer components than the model gives: the first ones, scaled to norm 1 again.

use bytes::{BufMut, Bytes, BytesMut};
use muse_model::inference::DIMENSION;
use muse_proto::{Error, Reason};

/// How many components of a vector a caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions(usize);

impl Dimensions {
    /// The vector as it is.
    pub const ALL: Self = Self(DIMENSION);

    /// What `EmbedRequest.dimensions` asks for; 0 stands for all.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`] if the model gives fewer.
    pub fn requested(dimensions: u32) -> Result<Self, Error> {
        match dimensions as usize {
            0 => Ok(Self::ALL),
            some @ 1..=DIMENSION => Ok(Self(some)),
            _ => Err(Error::new(
                Reason::InvalidArgument,
                format!("dimensions: {dimensions} is more than the {DIMENSION} of a vector"),
            )
            .with_field("dimensions")),
        }
    }

    /// Cuts a vector of packed little-endian `f32`; one that is wanted whole stays what it is, to the bit. If all that is
    /// left is zero, so is the result.
    #[must_use]
    pub fn cut(self, vector: Bytes) -> Bytes {
        let (components, _) = vector.as_chunks();
        let Some(kept) = components.get(..self.0).filter(|_| self.0 < components.len()) else {
            return vector;
        };
        let kept = kept.iter().map(|component| f64::from(f32::from_le_bytes(*component)));
        let norm = kept.clone().map(|x| x * x).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { norm } else { 1.0 };
        let mut cut = BytesMut::with_capacity(self.0 * size_of::<f32>());
        for x in kept {
            cut.put_f32_le((x / scale) as f32);
        }
        cut.freeze()
    }
}

#[cfg(test)]
mod tests {
    use muse_proto::v1::Embedding;

    use super::*;

    fn cut(vector: Vec<f32>, dimensions: u32) -> Vec<f32> {
        let packed = Embedding::new(&vector, 0).packed;
        let packed = Dimensions::requested(dimensions).expect("it has so many").cut(packed);
        Embedding { packed, token_count: 0 }.to_vec()
    }

    #[test]
    fn what_is_left_has_norm_one() {
        assert_eq!(cut(vec![3.0, 4.0, 12.0], 2), [0.6, 0.8]);
        // Its square is not an f32.
        assert_eq!(cut(vec![-1e-30, 1.0], 1), [-1.0]);
        assert_eq!(cut(vec![0.0, 0.0, 1.0], 2), [0.0, 0.0]);
    }

    #[test]
    fn the_whole_vector_is_not_touched() {
        let whole = vec![0.123; DIMENSION];
        for all in [0, 512] {
            assert_eq!(cut(whole.clone(), all), whole);
        }
        let refused = Dimensions::requested(513).unwrap_err();
        assert_eq!((refused.reason(), refused.field()), (Reason::InvalidArgument, Some("dimensions")));
    }
}
