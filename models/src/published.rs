//! Numbers that others published of the original model, from its float32 SavedModel:
//! `golden/published.json`, which names the sources.

use serde::Deserialize;

use crate::golden::GoldenError;

const PUBLISHED: &str = include_str!("../golden/published.json");

/// All published numbers.
#[derive(Debug, Clone, Deserialize)]
pub struct Published {
    /// A vector.
    pub vector: PublishedVector,
    /// Similarities.
    pub similarities: PublishedSimilarities,
}

/// The first components of the vector of a text.
#[derive(Debug, Clone, Deserialize)]
pub struct PublishedVector {
    /// The source.
    pub source: String,
    /// The text.
    pub text: String,
    /// The first components.
    pub components: Vec<f32>,
}

/// Similarities of pairs of texts.
#[derive(Debug, Clone, Deserialize)]
pub struct PublishedSimilarities {
    /// The source.
    pub source: String,
    /// The pairs.
    pub pairs: Vec<PublishedPair>,
}

/// A pair of texts.
#[derive(Debug, Clone, Deserialize)]
pub struct PublishedPair {
    /// A text.
    pub a: String,
    /// The other text.
    pub b: String,
    /// `1 - arccos(cosine) / pi` in float32, the angular similarity.
    pub similarity: f32,
}

/// Reads the numbers.
///
/// # Errors
///
/// If the file of this program is broken.
pub fn published() -> Result<Published, GoldenError> {
    serde_json::from_str(PUBLISHED).map_err(|error| GoldenError::new(format!("published.json: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_published_numbers_are_present() {
        let Published { vector, similarities } = published().unwrap();
        assert_eq!((vector.components.len(), similarities.pairs.len()), (20, 136));
        assert!(vector.components.iter().all(|component| component.abs() < 0.1));
        assert!(similarities.pairs.iter().all(|pair| (0.0..1.0).contains(&pair.similarity)));
    }
}
