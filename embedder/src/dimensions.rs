//! Vectors of fewer components than the model gives: the first ones, scaled to norm 1 again.

use muse_proto::{Error, Reason, v1::Embedding};

use crate::model::DIMENSION;

/// Tokens that the model is fed in addition to those of a sentence: [`BEGIN`](crate::tokenizer::BEGIN) and
/// [`END`](crate::tokenizer::END).
const MARKS: u32 = 2;

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
    pub fn asked(dimensions: u32) -> Result<Self, Error> {
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

    /// The answer to a sentence: its vector, cut, and the number of its tokens (`ids` are what the model was fed).
    pub(crate) fn embedding(self, mut values: Vec<f32>, ids: &[u32]) -> Embedding {
        self.cut(&mut values);
        Embedding { values, token_count: ids.len() as u32 - MARKS }
    }

    /// Cuts a vector; one that is wanted whole stays what it is, to the bit. If all that is left is zero, so is the
    /// result.
    pub fn cut(self, vector: &mut Vec<f32>) {
        if self.0 >= vector.len() {
            return;
        }
        vector.truncate(self.0);
        let norm = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if norm > 0.0 {
            for x in vector {
                *x = (f64::from(*x) / norm) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(mut vector: Vec<f32>, dimensions: u32) -> Vec<f32> {
        Dimensions::asked(dimensions).unwrap().cut(&mut vector);
        vector
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
        let refused = Dimensions::asked(513).unwrap_err();
        assert_eq!((refused.reason(), refused.field()), (Reason::InvalidArgument, Some("dimensions")));
    }
}
