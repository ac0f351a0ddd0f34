//! The request of Hugging Face's text-embeddings-inference (TEI) on `POST /embed`: `{"inputs": …}`.
//! Its response is an array of vectors.
//!
//! Each option of TEI has its effect or is rejected. As in TEI, fields with other names are
//! ignored.

use std::num::NonZeroU32;

use muse_proto::{
    Error, Reason,
    v1::{EmbedRequest, Truncation},
};
use serde::Deserialize;

use super::{argument::Wanted, arguments::Arguments, response::RestError};
use crate::api::{
    limits::{DIMENSION, embed_limits},
    request::{with_remedy, with_request_field},
};

/// The field with the texts. A request that has it is one of TEI.
const INPUTS: &str = "inputs";
const TRUNCATE: &str = "truncate";
const TRUNCATION_DIRECTION: &str = "truncation_direction";
const NORMALIZE: &str = "normalize";
const DIMENSIONS: &str = "dimensions";
const PROMPT_NAME: &str = "prompt_name";
/// Fields with sentences, of this route and of other APIs.
const OTHER_SENTENCES: [&str; 3] = ["sentence", "sentences", "input"];

/// The arguments of `POST /embed`: those of this service, and those of TEI.
pub(super) const WANTED: &[Wanted] = &[
    Wanted::Sentences("sentence"),
    Wanted::First("format"),
    Wanted::Texts(INPUTS),
    Wanted::Json(TRUNCATE),
    Wanted::Json(TRUNCATION_DIRECTION),
    Wanted::Json(NORMALIZE),
    Wanted::Json(DIMENSIONS),
    Wanted::Json(PROMPT_NAME),
    // Only to reject a request that has several of them.
    Wanted::Json("sentences"),
    Wanted::Json("input"),
];

/// The side of a text on which tokens are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
enum TruncationDirection {
    /// The first tokens are removed.
    #[serde(alias = "left")]
    Left,
    /// The last tokens are removed.
    #[serde(alias = "right")]
    #[default]
    Right,
}

/// A request of TEI.
#[derive(Debug, PartialEq)]
pub(super) struct TeiRequest {
    pub(super) message: EmbedRequest,
    /// Whether the input is one text, not a list.
    pub(super) is_one: bool,
    /// Components to which vectors are cut without scaling.
    pub(super) cut_to: Option<NonZeroU32>,
}

/// Whether it is a request of TEI.
pub(super) fn is_tei(arguments: &Arguments) -> bool {
    arguments.is_given(INPUTS)
}

impl TeiRequest {
    /// Takes the request from its arguments.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`] or [`Reason::TooLarge`], with the field.
    pub(super) fn take(arguments: &mut Arguments) -> Result<Self, RestError> {
        if let Some(other) = OTHER_SENTENCES.iter().find(|name| arguments.is_given(name)) {
            return Err(
                invalid(INPUTS, &format!("either `{INPUTS}` or `{other}` can be given, not both")).into()
            );
        }
        if let Some(name) = arguments.json::<String>(PROMPT_NAME, "a text")? {
            let text = format!("'{name}': the model has no prompts; leave `{PROMPT_NAME}` out");
            return Err(invalid(PROMPT_NAME, &text).into());
        }
        let truncates = arguments.json(TRUNCATE, "true or false")?.unwrap_or(false);
        let direction = arguments.json(TRUNCATION_DIRECTION, "\"Left\" or \"Right\"")?.unwrap_or_default();
        let truncation = match direction {
            _ if !truncates => Truncation::Unspecified,
            TruncationDirection::Left => Truncation::Left,
            TruncationDirection::Right => Truncation::Right,
        };
        let normalizes = arguments.json(NORMALIZE, "true or false")?.unwrap_or(true);
        let dimensions = requested_dimensions(arguments)?;
        // Whole vectors have norm 1, with which the model itself ends; shorter ones are scaled by
        // the embedder.
        let (scaled_to, cut_to) = if normalizes { (dimensions, None) } else { (None, dimensions) };
        let is_one = !arguments.is_list(INPUTS);
        let sentences = arguments.all(INPUTS).map_err(RestError::with_remedy)?;
        let message = EmbedRequest {
            sentences,
            dimensions: scaled_to.map_or(0, u32::from),
            truncation: truncation.into(),
            ..EmbedRequest::default()
        };
        Ok(Self { message, is_one, cut_to })
    }
}

