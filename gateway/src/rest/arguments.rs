//! The arguments of a REST request, gathered as the old service gathered them: from a JSON body, then from the query,
//! then (on POST) from a form or multipart body.

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
};
use bytes::Bytes;
use futures::{FutureExt, stream};
use muse_proto::{Error, Reason};
use serde_json::Value;

use super::answer::Refusal;
use crate::request::{parsed, read_body};

/// What some programs put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A name and its values; no value where it is of a kind that none of them can have, which matters only to who asks for it.
type Argument = (String, Vec<Option<String>>);

/// Names and values, in the order in which they count.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments(Vec<Argument>);

impl Arguments {
    /// Reads a request whose body is no longer than `limit` bytes.
    pub(super) async fn read(request: Request, limit: usize) -> Result<Self, Refusal> {
        let (head, body) = request.into_parts();
        let query = urlencoded(head.uri.query().unwrap_or_default().as_bytes());
        let Some(form) = BodyForm::of(&head.method, &head.headers) else { return Ok(Self(query)) };
        let json_comes_first = form == BodyForm::Json;
        let body = parsed(read_body(body, limit).await?, |body| form.read(body)).await??;
        let (mut all, rest) = if json_comes_first { (body, query) } else { (query, body) };
        all.extend(rest);
        Ok(Self(all))
    }

    /// The first value of a name.
    pub(super) fn first(&self, name: &'static str) -> Result<String, Refusal> {
        let mut found = self.0.iter().filter(|(key, _)| key == name).flat_map(|(_, values)| values);
        text(name, found.next().ok_or(Refusal::Blank(name))?.clone())
    }

    /// All values of a name; at least one.
    pub(super) fn all(self, name: &'static str) -> Result<Vec<String>, Refusal> {
        let found = self.0.into_iter().filter(|(key, _)| key == name).flat_map(|(_, values)| values);
        let values = found.map(|value| text(name, value)).collect::<Result<Vec<_>, _>>()?;
        if values.is_empty() { Err(Refusal::Blank(name)) } else { Ok(values) }
    }
}

/// A value that is of a kind that it can have.
fn text(name: &str, value: Option<String>) -> Result<String, Refusal> {
    value.ok_or_else(|| invalid(format!("{name}: a string or a list of strings is expected")))
}

/// The forms in which a body holds arguments.
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

    fn read(self, body: Bytes) -> Result<Vec<Argument>, Refusal> {
        match self {
            Self::Json => json(&body),
            Self::Urlencoded => Ok(urlencoded(&body)),
            // All of the body is there, so there is nothing to wait for.
            Self::Multipart { boundary } => Ok(multipart(body, boundary).now_or_never().unwrap_or_default()),
        }
    }
}

fn urlencoded(text: &[u8]) -> Vec<Argument> {
    let pairs = form_urlencoded::parse(text).into_owned();
    pairs.map(|(name, value)| (name, vec![Some(value)])).collect()
}

fn json(body: &[u8]) -> Result<Vec<Argument>, Refusal> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let fields = match serde_json::from_slice(body).map_err(|_| Refusal::NotJson)? {
        Value::Object(fields) => fields,
        // What Python takes for false holds nothing, though not 0 and false, on which the old service failed.
        Value::Null => return Ok(Vec::new()),
        Value::Array(items) if items.is_empty() => return Ok(Vec::new()),
        Value::String(text) if text.is_empty() => return Ok(Vec::new()),
        _ => return Err(invalid("The JSON body must be an object".to_owned())),
    };
    let arguments = fields.into_iter().map(|(name, value)| {
        let items = if let Value::Array(items) = value { items } else { vec![value] };
        (name, items.into_iter().map(scalar).collect())
    });
    Ok(arguments.collect())
}

/// A malformed body gives what can be read of it, as in the old service.
async fn multipart(body: Bytes, boundary: String) -> Vec<Argument> {
    let mut arguments = Vec::new();
    let mut parts = multer::Multipart::new(stream::iter([Ok::<_, std::io::Error>(body)]), boundary);
    while let Ok(Some(field)) = parts.next_field().await {
        let (Some(name), None) = (field.name().map(str::to_owned), field.file_name()) else { continue };
        let Ok(value) = field.bytes().await else { break };
        arguments.push((name, vec![Some(String::from_utf8_lossy(&value).into_owned())]));
    }
    arguments
}

fn invalid(text: String) -> Refusal {
    Error::new(Reason::InvalidArgument, text).into()
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

/// The text of a JSON string, number or boolean, the latter two as Python prints them; nothing for the rest.
fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Number(number) if number.is_f64() => number.as_f64().map(python_float),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Python's `repr` of a float: the shortest digits that read back, positional for exponents from -4 to 15.
fn python_float(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(-4..=15) => format!("{number:?}"),
        Ok(exponent) => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
        Err(_) => scientific,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    async fn read(
        method: &str,
        target: &str,
        content_type: Option<&str>,
        body: &str,
    ) -> Result<Arguments, Refusal> {
        let mut request = Request::builder().method(method).uri(target);
        if let Some(kind) = content_type {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        Arguments::read(request.body(Body::from(body.to_owned())).unwrap(), 1_000).await
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
    async fn a_bad_json_body_is_refused_even_if_the_query_is_complete() {
        for body in ["", "{bad", "{\"sentence\": \"\\ud800\"}"] {
            let refused = read("GET", "/embed?sentence=a", Some("application/json"), body).await;
            assert!(matches!(refused, Err(Refusal::NotJson)), "{body}: {refused:?}");
        }
        for body in ["5", "true", "[1]"] {
            let refused = read("GET", "/embed?sentence=a", Some("application/json"), body).await;
            assert!(matches!(refused, Err(Refusal::Error(_))), "{body}: {refused:?}");
        }
        for body in [r#"{"sentence": null}"#, r#"{"sentence": ["a", {}]}"#, r#"{"sentence": [["a"]]}"#] {
            let read = read("GET", "/embed?sentence=a", Some("application/json"), body).await.unwrap();
            assert!(matches!(read.first("other"), Err(Refusal::Blank("other"))), "{body}");
            assert!(matches!(read.all("sentence"), Err(Refusal::Error(_))), "{body}");
        }
    }

    #[tokio::test]
    async fn forms_count_on_post_alone() {
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
    async fn a_body_beyond_the_limit_is_refused_with_the_number() {
        let long = format!("{{\"sentence\": \"{}\"}}", "x".repeat(1_000));
        let Err(Refusal::Error(refusal)) = read("GET", "/x", Some("application/json"), &long).await else {
            panic!("a long body was accepted")
        };
        assert_eq!(refusal.reason(), Reason::TooLarge);
        assert!(refusal.message().contains("1000 bytes"), "{refusal}");
    }

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        let cases = [(2.5, "2.5"), (1.0, "1.0"), (1e15, "1000000000000000.0"), (1e16, "1e+16")];
        for (number, text) in
            cases.into_iter().chain([(1e-4, "0.0001"), (1.5e-5, "1.5e-05"), (-1e100, "-1e+100")])
        {
            assert_eq!(python_float(number), text);
        }
    }
}
