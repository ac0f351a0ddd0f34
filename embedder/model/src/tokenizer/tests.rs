//! The tokenizer with a small model, whose rules include shapes that MUSE's character map does not
//! have: removed characters, and several characters that become several.

use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    model::{Piece, PieceKind, SentencePieceModel},
    *,
};

const RULES: [(&str, &str); 12] = [
    ("\t", " "),
    ("\u{3000}", " "),
    ("e\u{301}", "é"),
    ("o\u{302}\u{301}", "ố"),
    ("½", "1⁄2"),
    ("¨", " \u{308}"),
    ("ﷻ", "جل جلاله"),
    ("q", "k"),
    ("qu", "kw"),
    ("\u{1}", ""),
    ("\u{1}\u{2}", ""),
    ("w\u{200b}", "w  "),
];

const PIECES: [&str; 22] = [
    "▁",
    "a",
    "b",
    "é",
    "ố",
    "k",
    "w",
    "kw",
    "1",
    "⁄2",
    "⁄",
    "2",
    "جل",
    "▁a",
    "▁جلال",
    "ه",
    "ab",
    "\u{308}",
    "▁kw",
    "é1",
    "x",
    "2b",
];

fn tokenizer() -> Tokenizer {
    let (units, replacements) = character_map();
    Tokenizer { pipeline: pipeline::build(model(&units, &replacements)).unwrap() }
}

/// The double array of [`RULES`] and its replacements.
fn character_map() -> (Vec<u8>, Vec<u8>) {
    let mut rules: Vec<(&[u8], u32)> = Vec::new();
    let mut replacements = Vec::new();
    for (from, to) in RULES {
        rules.push((from.as_bytes(), replacements.len() as u32));
        replacements.extend_from_slice(to.as_bytes());
        replacements.push(0);
    }
    rules.sort_unstable();
    (yada::builder::DoubleArrayBuilder::build(&rules).unwrap(), replacements)
}

fn model(units: &[u8], replacements: &[u8]) -> SentencePieceModel {
    let charsmap = [&(units.len() as u32).to_le_bytes()[..], units, replacements].concat();
    let other = |text: &str| Piece { text: text.to_owned(), score: 0.0, kind: PieceKind::Other };
    let mut pieces = vec![other("<unk>"), other("<s>"), other("</s>")];
    pieces.push(Piece { text: "user_1".to_owned(), score: 0.0, kind: PieceKind::UserDefined });
    let score = |piece: &str| -3.0 - 0.37 * (piece.len() % 5) as f32;
    let normal = |piece: &str| Piece { text: piece.to_owned(), score: score(piece), kind: PieceKind::Normal };
    pieces.extend(PIECES.map(normal));
    SentencePieceModel { pieces, charsmap }
}

/// The spans of all tokens, from the text that becomes each byte of the normalized text.
fn expected_spans(tokenizer: &Tokenizer, text: &str) -> Vec<TokenSpan> {
    /// The start of the text that becomes each byte.
    #[derive(Default)]
    struct Starts(Vec<(usize, usize)>);
    impl normalizer::Alignment for Starts {
        fn push(&mut self, at: usize, start: usize) {
            self.0.push((at, start));
        }
        fn truncate(&mut self, length: usize) {
            self.0.retain(|&(at, _)| at < length);
        }
    }
    let (mut normalized, mut starts) = (Vec::new(), Starts::default());
    tokenizer.pipeline.get_normalizer().unwrap().normalize_into(text, &mut normalized, &mut starts);
    // The first step inserts a space and replaces nothing.
    let start = |byte: usize| starts.0.iter().rfind(|&&(at, _)| at <= byte).unwrap().1;
    let end = |byte: usize| match starts.0.iter().rposition(|&(at, _)| at <= byte).unwrap() {
        0 => start(0),
        _ => start(byte) + rule_at(&text[start(byte)..]),
    };
    let characters = |byte: usize| text[..byte].chars().count();
    let mut spans = Vec::new();
    let _ = tokenizer.pipeline.get_model().segment(&normalized, |id, first, after| {
        let bytes = (start(first), end(after - 1));
        spans.push(TokenSpan { id, bytes, chars: (characters(bytes.0), characters(bytes.1)) });
        ControlFlow::Continue(())
    });
    spans
}

