//! Compares a model with the original, whose vectors are only known from published numbers.

use std::{collections::BTreeMap, f32::consts::PI, fmt};

use muse_model::{
    inference::{DIMENSION, Model},
    tokenizer::Tokenizer,
};

use crate::{
    published::{PublishedPair, published},
    verify::{VerifyError, cosine, embed},
};

/// The distances of numbers from published ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distances {
    /// The number of numbers.
    pub count: usize,
    /// The largest difference; NaN if a number is not finite.
    pub largest: f64,
    /// The root mean square of the differences.
    pub rms: f64,
    /// Pearson's correlation coefficient.
    pub correlation: f64,
}

/// A pair of texts with a published similarity.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedPair {
    /// A text.
    pub a: String,
    /// The other text.
    pub b: String,
    /// The similarity of the original.
    pub published: f32,
    /// The similarity of the model.
    pub own: f32,
}

/// The comparison of a model with the original.
#[derive(Debug, Clone)]
pub struct OriginalComparison {
    /// The components of a vector.
    pub components: Distances,
    /// The cosine of these components.
    pub cosine: f64,
    /// The similarities.
    pub similarities: Distances,
    /// The texts with at least two published similarities.
    pub texts: usize,
    /// Those of which the nearest text is that of the original.
    pub same_nearest: usize,
    /// The pairs of the similarities.
    pub pairs: Vec<ComparedPair>,
}

impl OriginalComparison {
    /// Computes all that is published with a model.
    ///
    /// # Errors
    ///
    /// If the forward pass fails.
    pub fn of(model: &Model, tokenizer: &Tokenizer) -> Result<OriginalComparison, VerifyError> {
        let published = published()?;
        let mut texts: Vec<&str> = vec![&published.vector.text];
        let pairs = &published.similarities.pairs;
        texts.extend(pairs.iter().flat_map(|pair| [pair.a.as_str(), pair.b.as_str()]));
        texts.sort_unstable();
        texts.dedup();
        let ids: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.encode(text)).collect();
        let values = embed(model, &ids.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let vectors: BTreeMap<&str, &[f32]> = texts.into_iter().zip(values.chunks_exact(DIMENSION)).collect();

        let components = &published.vector.components;
        let own = &vectors[published.vector.text.as_str()][..components.len()];
        let pairs: Vec<ComparedPair> = pairs
            .iter()
            .map(|PublishedPair { a, b, similarity }| ComparedPair {
                a: a.clone(),
                b: b.clone(),
                published: *similarity,
                own: similarity_of(vectors[a.as_str()], vectors[b.as_str()]),
            })
            .collect();
        let (texts, same_nearest) = nearest(&pairs);
        Ok(OriginalComparison {
            components: Distances::of(own.iter().copied().zip(components.iter().copied())),
            cosine: cosine(own, components),
            similarities: Distances::of(pairs.iter().map(|pair| (pair.own, pair.published))),
            texts,
            same_nearest,
            pairs,
        })
    }

    /// The similarities as a table in Markdown.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table =
            "| text | other text | original | this model | difference |\n|---|---|---|---|---|\n".to_owned();
        for ComparedPair { a, b, published, own } in &self.pairs {
            table += &format!("| {a} | {b} | {published:.3} | {own:.3} | {:+.3} |\n", own - published);
        }
        table
    }
}

impl fmt::Display for OriginalComparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "original: {} published components: {}, cosine {:.6}",
            self.components.count, self.components, self.cosine
        )?;
        writeln!(
            formatter,
            "original: {} published similarities: {}",
            self.similarities.count, self.similarities
        )?;
        write!(formatter, "  the nearest text is the same for {} of {} texts", self.same_nearest, self.texts)
    }
}

