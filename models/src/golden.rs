//! The golden data: the sentences of `golden/` with their expected ids and vectors. Its README
//! describes how they were computed.

use muse_model::inference::DIMENSION;
use serde::Deserialize;

const SENTENCES: &str = include_str!("../golden/sentences.jsonl");
const EMBEDDINGS: &[u8] = include_bytes!("../golden/embeddings.npy");

/// A golden sentence.
#[derive(Debug, Clone, Deserialize)]
pub struct Sentence {
    /// A language, or `hard:` and the difficulty.
    pub kind: String,
    /// The sentence.
    pub text: String,
    /// The input of the model.
    pub ids: Vec<u32>,
    /// The pieces, as in the vocabulary, without `<s>` and `</s>`.
    pub tokens: Vec<String>,
    /// The vector, from the other file.
    #[serde(skip)]
    pub vector: Vec<f32>,
}

/// The golden files are not consistent. They are part of the program, so this is an error of its
/// build.
#[derive(Debug, thiserror::Error)]
#[error("the golden data of this program is broken: {0}")]
pub struct GoldenError(String);

impl GoldenError {
    pub(crate) fn new(reason: String) -> GoldenError {
        GoldenError(reason)
    }
}

/// All golden sentences.
pub fn sentences() -> Result<Vec<Sentence>, GoldenError> {
    let lines = SENTENCES.lines().map(serde_json::from_str).collect::<Result<Vec<Sentence>, _>>();
    let mut sentences = lines.map_err(|error| GoldenError(error.to_string()))?;
    let values = float32_matrix(EMBEDDINGS, sentences.len(), DIMENSION)?;
    for (sentence, vector) in sentences.iter_mut().zip(values.chunks_exact(DIMENSION)) {
        sentence.vector = vector.to_vec();
    }
    Ok(sentences)
}

/// Reads a `.npy` file, which must be a float32 matrix of this shape, as numpy writes it.
fn float32_matrix(bytes: &[u8], rows: usize, columns: usize) -> Result<Vec<f32>, GoldenError> {
    let broken = |what: &str| GoldenError(format!("embeddings.npy {what}"));
    // Magic, version 1.0, and the length of the header that follows.
    let rest = bytes
        .strip_prefix(b"\x93NUMPY\x01\x00")
        .ok_or_else(|| broken("is not an npy file of version 1.0"))?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(|| broken("ends early"))?;
    let length = usize::from(u16::from_le_bytes(*length));
    let (header, data) = rest.split_at_checked(length).ok_or_else(|| broken("ends early"))?;
    let expected = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    if String::from_utf8_lossy(header).trim_end() != expected {
        return Err(broken(&format!("does not have the header {expected}")));
    }
    let (values, rest) = data.as_chunks::<4>();
    if values.len() != rows * columns || !rest.is_empty() {
        return Err(broken("does not have the number of values in its header"));
    }
    Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_vectors_have_norm_one() {
        let sentences = sentences().unwrap();
        for sentence in &sentences {
            let norm: f32 = sentence.vector.iter().map(|value| value * value).sum();
            assert!((norm - 1.0).abs() < 1e-4, "{}", sentence.text);
        }
    }

    #[test]
    fn npy_file_of_another_shape_is_rejected() {
        let rows = EMBEDDINGS.len() / 4 / DIMENSION;
        assert!(float32_matrix(EMBEDDINGS, rows, DIMENSION).is_ok());
        assert!(float32_matrix(EMBEDDINGS, rows + 1, DIMENSION).is_err());
        assert!(float32_matrix(&EMBEDDINGS[..EMBEDDINGS.len() - 1], rows, DIMENSION).is_err());
        assert!(float32_matrix(b"\x93NUMPY\x01\x00\xff", 0, 0).is_err());
        assert!(float32_matrix(b"", 0, 0).is_err());
    }
}
