//! The body of `POST /v1/embeddings`.

use std::{fmt, num::NonZeroU32};

use muse_proto::{
    Error, Reason,
    limits::{MAX_REQUEST_TOKENS, MAX_SENTENCE_TOKENS, MAX_SENTENCES},
    v1::{EmbedRequest, TokenIds},
};
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, SeqAccess, Unexpected, Visitor},
};
use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, Type},
    },
};

use crate::api::{json_request::WholeNumber, limits::VOCABULARY};

/// The texts to embed, and the format of the vectors. Other fields, such as OpenAI's `user`, are ignored.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(title = "Embedding request")]
pub(crate) struct EmbeddingRequest {
    #[schema(schema_with = Input::schema)]
    pub(super) input: Input,
    /// The id that `/v1/models` lists, or one of its aliases, the names of OpenAI's models:
    /// `text-embedding-3-small`, `text-embedding-3-large`, `text-embedding-ada-002`. Token ids require the id.
    #[schema(example = "universal-sentence-encoder-multilingual")]
    pub(super) model: String,
    /// Numbers, or the same as base64 of little-endian float32.
    #[serde(default)]
    #[schema(default = "float")]
    pub(super) encoding_format: Option<EncodingFormat>,
    /// Number of components of a vector: the first ones, scaled to norm 1. The model was not trained for shorter vectors:
    /// they are less exact.
    #[serde(default, deserialize_with = "positive")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 512)]
    pub(super) dimensions: Option<NonZeroU32>,
}

/// A positive integer, which JSON Schema also permits as `64.0`; `None` for null.
fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    let number = Option::<WholeNumber>::deserialize(deserializer)?;
    let positive = |WholeNumber(number)| {
        let positive = u32::try_from(number).ok().and_then(NonZeroU32::new);
        let unexpected = Unexpected::Signed(number);
        positive.ok_or_else(|| de::Error::invalid_value(unexpected, &"a positive integer"))
    };
    number.map(positive).transpose()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum EncodingFormat {
    Float,
    Base64,
}

/// Texts or token ids, one sentence or several.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    IdLists(Vec<Vec<u32>>),
    /// Input beyond a limit, with the text of the error.
    Excessive(String),
}

impl EmbeddingRequest {
    /// Parses a body.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`] or [`Reason::TooLarge`], with the field.
    pub(super) fn read(body: &[u8]) -> Result<Self, Error> {
        // serde accepts an array for a struct, too.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(Error::new(Reason::InvalidArgument, "The body must be a JSON object"));
        }
        let mut json = serde_json::Deserializer::from_slice(body);
        let request: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|failure| json_error(&failure.path().to_string(), failure.inner()))?;
        json.end().map_err(|failure| json_error("", &failure))?;
        match request.input {
            Input::Excessive(text) => {
                Err(Error::new(Reason::TooLarge, format!("input: {text}")).with_field("input"))
            }
            _ => Ok(request),
        }
    }
}

fn json_error(path: &str, failure: &serde_json::Error) -> Error {
    let text = failure.to_string();
    if !failure.is_data() {
        return Error::new(Reason::InvalidArgument, format!("The body is not JSON: {text}"));
    }
    // The error of a missing field has no path.
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    match missing.unwrap_or(path) {
        "." => Error::new(Reason::InvalidArgument, text),
        field => Error::new(Reason::InvalidArgument, format!("{field}: {text}")).with_field(field),
    }
}

impl Input {
    pub(super) fn is_ids(&self) -> bool {
        matches!(self, Self::Ids(_) | Self::IdLists(_))
    }

    /// The number of sentences.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Text(_) | Self::Ids(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::IdLists(lists) => lists.len(),
            Self::Excessive(_) => 0,
        }
    }

    /// Whether it is one sentence, not a list of sentences.
    pub(super) fn is_one(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Ids(_))
    }

    pub(super) fn into_call(self, dimensions: u32) -> EmbedRequest {
        let texts = |sentences| EmbedRequest { sentences, dimensions, ..EmbedRequest::default() };
        let ids = |lists: Vec<_>| {
            let token_ids = lists.into_iter().map(|ids| TokenIds { ids }).collect();
            EmbedRequest { token_ids, dimensions, ..EmbedRequest::default() }
        };
        match self {
            Self::Text(text) => texts(vec![text]),
            Self::Texts(sentences) => texts(sentences),
            Self::Ids(list) => ids(vec![list]),
            Self::IdLists(lists) => ids(lists),
            // `read` returns an error for it.
            Self::Excessive(_) => EmbedRequest::default(),
        }
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a list of strings, a list of token ids, or a list of such lists")
    }

    fn visit_str<E>(self, text: &str) -> Result<Input, E> {
        Ok(Input::Text(text.to_owned()))
    }

    /// The first item determines the type of the others.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Input, A::Error> {
        let sentences = |count| format!("{count} sentences; the limit is {MAX_SENTENCES} a request");
        Ok(match items.next_element()? {
            None => Input::Texts(Vec::new()),
            Some(Item::Text(first)) => match all(first, items, MAX_SENTENCES)? {
                Ok(texts) => Input::Texts(texts),
                Err(count) => Input::Excessive(sentences(count)),
            },
            Some(Item::Id(first)) => match all(first, items, MAX_SENTENCE_TOKENS)? {
                Ok(list) => Input::Ids(ids(list)),
                Err(count) => Input::Excessive(too_many_ids(count)),
            },
            Some(Item::Ids(first)) => lists(first, items)?,
        })
    }
}