impl Distances {
    fn of(pairs: impl Iterator<Item = (f32, f32)>) -> Distances {
        let pairs: Vec<(f64, f64)> = pairs.map(|(own, other)| (f64::from(own), f64::from(other))).collect();
        let count = pairs.len() as f64;
        let mean = |value: fn(&(f64, f64)) -> f64| pairs.iter().map(value).sum::<f64>() / count;
        let (own_mean, other_mean) = (mean(|pair| pair.0), mean(|pair| pair.1));
        let (mut squares, mut covariance, mut own_variance, mut other_variance) = (0.0, 0.0, 0.0, 0.0);
        let mut largest = 0.0_f64;
        for (own, other) in &pairs {
            let difference = (own - other).abs();
            // Unlike `max`, this retains a NaN.
            if difference > largest || difference.is_nan() {
                largest = difference;
            }
            squares += difference * difference;
            covariance += (own - own_mean) * (other - other_mean);
            own_variance += (own - own_mean).powi(2);
            other_variance += (other - other_mean).powi(2);
        }
        Distances {
            count: pairs.len(),
            largest: if squares.is_nan() { f64::NAN } else { largest },
            rms: (squares / count).sqrt(),
            correlation: covariance / (own_variance * other_variance).sqrt(),
        }
    }

    /// Whether a difference is larger than `most`, or not a number.
    #[must_use]
    pub fn exceed(&self, most: f64) -> bool {
        self.largest.is_nan() || self.largest > most
    }
}

impl fmt::Display for Distances {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Distances { largest, rms, correlation, .. } = self;
        write!(formatter, "largest difference {largest:.1e}, rms {rms:.1e}, correlation {correlation:.6}")
    }
}

/// The angular similarity, as it was published.
fn similarity_of(a: &[f32], b: &[f32]) -> f32 {
    let cosine = cosine(a, b).clamp(-1.0, 1.0) as f32;
    1.0 - cosine.acos() / PI
}

/// The number of texts with at least two similarities, and for how many of them the same text has
/// the largest one in the original and in the model.
fn nearest(pairs: &[ComparedPair]) -> (usize, usize) {
    let mut others: BTreeMap<&str, Vec<(f32, f32)>> = BTreeMap::new();
    for ComparedPair { a, b, published, own } in pairs {
        for text in [a, b] {
            others.entry(text.as_str()).or_default().push((*published, *own));
        }
    }
    let ranked = others.values().filter(|similarities| similarities.len() > 1);
    let (mut texts, mut same) = (0, 0);
    for similarities in ranked {
        let largest = |value: fn(&(f32, f32)) -> f32| {
            (0..similarities.len())
                .max_by(|a, b| value(&similarities[*a]).total_cmp(&value(&similarities[*b])))
        };
        texts += 1;
        same += usize::from(largest(|pair| pair.0) == largest(|pair| pair.1));
    }
    (texts, same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_definitions() {
        let distances = Distances::of([(1.0, 1.0), (2.0, 4.0), (3.0, 1.0)].into_iter());
        assert_eq!((distances.count, distances.largest), (3, 2.0));
        assert!((distances.rms - (8.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!(distances.correlation.abs() < 1e-12);
        assert!(distances.exceed(1.9) && !distances.exceed(2.0));
        let same = Distances::of([(0.5, 0.5), (0.25, 0.25)].into_iter());
        assert!(!same.exceed(0.0) && (same.correlation - 1.0).abs() < 1e-12);
        for broken in [(f32::NAN, 1.0), (f32::INFINITY, 1.0)] {
            assert!(Distances::of([broken, (1.0, 1.0)].into_iter()).exceed(1.0), "{broken:?}");
        }
    }

    #[test]
    fn similarity_is_the_angle() {
        let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!(close(similarity_of(&[1.0, 0.0], &[2.0, 0.0]), 1.0));
        assert!(close(similarity_of(&[1.0, 0.0], &[0.0, 1.0]), 0.5));
        assert!(close(similarity_of(&[1.0, 0.0], &[-1.0, 0.0]), 0.0));
    }

    #[test]
    fn nearest_text_is_compared_with_that_of_the_original() {
        let pair = |a: &str, b: &str, published, own| ComparedPair {
            a: a.to_owned(),
            b: b.to_owned(),
            published,
            own,
        };
        // For "a" another text is the nearest one; "b" and "c" have one similarity.
        assert_eq!(nearest(&[pair("a", "b", 0.9, 0.5), pair("a", "c", 0.8, 0.6)]), (1, 0));
        assert_eq!(nearest(&[pair("a", "b", 0.9, 0.7), pair("a", "c", 0.8, 0.6)]), (1, 1));
    }
}
