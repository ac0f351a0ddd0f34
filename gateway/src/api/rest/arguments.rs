//! The arguments of a REST request, in the order of muse_as_service 1.1: from a JSON body, then from the query, then (on POST) from
//! a form or multipart body.
//!
//! Only the arguments of the route are stored. Others are skipped while parsing, so that a body of millions of fields takes no more
//! memory than its bytes.

use std::fmt;

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
};
use bytes::Bytes;
use futures::{FutureExt, stream};
use muse_proto::{Error, Reason, limits::MAX_SENTENCES};
use muse_server::memory_budget::{MemoryBudget, Reservation};
use serde::{
    Deserializer,
    de::{self, DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    argument::{Argument, Wanted},
    response::RestError,
};
use crate::api::request::{parsed, read_body};

/// The UTF-8 byte order mark, which some programs send.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Bytes of a multipart body that its parser buffers at a time.
const MULTIPART_PIECE: usize = 64 << 10;

/// The values of the arguments of a route, in the order in which they count.
#[derive(Debug)]
pub(super) struct Arguments {
    all: Vec<Argument>,
    /// The memory of the body.
    pub(super) reservation: Option<Reservation>,
}

impl Arguments {
    /// Reads the arguments `wanted` of a request whose body has at most `limit` bytes. Its memory is accounted to `caller`.
    pub(super) async fn read(
        request: Request,
        wanted: &'static [Wanted],
        limit: usize,
        memory: &MemoryBudget,
        caller: &str,
    ) -> Result<Self, RestError> {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        let all: Vec<_> = wanted.iter().map(|&wanted| Argument::new(wanted)).collect();
        let mut arguments = Self { all, reservation: None };
        let Some(form) = BodyForm::of(&head.method, &head.headers) else {
            arguments.read_urlencoded(query.as_bytes());
            return Ok(arguments);
        };
        let body = read_body(memory, caller, &head, body, limit).await?;
        let query = query.to_owned();
        let mut arguments = parsed(body.bytes, move |body| match form {
            BodyForm::Json => {
                arguments.read_json(&body)?;
                arguments.read_urlencoded(query.as_bytes());
                Ok::<_, RestError>(arguments)
            }
            BodyForm::Urlencoded => {
                arguments.read_urlencoded(query.as_bytes());
                arguments.read_urlencoded(&body);
                Ok(arguments)
            }
            BodyForm::Multipart { boundary } => {
                arguments.read_urlencoded(query.as_bytes());
                arguments.read_multipart(body, boundary);
                Ok(arguments)
            }
        })
        .await??;
        arguments.reservation = body.reservation;
        Ok(arguments)
    }

    /// Takes the first value of an argument.
    pub(super) fn first(&mut self, name: &'static str) -> Result<String, RestError> {
        let mut values = self.all(name)?;
        Ok(values.swap_remove(0))
    }

    /// Takes all values of an argument; at least one.
    pub(super) fn all(&mut self, name: &'static str) -> Result<Vec<String>, RestError> {
        match self.all.iter().position(|argument| argument.wanted.name() == name) {
            Some(index) => self.all.swap_remove(index).take(),
            None => Err(RestError::Blank(name)),
        }
    }

    /// Takes the value of an argument that is `true` or `false`, in JSON or as text; false if it is missing.
    pub(super) fn boolean(&mut self, name: &'static str) -> Result<bool, RestError> {
        match self.first(name) {
            Err(RestError::Blank(_)) => Ok(false),
            Err(error) => Err(error),
            Ok(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Ok(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Ok(text) => {
                let text = format!("{name}: 'true' and 'false' are known, '{text}' is not");
                Err(Error::new(Reason::InvalidArgument, text).into())
            }
        }
    }

    /// Whether an argument has a value, which may be invalid, or an empty list of values.
    pub(super) fn is_given(&self, name: &str) -> bool {
        let argument = self.all.iter().find(|argument| argument.wanted.name() == name);
        argument.is_some_and(|argument| argument.count > 0 || argument.is_list)
    }

    /// Whether the values of an argument are the items of a list.
    pub(super) fn is_list(&self, name: &str) -> bool {
        self.all.iter().any(|argument| argument.wanted.name() == name && argument.is_list)
    }

    /// Takes the value of a [`Wanted::Json`] as a `T`; `None` if it is missing or null. `expected`
    /// describes a `T`.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`] with the field, if it is not a `T`.
    pub(super) fn json<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
        expected: &str,
    ) -> Result<Option<T>, RestError> {
        let json = match self.first(name) {
            Err(RestError::Blank(_)) => return Ok(None),
            other => other?,
        };
        serde_json::from_str(&json).map_err(|_| {
            let text = format!("{name}: {expected} is expected, not {json}");
            Error::new(Reason::InvalidArgument, text).with_field(name).into()
        })
    }

    /// The argument of this name in a form or in the query.
    fn find(&mut self, name: &str) -> Option<&mut Argument> {
        let mut arguments = self.all.iter_mut();
        arguments.find(|argument| argument.wanted.name() == name && !argument.wanted.is_only_in_json())
    }

    fn read_urlencoded(&mut self, text: &[u8]) {
        for pair in text.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
            let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
            // An encoded character takes at most three bytes, and the names of arguments are short.
            if name.len() > 64 {
                continue;
            }
            let Some((name, _)) = form_urlencoded::parse(name).next() else { continue };
            let Some(argument) = self.find(&name) else { continue };
            let value = form_urlencoded::parse(pair).next().map(|(_, value)| value.into_owned());
            argument.push(value.unwrap_or_default());
        }
    }

    fn read_json(&mut self, body: &[u8]) -> Result<(), RestError> {
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let mut has_begun = false;
        let mut json = serde_json::Deserializer::from_slice(body);
        let read = json.deserialize_any(Fields { arguments: self, has_begun: &mut has_begun });
        let read = read.and_then(|is_object| json.end().map(|()| is_object));
        match read {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(Error::new(Reason::InvalidArgument, "The JSON body must be an object".to_owned()).into())
            }
            // If no object has begun, the response has no detail, as in muse_as_service 1.1.
            Err(failure) => Err(RestError::NotJson(has_begun.then(|| failure.to_string()))),
        }
    }

    /// Reads a malformed body as far as possible, as muse_as_service 1.1 does.
    fn read_multipart(&mut self, body: Bytes, boundary: String) {
        let mut reading = std::pin::pin!(self.read_parts(body, boundary));
        // The whole body is in memory: the future is pending only between pieces.
        while reading.as_mut().now_or_never().is_none() {}
    }

    async fn read_parts(&mut self, body: Bytes, boundary: String) {
        // The parser buffers all ready pieces, so the stream is pending between them.
        let pieces = stream::unfold((body, false), async |(mut body, pauses)| {
            if pauses {
                pending_once().await;
            }
            let piece = body.split_to(body.len().min(MULTIPART_PIECE));
            (!piece.is_empty()).then_some((Ok::<_, std::io::Error>(piece), (body, true)))
        });
        let mut parts = multer::Multipart::new(pieces, boundary);
        while let Ok(Some(mut field)) = parts.next_field().await {
            if field.file_name().is_some() {
                continue;
            }
            let Some(argument) = field.name().and_then(|name| self.find(name)) else { continue };
            let mut value = Vec::new();
            loop {
                match field.chunk().await {
                    Ok(Some(chunk)) => value.extend_from_slice(&chunk),
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            let value = String::from_utf8(value)
                .unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned());
            argument.push(value);
        }
    }
}

/// A future that is pending once.
async fn pending_once() {
    let mut polled = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut polled, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Reads the wanted fields of a JSON body. The value is whether the body is an object or, as in Python, an empty value (`null`,
/// `[]`, `""`).
struct Fields<'a> {
    arguments: &'a mut Arguments,
    /// Set at the first field.
    has_begun: &'a mut bool,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<bool, A::Error> {
        while let Some(argument) = fields.next_key_seed(FieldName(&mut *self.arguments))? {
            *self.has_begun = true;
            let Some(argument) = argument.map(|index| &mut self.arguments.all[index]) else {
                fields.next_value::<IgnoredAny>()?;
                continue;
            };
            // Of several fields with one name, the last one counts.
            *argument = Argument::new(argument.wanted);
            let value = fields.next_value::<&RawValue>()?.get();
            if value.starts_with('[') && !matches!(argument.wanted, Wanted::Json(_)) {
                argument.is_list = true;
                let mut items = serde_json::Deserializer::from_str(value);
                items.deserialize_seq(Items(argument)).map_err(without_position)?;
            } else {
                argument.push_json(value).map_err(without_position)?;
            }
        }
        Ok(true)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let mut is_empty = true;
        while items.next_element::<IgnoredAny>()?.is_some() {
            is_empty = false;
        }
        Ok(is_empty)
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(text.is_empty())
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }
}

/// The name of a field, as the index of its argument, if it is wanted.
struct FieldName<'a>(&'a mut Arguments);

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.all.iter().position(|argument| argument.wanted.name() == name))
    }
}