/// The value of `dimensions`. JSON does not distinguish 64.0 from 64.
fn requested_dimensions(arguments: &mut Arguments) -> Result<Option<NonZeroU32>, RestError> {
    let expected = "a positive integer";
    let Some(number) = arguments.json::<f64>(DIMENSIONS, expected)? else { return Ok(None) };
    if number < 1.0 || number.fract() != 0.0 {
        return Err(invalid(DIMENSIONS, &format!("{expected} is expected, not {number}")).into());
    }
    if number > DIMENSION as f64 {
        let text = format!(
            "{number}; vectors have {DIMENSION} components: leave `{DIMENSIONS}` out, or ask for at most {DIMENSION}"
        );
        return Err(invalid(DIMENSIONS, &text).into());
    }
    Ok(NonZeroU32::new(number as u32))
}

/// The description of `POST /embed`.
pub(super) fn description() -> String {
    format!(
        "{}; text is truncated only if a request with `inputs` has `truncate`. A request with `inputs` is one of Hugging Face's \
         text-embeddings-inference; the response to it is an array.",
        embed_limits(),
    )
}

fn invalid(field: &str, text: &str) -> Error {
    Error::new(Reason::InvalidArgument, format!("{field}: {text}")).with_field(field)
}

/// The error of the embedder for a request of TEI, with its fields and a remedy. `is_one` is as in
/// [`TeiRequest`].
pub(super) fn embedder_error(error: Error, is_one: bool) -> Error {
    with_truncate(with_remedy(with_request_field(error, INPUTS, is_one)))
}