fn too_many_ids(count: usize) -> String {
    format!("{count} tokens; the limit is {MAX_SENTENCE_TOKENS} a sentence")
}

/// The items of a list, or their number if that is more than `most`.
fn all<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    first: T,
    mut others: A,
    most: usize,
) -> Result<Result<Vec<T>, usize>, A::Error> {
    let mut all = vec![first];
    while all.len() < most
        && let Some(next) = others.next_element()?
    {
        all.push(next);
    }
    let mut count = all.len();
    while count >= most && others.next_element::<IgnoredAny>()?.is_some() {
        count += 1;
    }
    Ok(if count > most { Err(count) } else { Ok(all) })
}

/// Lists of token ids, with the limits on lists and on ids of a request.
fn lists<'de, A: SeqAccess<'de>>(first: IdList, mut others: A) -> Result<Input, A::Error> {
    let (mut lists, mut count, mut tokens, mut excess) = (Vec::new(), 0, 0, None);
    let mut next = Some(first);
    while let Some(IdList(list)) = next {
        count += 1;
        match list {
            Ok(list) => {
                tokens += list.len();
                if excess.is_none() && count <= MAX_SENTENCES && tokens <= MAX_REQUEST_TOKENS {
                    lists.push(ids(list));
                }
            }
            Err(length) => {
                tokens += length;
                excess.get_or_insert(too_many_ids(length));
            }
        }
        next = if count < MAX_SENTENCES {
            others.next_element()?
        } else {
            while others.next_element::<IgnoredAny>()?.is_some() {
                count += 1;
            }
            None
        };
    }
    if count > MAX_SENTENCES {
        excess = Some(format!("{count} sentences; the limit is {MAX_SENTENCES} a request"));
    } else if tokens > MAX_REQUEST_TOKENS {
        excess.get_or_insert(format!("{tokens} tokens; the limit is {MAX_REQUEST_TOKENS} a request"));
    }
    Ok(excess.map_or(Input::IdLists(lists), Input::Excessive))
}

/// The token ids of a sentence, or their number if that exceeds the limit.
struct IdList(Result<Vec<TokenId>, usize>);

impl<'de> Deserialize<'de> for IdList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(IdListVisitor)
    }
}

struct IdListVisitor;

impl<'de> Visitor<'de> for IdListVisitor {
    type Value = IdList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of token ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<IdList, A::Error> {
        match items.next_element()? {
            None => Ok(IdList(Ok(Vec::new()))),
            Some(first) => all(first, items, MAX_SENTENCE_TOKENS).map(IdList),
        }
    }
}

/// The id of a token; JSON does not distinguish 6.0 from 6.
struct TokenId(u32);

fn ids(list: Vec<TokenId>) -> Vec<u32> {
    list.into_iter().map(|TokenId(id)| id).collect()
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TokenIdVisitor)
    }
}

struct TokenIdVisitor;

impl Visitor<'_> for TokenIdVisitor {
    type Value = TokenId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token id")
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<TokenId, E> {
        u32::try_from(id).map(TokenId).map_err(|_| E::invalid_value(Unexpected::Unsigned(id), &self))
    }

    fn visit_f64<E: de::Error>(self, id: f64) -> Result<TokenId, E> {
        if id.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&id) {
            Ok(TokenId(id as u32))
        } else {
            Err(E::invalid_value(Unexpected::Float(id), &self))
        }
    }
}

/// The first item of a list.
enum Item {
    Text(String),
    Id(TokenId),
    Ids(IdList),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token id, or a list of token ids")
    }

    fn visit_str<E>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(text.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Item, E> {
        TokenIdVisitor.visit_u64(id).map(Item::Id)
    }

    fn visit_f64<E: de::Error>(self, id: f64) -> Result<Item, E> {
        TokenIdVisitor.visit_f64(id).map(Item::Id)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, ids: A) -> Result<Item, A::Error> {
        IdListVisitor.visit_seq(ids).map(Item::Ids)
    }
}

impl Input {
    fn schema() -> RefOr<Schema> {
        let text = "One text or several, or one or several lists of token ids of the model's vocabulary, as gRPC's Tokenize \
                    returns them.";
        let list = |items: RefOr<Schema>| ArrayBuilder::new().items(items).min_items(Some(1));
        let ids = || ArrayBuilder::new().items(token_id());
        let many = |items: RefOr<Schema>| list(items).max_items(Some(MAX_SENTENCES));
        AnyOfBuilder::new()
            .description(Some(text))
            .item(String::schema())
            .item(many(String::schema()))
            .item(ids().min_items(Some(1)))
            .item(many(ids().into()))
            .examples([json!("Where is the library?"), json!(["Hello", "Merhaba"])])
            .into()
    }
}

