//! Recognises the other models of the family, which TF Hub offers beside this one.

/// The name of the model, if it is another one of the family.
///
/// The Transformer models have variables in a scope with that name. Question answering has a
/// signature for each side. The English models have no SentencePiece model, and the small one has no
/// convolutions.
pub(super) fn identify<'name>(
    signatures: &[String],
    has_tokenizer: bool,
    variables: impl Iterator<Item = &'name str>,
) -> Option<&'static str> {
    let (mut transformer, mut encoder, mut convolutions) = (false, false, false);
    for name in variables {
        transformer |= name.contains("Transformer");
        encoder |= name.contains("EncoderDNN/");
        convolutions |= name.contains("EncoderDNN/CNN_layers/");
    }
    let is_qa = signatures.iter().any(|name| name == "question_encoder" || name == "response_encoder");
    match (has_tokenizer, is_qa) {
        (true, true) => Some("universal-sentence-encoder-multilingual-qa"),
        (false, true) => Some("universal-sentence-encoder-qa"),
        (true, false) if transformer => Some("universal-sentence-encoder-multilingual-large"),
        (false, false) if transformer => Some("universal-sentence-encoder-large"),
        (false, false) if encoder && !convolutions => Some("universal-sentence-encoder, the English model"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_models_of_the_family_are_recognised() {
        let name = |signature: &str, has_tokenizer, variable: &str| {
            identify(
                &["serving_default".to_owned(), signature.to_owned()],
                has_tokenizer,
                [variable].into_iter(),
            )
            .unwrap_or("this one")
        };
        let own = "EncoderDNN/CNN_layers/dense/kernel/part_0";
        let large = "EncoderTransformer/Transformer/SparseTransformerEncode/Layer_0/kernel/part_0";
        let english = "EncoderDNN/DNN/ResidualHidden_0/dense/kernel/part_0";
        assert_eq!(name("", true, own), "this one");
        // The SentencePiece model is missing: an error of its own.
        assert_eq!(name("", false, own), "this one");
        assert_eq!(name("question_encoder", true, own), "universal-sentence-encoder-multilingual-qa");
        assert_eq!(name("", true, large), "universal-sentence-encoder-multilingual-large");
        assert_eq!(name("", false, large), "universal-sentence-encoder-large");
        assert_eq!(name("", false, english), "universal-sentence-encoder, the English model");
    }
}