/// Reads the items of a list as values.
struct Items<'a>(&'a mut Argument);

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while self.0.count < MAX_SENTENCES
            && let Some(item) = items.next_element::<&RawValue>()?
        {
            self.0.push_json(item.get()).map_err(without_position)?;
        }
        while items.next_element::<IgnoredAny>()?.is_some() {
            self.0.count += 1;
        }
        Ok(())
    }
}

/// The format of a body with arguments.
#[derive(Debug, PartialEq, Eq)]
enum BodyForm {
    Json,
    Urlencoded,
    Multipart { boundary: String },
}

impl BodyForm {
    fn of(method: &Method, headers: &HeaderMap) -> Option<Self> {
        if is_json(headers) {
            return Some(Self::Json);
        }
        if method != Method::POST {
            return None;
        }
        let content_type = text_of(headers, header::CONTENT_TYPE);
        if essence(content_type).eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Some(Self::Urlencoded);
        }
        multer::parse_boundary(content_type).ok().map(|boundary| Self::Multipart { boundary })
    }
}

/// Whether the (first) content type is `application/json` or `application/*+json`, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = essence(text_of(headers, header::CONTENT_TYPE)).to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn essence(content_type: &str) -> &str {
    content_type.split([';', ',']).next().unwrap_or_default().trim()
}