/// Adds `truncate` to the remedy of a text with too many tokens.
fn with_truncate(error: Error) -> Error {
    let is_of_tokens = error.reason() == Reason::TooLarge && error.message().contains(" tokens; ");
    if !is_of_tokens || !error.message().ends_with("split the text") {
        return error;
    }
    let advised = Error::new(Reason::TooLarge, format!("{}, or send `{TRUNCATE}`: true", error.message()));
    match error.field() {
        Some(field) => advised.with_field(field),
        None => advised,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{body::Body, extract::Request, http::header};
    use muse_server::memory_budget::MemoryBudget;

    use super::*;

    async fn read(target: &str, body: &str) -> Arguments {
        let request = Request::post(target).header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let memory = MemoryBudget::new(64 << 20, 64 << 10, Duration::from_secs(1));
        Arguments::read(request, WANTED, 8 << 20, &memory, "ann").await.unwrap()
    }

    async fn take(body: &str) -> Result<TeiRequest, Error> {
        let mut arguments = read("/embed", body).await;
        assert!(is_tei(&arguments), "{body}");
        TeiRequest::take(&mut arguments).map_err(|error| match error {
            RestError::Error(error) => error,
            other => panic!("{other:?}"),
        })
    }

    #[tokio::test]
    async fn only_inputs_in_a_json_body_are_of_tei() {
        for (target, body) in [
            ("/embed", r#"{"sentence": "a", "truncate": true, "input": 5}"#),
            ("/embed?inputs=a", r#"{"sentence": "a"}"#),
            ("/embed", "null"),
        ] {
            assert!(!is_tei(&read(target, body).await), "{body}");
        }
        for body in [r#"{"inputs": []}"#, r#"{"inputs": null}"#, r#"{"a": 1, "inputs": "a"}"#] {
            assert!(is_tei(&read("/embed", body).await), "{body}");
        }
    }

    #[tokio::test]
    async fn options_determine_the_call() {
        let unspecified = (Truncation::Unspecified, 0, None);
        for (options, expected) in [
            ("", unspecified),
            (
                r#", "truncate": null, "normalize": true, "dimensions": null, "prompt_name": null"#,
                unspecified,
            ),
            (r#", "truncate": false, "truncation_direction": "left""#, unspecified),
            (r#", "truncate": true"#, (Truncation::Right, 0, None)),
            (r#", "truncate": true, "truncation_direction": "Right""#, (Truncation::Right, 0, None)),
            (r#", "truncate": true, "truncation_direction": "Left""#, (Truncation::Left, 0, None)),
            (r#", "dimensions": 512"#, (Truncation::Unspecified, 512, None)),
            (r#", "dimensions": 64.0"#, (Truncation::Unspecified, 64, None)),
            (r#", "normalize": false"#, unspecified),
            (r#", "normalize": false, "dimensions": 8"#, (Truncation::Unspecified, 0, Some(8))),
        ] {
            let TeiRequest { message, is_one, cut_to } =
                take(&format!(r#"{{"inputs": ["a", "b"], "other": [{{}}]{options}}}"#)).await.unwrap();
            assert_eq!(
                (message.truncation(), message.dimensions, cut_to.map(u32::from)),
                expected,
                "{options}"
            );
            assert_eq!((message.sentences, is_one), (vec!["a".to_owned(), "b".to_owned()], false));
        }
        let one = take(r#"{"inputs": "a\u00e9"}"#).await.unwrap();
        assert_eq!((one.message.sentences, one.is_one), (vec!["aé".to_owned()], true));
    }

    #[tokio::test]
    async fn invalid_request_names_its_field() {
        for (fields, field, text) in [
            (r#""inputs": []"#, "inputs", "at least one text is needed"),
            (r#""inputs": """#, "inputs", "the text is empty"),
            (r#""inputs": ["a", ""]"#, "inputs[1]", "the text is empty"),
            (r#""inputs": null"#, "inputs", "not null"),
            (r#""inputs": 5"#, "inputs", "not a number"),
            (r#""inputs": {}"#, "inputs", "not an object"),
            (r#""inputs": [5, 6]"#, "inputs[0]", "token ids are not accepted"),
            (r#""inputs": ["a", ["b", "c"]]"#, "inputs[1]", "pairs of texts are not accepted"),
            (r#""inputs": "a", "sentence": "b""#, "inputs", "`sentence`"),
            (r#""inputs": "a", "sentence": []"#, "inputs", "`sentence`"),
            (r#""inputs": "a", "sentences": ["b"]"#, "inputs", "`sentences`"),
            (r#""inputs": "a", "input": "b""#, "inputs", "`input`"),
            (r#""inputs": "a", "truncate": 1"#, "truncate", "true or false is expected, not 1"),
            (r#""inputs": "a", "normalize": "no""#, "normalize", "true or false is expected"),
            (r#""inputs": "a", "truncation_direction": "up""#, "truncation_direction", r#"not "up""#),
            (r#""inputs": "a", "prompt_name": "query""#, "prompt_name", "no prompts"),
            (r#""inputs": "a", "prompt_name": ["query"]"#, "prompt_name", "a text is expected"),
            (r#""inputs": "a", "dimensions": 0"#, "dimensions", "a positive integer is expected"),
            (r#""inputs": "a", "dimensions": 2.5"#, "dimensions", "expected, not 2.5"),
            (r#""inputs": "a", "dimensions": "64""#, "dimensions", "a positive integer is expected"),
            (r#""inputs": "a", "dimensions": 513"#, "dimensions", "at most 512"),
        ] {
            let error = take(&format!("{{{fields}}}")).await.unwrap_err();
            assert_eq!((error.reason(), error.field()), (Reason::InvalidArgument, Some(field)), "{fields}");
            assert!(error.message().starts_with(&format!("{field}: ")), "{error}");
            assert!(error.message().contains(text), "{error}");
        }
        let long = format!(r#"{{"inputs": "a", "prompt_name": "{}"}}"#, "x".repeat(1_000));
        assert_eq!(take(&long).await.unwrap_err().to_string(), "prompt_name: 1002 bytes; the limit is 256");
    }

    #[tokio::test]
    async fn exceeded_limit_names_inputs_and_a_remedy() {
        let many = serde_json::json!({ "inputs": vec!["a"; 4_097] }).to_string();
        let long = serde_json::json!({ "inputs": ["a", "x".repeat(262_145)] }).to_string();
        let one = serde_json::json!({ "inputs": "x".repeat(262_145) }).to_string();
        for (body, field, text) in [
            (many, "inputs", "4097 sentences; the limit is 4096 a request; send fewer texts per request"),
            (long, "inputs[1]", "262145 bytes; the limit is 262144 a sentence; split the text"),
            (one, "inputs", "262145 bytes; the limit is 262144 a sentence; split the text"),
        ] {
            let error = take(&body).await.unwrap_err();
            assert_eq!((error.reason(), error.field()), (Reason::TooLarge, Some(field)));
            assert!(error.message().starts_with(&format!("{field}: {text}")), "{error}");
        }
        let text = "sentences[0]: 9000 tokens; the limit is 8192 a sentence";
        let error = embedder_error(Error::new(Reason::TooLarge, text).with_field("sentences[0]"), true);
        let expected =
            "inputs: 9000 tokens; the limit is 8192 a sentence; split the text, or send `truncate`: true";
        assert_eq!((error.message(), error.field()), (expected, Some("inputs")));
    }
}
