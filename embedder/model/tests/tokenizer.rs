//! The tokenizer and SentencePiece 0.2.1 on all golden texts: ids, spans and decoding.

use std::{fs, path::Path, sync::LazyLock};

use muse_model::tokenizer::{TokenSpan, TokenizeError, Tokenizer};
use serde::Deserialize;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let path = root().join("var/model/muse-3/tokenizer.model");
    let bytes = fs::read(path).expect("there is no model: run `make model`");
    Tokenizer::from_bytes(&bytes).expect("it is MUSE's")
});

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A text, and what SentencePiece makes of it.
struct Golden {
    text: String,
    /// With `<s>` and `</s>`.
    ids: Vec<u32>,
    /// The bytes at which the tokens start, and that at which the last one ends.
    bounds: Vec<usize>,
    decoded: String,
}

fn golden() -> Vec<Golden> {
    #[derive(Deserialize)]
    struct Ids {
        text: String,
        ids: Vec<u32>,
    }
    #[derive(Deserialize)]
    struct Spans {
        bounds: Vec<usize>,
        decoded: String,
    }
    let read =
        |name| fs::read_to_string(root().join("models/golden").join(name)).expect("it is in the repository");
    let [sentences, mutated, spans] = ["sentences.jsonl", "mutated.jsonl", "spans.jsonl"].map(read);
    let ids: Vec<Ids> = sentences.lines().chain(mutated.lines()).map(parse).collect();
    let spans: Vec<Spans> = spans.lines().map(parse).collect();
    assert_eq!(ids.len(), spans.len());
    assert!(spans.len() >= 5_800, "{}", spans.len());
    let line = |(Ids { text, ids }, Spans { bounds, decoded })| Golden { text, ids, bounds, decoded };
    ids.into_iter().zip(spans).map(line).collect()
}

fn parse<T: for<'a> Deserialize<'a>>(line: &str) -> T {
    serde_json::from_str(line).expect("golden data is JSON")
}

fn tokens(text: &str) -> Vec<TokenSpan> {
    TOKENIZER.tokenize(usize::MAX, text).expect("there is no limit").collect()
}

#[test]
fn ids_of_both_paths_equal_those_of_sentencepiece() {
    for Golden { text, ids, .. } in golden() {
        assert_eq!(TOKENIZER.encode(&text), ids, "{text:?}");
        let encoding = TOKENIZER.pipeline().encode(text.as_str(), true).unwrap();
        assert_eq!(encoding.get_ids(), ids, "{text:?}");
        let marks = encoding.get_special_tokens_mask();
        assert!(marks[0] == 1 && marks[ids.len() - 1] == 1, "{text:?}");
        assert_eq!(marks.iter().sum::<u32>(), 2, "{text:?}");

        let found: Vec<u32> = tokens(&text).iter().map(|token| token.id).collect();
        assert_eq!(found, ids[1..ids.len() - 1], "{text:?}");
        assert!(found.iter().all(|&id| TOKENIZER.is_token(id)), "{text:?}");
    }
}

/// The spans differ from those of SentencePiece in two ways. Each token that contains a part of a
/// character, such as of a ligature, has a span with that character; SentencePiece gives it to the
/// last of these tokens alone. And a span does not include the spaces that are removed after it.
#[test]
fn spans_equal_those_of_sentencepiece_but_in_two_cases() {
    let (mut of_shared_characters, mut of_removed_spaces) = (0, 0);
    for Golden { text, bounds, .. } in golden() {
        let tokens = tokens(&text);
        assert_eq!(tokens.len(), bounds.len().saturating_sub(1), "{text:?}");
        for (index, TokenSpan { id, bytes: (start, end), chars }) in tokens.into_iter().enumerate() {
            let (expected, next) = (bounds[index], bounds[index + 1]);
            assert_eq!(start, expected, "{index} of {text:?}");
            if index == 0 && next == start && TOKENIZER.piece(id) == Some("▁") {
                assert_eq!(end, start, "{index} of {text:?}");
            } else if end > next {
                let character = text[next..].chars().next().map_or(0, char::len_utf8);
                assert_eq!(end, next + character, "{index} of {text:?}");
                of_shared_characters += 1;
            } else {
                assert!(start < end, "{index} of {text:?}");
                let removed = &text[end..next];
                assert_eq!(TOKENIZER.encode(removed).len(), 2, "{index} of {text:?}");
                of_removed_spaces += usize::from(!removed.is_empty());
            }
            let characters = |byte: usize| text[..byte].chars().count();
            assert_eq!(chars, (characters(start), characters(end)), "{index} of {text:?}");
        }
    }
    assert!(of_shared_characters > 0 && of_removed_spaces > 0);
}

#[test]
fn ids_decode_to_the_text_of_sentencepiece() {
    let decode = |ids: &[u32]| TOKENIZER.pipeline().decode(ids, true).unwrap();
    for Golden { text, ids, decoded, .. } in golden() {
        assert_eq!(decode(&ids), decoded, "{text:?}");
        assert_eq!(decode(&ids[1..ids.len() - 1]), decoded, "{text:?}");
    }
    // SentencePiece 0.2.1 on ids that no text has: spaces at the start, and marks inside.
    for (ids, decoded) in [
        (&[][..], ""),
        (&[6, 6, 238], "O"),
        (&[1, 238, 2, 238], "O O"),
        (&[2, 238], "O"),
        (&[6, 8, 6], ". "),
        (&[1, 0, 6, 0, 2], " ⁇   ⁇ "),
    ] {
        assert_eq!(decode(ids), decoded, "{ids:?}");
    }
}

#[test]
fn pipeline_finds_pieces_and_ids() {
    let pipeline = TOKENIZER.pipeline();
    assert_eq!(pipeline.get_vocab_size(true), 128_000);
    for (id, piece) in [(0, "<unk>"), (1, "<s>"), (2, "</s>"), (4, "extra_token_id_2"), (238, "▁O")] {
        assert_eq!(pipeline.token_to_id(piece), Some(id));
        assert_eq!(pipeline.id_to_token(id).as_deref(), Some(piece));
        assert_eq!(pipeline.get_vocab(false).get(piece), Some(&id));
    }
    assert_eq!((pipeline.token_to_id("no such piece"), pipeline.id_to_token(128_000)), (None, None));
    assert!(pipeline.encode(("one", "two"), true).is_err());
}

#[test]
fn text_with_too_many_tokens_is_rejected() {
    // Short and long texts take different paths.
    for words in [10, 50_000] {
        let text = "a ".repeat(words);
        assert_eq!(TOKENIZER.tokenize(words, &text).unwrap().len(), words);
        let rejected = TOKENIZER.tokenize(words - 1, &text).map(|_| ());
        assert!(matches!(rejected, Err(TokenizeError::TooManyTokens)), "{words}");
    }
    assert_eq!(TOKENIZER.tokenize(0, " ").unwrap().len(), 0);
}