/// The bytes at the start of a text that are replaced together.
fn rule_at(text: &str) -> usize {
    if text.starts_with("user_1") {
        return "user_1".len();
    }
    let rules = RULES.iter().map(|(from, _)| from).filter(|from| text.starts_with(**from));
    rules.map(|from| from.len()).max().unwrap_or_else(|| text.chars().next().map_or(0, char::len_utf8))
}

fn ids(spans: &[TokenSpan]) -> Vec<u32> {
    spans.iter().map(|token| token.id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn both_paths_return_the_same_tokens(
        parts in vec(
            prop_oneof![
                8 => select(RULES.map(|(from, _)| from).to_vec()).prop_map(str::to_owned),
                8 => select(vec![
                    " ", "  ", "a", "b", "x", "e", "user_1", "user_", "1", "2", "▁", "\0", "\u{301}", "<s>",
                    "</s>", "<unk>", "u", "\u{200b}", "\u{2}", "1\u{301}",
                ]).prop_map(str::to_owned),
                1 => any::<char>().prop_map(String::from),
            ],
            0..12,
        ),
    ) {
        thread_local!(static TOKENIZER: Tokenizer = tokenizer());
        let text = parts.concat();
        TOKENIZER.with(|tokenizer| {
            let tokens: Vec<_> = tokenizer.tokenize(usize::MAX, &text).unwrap().collect();
            prop_assert_eq!(&tokens, &expected_spans(tokenizer, &text));
            let marked = tokenizer.pipeline().encode(text.as_str(), true).unwrap();
            prop_assert_eq!(marked.get_ids(), tokenizer.encode(&text));
            prop_assert_eq!(&marked.get_ids()[1..marked.len() - 1], ids(&tokens));
            Ok(())
        })?;
    }
}

#[test]
fn composed_character_ends_after_its_last_part() {
    let tokenizer = tokenizer();
    let spans = |text: &str| -> Vec<_> {
        tokenizer.tokenize(usize::MAX, text).unwrap().map(|token| (token.bytes, token.chars)).collect()
    };
    assert_eq!(spans("  e\u{301}1 "), [((2, 2), (2, 2)), ((2, 6), (2, 5))]);
    assert_eq!(spans("a o\u{302}\u{301}"), [((0, 1), (0, 1)), ((1, 2), (1, 2)), ((2, 7), (2, 5))]);
    // Why `tokenize` corrects the end.
    let of_crate = tokenizer.pipeline().encode("a o\u{302}\u{301}", false).unwrap();
    assert_eq!(of_crate.get_offsets(), [(0, 1), (1, 2), (2, 3)]);
}

#[test]
fn marks_in_a_text_are_text() {
    let tokenizer = tokenizer();
    for text in ["<s>", "</s>a", "<unk>", "a <s> b"] {
        let tokens: Vec<_> = tokenizer.tokenize(usize::MAX, text).unwrap().collect();
        assert!(tokens.iter().all(|token| token.id != BEGIN && token.id != END), "{text}");
    }
    let user: Vec<_> = tokenizer.tokenize(usize::MAX, "auser_1b").unwrap().collect();
    assert_eq!(user[1], TokenSpan { id: 3, bytes: (1, 7), chars: (1, 7) });
}

#[test]
fn malformed_character_map_is_an_error_or_changes_nothing() {
    let (units, mut replacements) = character_map();
    let cut = SentencePieceModel { charsmap: units[..3].to_vec(), ..model(&units, &replacements) };
    assert_eq!(
        pipeline::build(cut).unwrap_err().to_string(),
        "not a SentencePiece model: its character map is cut short"
    );
    // Values beyond the end, in the middle of a character, and keys of half a character.
    let half = [(&b"a"[..], 1), (b"b", 1_000), (b"\xc3", 0)];
    let half = yada::builder::DoubleArrayBuilder::build(&half).unwrap();
    let odd = Tokenizer { pipeline: pipeline::build(model(&half, "é\0".as_bytes())).unwrap() };
    assert_eq!(odd.tokenize(usize::MAX, "éab").unwrap().count(), 2);
    replacements.insert(0, 0xff);
    let error = pipeline::build(model(&units, &replacements)).unwrap_err();
    assert_eq!(error.to_string(), "not a SentencePiece model: its character map is not UTF-8");
}