/// Of the vocabulary, 1 and 2 are `<s>` and `</s>`, which occur in no sentence, and 0 is the unknown token.
fn token_id() -> RefOr<Schema> {
    let integer = || ObjectBuilder::new().schema_type(Type::Integer);
    let piece = integer().minimum(Some(3)).maximum(Some(VOCABULARY - 1));
    AnyOfBuilder::new().item(integer().enum_values(Some([0]))).item(piece).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(json: &str) -> Result<Input, Error> {
        let body = format!(r#"{{"model": "m", "user": 5, "input": {json}}}"#);
        EmbeddingRequest::read(body.as_bytes()).map(|request| request.input)
    }

    #[test]
    fn input_has_four_forms() {
        assert_eq!(input(r#""a""#), Ok(Input::Text("a".to_owned())));
        assert_eq!(input(r#"["a", ""]"#), Ok(Input::Texts(vec!["a".to_owned(), String::new()])));
        assert_eq!(input("[1, 2.0]"), Ok(Input::Ids(vec![1, 2])));
        assert_eq!(input("[[1, 2], [3]]"), Ok(Input::IdLists(vec![vec![1, 2], vec![3]])));
        assert_eq!(input("[[]]"), Ok(Input::IdLists(vec![vec![]])));
        assert_eq!(input("[]"), Ok(Input::Texts(vec![])));
    }

    #[test]
    fn invalid_input_names_its_field() {
        for (json, field) in [
            ("5", "input"),
            ("null", "input"),
            ("{}", "input"),
            ("[null]", "input[0]"),
            (r#"["a", 1]"#, "input[1]"),
            (r#"[1, "a"]"#, "input[1]"),
            ("[1, -1]", "input[1]"),
            ("[4294967296]", "input[0]"),
            ("[1, 2.5]", "input[1]"),
            ("[[1], [2, true]]", "input[1][1]"),
            ("[[true]]", "input[0][0]"),
        ] {
            let error = input(json).unwrap_err();
            assert_eq!((error.reason(), error.field()), (Reason::InvalidArgument, Some(field)), "{json}");
            assert!(error.message().starts_with(&format!("{field}: ")), "{error}");
        }
        for (body, field) in [
            (r#"{"input": "a"}"#, Some("model")),
            (r#"{"model": "m"}"#, Some("input")),
            (r#"{"input": "a", "model": 5}"#, Some("model")),
            (r#"{"input": "a", "model": "m", "dimensions": 0}"#, Some("dimensions")),
            (r#"{"input": "a", "model": "m", "dimensions": "8"}"#, Some("dimensions")),
            (r#"{"input": "a", "model": "m", "encoding_format": "hex"}"#, Some("encoding_format")),
            (r#"["a", "m", null, null]"#, None),
            (r#"{"input": "a", "model": "m"} x"#, None),
            (r#"{"input": ["a", "#, None),
            (r#"{"input": "\ud800", "model": "m"}"#, None),
            ("", None),
        ] {
            let error = EmbeddingRequest::read(body.as_bytes()).unwrap_err();
            assert_eq!((error.reason(), error.field()), (Reason::InvalidArgument, field), "{body}");
        }
    }

    #[test]
    fn excess_input_is_counted_while_parsing() {
        let list = |item: &str, count| format!("[{}]", vec![item; count].join(","));
        let ids = list("5", 8_192);
        for (json, expected) in [
            (list("\"a\"", 4_097), "input: 4097 sentences; the limit is 4096 a request"),
            (list("[]", 5_000), "input: 5000 sentences; the limit is 4096 a request"),
            (list("5", 8_193), "input: 8193 tokens; the limit is 8192 a sentence"),
            (list(&list("5", 8_193), 1), "input: 8193 tokens; the limit is 8192 a sentence"),
            (list(&ids, 33), "input: 270336 tokens; the limit is 262144 a request"),
        ] {
            let error = input(&json).unwrap_err();
            assert_eq!((error.reason(), error.message()), (Reason::TooLarge, expected));
            assert_eq!(error.field(), Some("input"));
        }
        assert_eq!(input(&list("\"a\"", 4_096)).unwrap().count(), 4_096);
        assert_eq!(input(&list(&ids, 32)).unwrap().count(), 32);
    }

    #[test]
    fn dimensions_may_have_a_fraction_of_zero() {
        let request =
            EmbeddingRequest::read(br#"{"input": "a", "model": "m", "dimensions": 511.0}"#).unwrap();
        assert_eq!(request.dimensions, NonZeroU32::new(511));
        let fraction = EmbeddingRequest::read(br#"{"input": "a", "model": "m", "dimensions": 511.5}"#);
        assert_eq!(fraction.unwrap_err().field(), Some("dimensions"));
    }

    #[test]
    fn null_field_is_like_a_missing_one() {
        let body = br#"{"input": "a", "model": "m", "dimensions": null, "encoding_format": null}"#;
        let request = EmbeddingRequest::read(body).unwrap();
        assert_eq!((request.dimensions, request.encoding_format), (None, None));
    }
}
