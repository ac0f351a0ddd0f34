//! Limits of the HTTP APIs and constants of the model, with their texts in the OpenAPI document. The limits of requests are those of
//! [`muse_proto::limits`].

pub(crate) use muse_proto::limits::{MAX_AUTH_REQUEST_BYTES, MAX_REQUEST_BYTES, MAX_SENTENCES};
use muse_proto::limits::{MAX_REQUEST_TOKENS, MAX_SENTENCE_BYTES, MAX_SENTENCE_TOKENS};

/// Components of a vector, in the OpenAPI document. Responses contain what the embedder returns.
pub(crate) const DIMENSION: usize = 512;
/// Entries of the model's vocabulary, in the OpenAPI document. The embedder checks ids.
pub(crate) const VOCABULARY: usize = 128_000;

/// The description of status 415.
pub(crate) const UNSUPPORTED_ENCODING: &str =
    "The body has a Content-Encoding other than gzip, deflate and zstd";

/// The description of status 412.
pub(crate) const FINGERPRINT_MISMATCH: &str = "The model has another fingerprint than the request requires";

/// The limits of a request to tokenize sentences.
pub(crate) fn tokenize_limits() -> String {
    format!(
        "At most {} sentences, {} bytes a sentence, {} MiB in all; text is never truncated.",
        grouped(MAX_SENTENCES),
        grouped(MAX_SENTENCE_BYTES),
        MAX_REQUEST_BYTES >> 20,
    )
}

/// The limits of a request to embed sentences.
pub(crate) fn embed_limits() -> String {
    format!(
        "At most {} sentences, {} bytes and {} tokens a sentence, {} tokens and {} MiB in all",
        grouped(MAX_SENTENCES),
        grouped(MAX_SENTENCE_BYTES),
        grouped(MAX_SENTENCE_TOKENS),
        grouped(MAX_REQUEST_TOKENS),
        MAX_REQUEST_BYTES >> 20,
    )
}

/// A number below a million, with a comma after the thousands.
fn grouped(number: usize) -> String {
    match (number / 1_000, number % 1_000) {
        (0, ones) => ones.to_string(),
        (thousands, ones) => format!("{thousands},{ones:03}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_contain_grouped_limits() {
        assert_eq!(
            ["7", "1,024", "262,144"],
            [7, 1_024, 262_144].map(grouped).each_ref().map(String::as_str)
        );
        let expected =
            "At most 4,096 sentences, 262,144 bytes a sentence, 16 MiB in all; text is never truncated.";
        assert_eq!(tokenize_limits(), expected);
    }
}