fn text_of(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// An error in a part of a body, without the position in that part: the parser of the whole body adds its own.
fn without_position<E: de::Error>(failure: serde_json::Error) -> E {
    let text = failure.to_string();
    E::custom(text.split(" at line ").next().unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use muse_proto::limits::MAX_REQUEST_BYTES;

    use std::time::Duration;

    use super::*;

    const WANTED: &[Wanted] = &[Wanted::Sentences("sentence"), Wanted::First("format")];

    async fn read(
        method: &str,
        target: &str,
        content_type: Option<&str>,
        body: &str,
    ) -> Result<Arguments, RestError> {
        let mut request = Request::builder().method(method).uri(target);
        if let Some(kind) = content_type {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let memory = MemoryBudget::new(64 << 20, 64 << 10, Duration::from_secs(1));
        let limit = if target == "/large" { MAX_REQUEST_BYTES } else { 1_000 };
        Arguments::read(request.body(Body::from(body.to_owned())).unwrap(), WANTED, limit, &memory, "ann")
            .await
    }

    async fn sentences(method: &str, target: &str, content_type: Option<&str>, body: &str) -> Vec<String> {
        read(method, target, content_type, body).await.unwrap().all("sentence").unwrap_or_default()
    }

    #[tokio::test]
    async fn json_comes_before_the_query() {
        let json = Some("application/vnd.x+json; charset=utf-8");
        let found = sentences("GET", "/embed?sentence=c", json, r#"{"sentence": ["a", "b"], "x": 1}"#).await;
        assert_eq!(found, ["a", "b", "c"]);
        assert_eq!(sentences("GET", "/embed?sentence=c", None, r#"{"sentence": "a"}"#).await, ["c"]);
        assert!(sentences("GET", "/embed", json, r#"{"sentence": []}"#).await.is_empty());
        assert!(sentences("GET", "/embed", json, "null").await.is_empty());
    }

    #[tokio::test]
    async fn invalid_json_is_rejected_despite_a_complete_query() {
        for body in ["", "{bad", "{\"sentence\": \"\\ud800\"}"] {
            let read = read("GET", "/embed?sentence=a", Some("application/json"), body).await;
            assert!(matches!(read, Err(RestError::NotJson(_))), "{body}: {read:?}");
        }
        for body in ["5", "true", "[1]"] {
            let read = read("GET", "/embed?sentence=a", Some("application/json"), body).await;
            assert!(matches!(read, Err(RestError::Error(_))), "{body}: {read:?}");
        }
        for body in [r#"{"sentence": null}"#, r#"{"sentence": ["a", {}]}"#, r#"{"sentence": [["a"]]}"#] {
            let mut read = read("GET", "/embed?sentence=a", Some("application/json"), body).await.unwrap();
            assert!(matches!(read.first("format"), Err(RestError::Blank("format"))), "{body}");
            assert!(matches!(read.all("sentence"), Err(RestError::Error(_))), "{body}");
        }
    }

    #[tokio::test]
    async fn forms_are_read_on_post_only() {
        let form = Some("application/x-www-form-urlencoded");
        assert_eq!(sentences("POST", "/x?sentence=a", form, "sentence=b+c%2").await, ["a", "b c%2"]);
        assert!(sentences("GET", "/x", form, "sentence=b").await.is_empty());
        let parts = "--XX\r\nContent-Disposition: form-data; name=\"sentence\"\r\n\r\nhi\r\n--XX--\r\n";
        assert_eq!(sentences("POST", "/x", Some("multipart/form-data; boundary=XX"), parts).await, ["hi"]);
        assert!(sentences("POST", "/x", Some("multipart/form-data; boundary=XX"), "--XX").await.is_empty());
    }

    #[tokio::test]
    async fn percent_encoding_is_read_leniently() {
        let found =
            sentences("GET", "/x?sentence=100%25%zz%&sentence=%ff&sentence&sentence=a;sentence=b", None, "")
                .await;
        assert_eq!(found, ["100%%zz%", "\u{fffd}", "", "a;sentence=b"]);
    }

    #[tokio::test]
    async fn oversized_body_is_rejected_with_the_limit() {
        let long = format!("{{\"sentence\": \"{}\"}}", "x".repeat(1_000));
        let Err(RestError::Error(error)) = read("GET", "/x", Some("application/json"), &long).await else {
            panic!("a long body was accepted")
        };
        assert_eq!(error.reason(), Reason::TooLarge);
        assert!(error.message().contains("1000 bytes"), "{error}");
    }

    #[tokio::test]
    async fn integers_have_all_their_digits() {
        let numbers = r#"{"sentence": [123456789012345678901234567890, -0, -0.0, 1e2, 2.50, true]}"#;
        let found = sentences("GET", "/x", Some("application/json"), numbers).await;
        assert_eq!(found, ["123456789012345678901234567890", "0", "-0.0", "100.0", "2.5", "True"]);
    }

    #[tokio::test]
    async fn malformed_json_is_located() {
        let json = Some("application/json");
        for (body, expected) in [
            ("{\"sentence\": \"a\",}", "trailing comma at line 1 column 18"),
            ("{\"x\": 1}\n{}", "trailing characters at line 2 column 1"),
            (r#"{"sentence": ["a", "\ud800"]}"#, "hex escape"),
        ] {
            let Err(RestError::NotJson(Some(detail))) = read("GET", "/x", json, body).await else {
                panic!("{body} was accepted")
            };
            assert!(detail.contains(expected), "{detail}");
        }
        assert!(matches!(read("GET", "/x", json, "{bad").await, Err(RestError::NotJson(None))));
    }

    #[tokio::test]
    async fn excess_sentences_are_counted_while_parsing() {
        let json = format!(r#"{{"sentence": [{}"a"]}}"#, r#""a", "#.repeat(4_096));
        let form = "sentence=a&".repeat(4_097);
        let part = "--X\r\nContent-Disposition: form-data; name=\"sentence\"\r\n\r\na\r\n";
        let parts = part.repeat(4_097) + "--X--\r\n";
        for (kind, body) in [
            ("application/json", json),
            ("application/x-www-form-urlencoded", form),
            ("multipart/form-data; boundary=X", parts),
        ] {
            let read = read("POST", "/large", Some(kind), &body).await.unwrap().all("sentence");
            let Err(RestError::Error(error)) = read else { panic!("{kind} was accepted") };
            let text = "sentences: 4097 sentences; the limit is 4096 a request";
            assert_eq!((error.reason(), error.message()), (Reason::TooLarge, text));
        }
        // Invalid UTF-8 takes three times its bytes as text.
        let long = format!("sentence={}", "%ff".repeat(100_000));
        let kind = Some("application/x-www-form-urlencoded");
        let read = read("POST", "/large", kind, &long).await.unwrap().all("sentence");
        let Err(RestError::Error(error)) = read else { panic!("a long sentence was accepted") };
        assert_eq!(error.message(), "sentences[0]: 300000 bytes; the limit is 262144 a sentence");
    }

    #[tokio::test]
    async fn unknown_fields_are_skipped() {
        let json =
            r#"{"x": [{"": 0}, {"sentence": "b"}], "sentence": "c", "sentence": "a", "y": {"z": [[]]}}"#;
        assert_eq!(sentences("GET", "/x", Some("application/json"), json).await, ["a"]);
        let form = Some("application/x-www-form-urlencoded");
        assert_eq!(
            sentences("POST", "/x", form, "a&a&&=&b=sentence&%73entence=c&sentence=d=e").await,
            ["c", "d=e"]
        );
        let parts = "--X\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nb\r\n\
                     --X\r\nContent-Disposition: form-data; name=\"sentence\"\r\n\r\na\r\n--X--\r\n";
        assert_eq!(sentences("POST", "/x", Some("multipart/form-data; boundary=X"), parts).await, ["a"]);
    }
}
