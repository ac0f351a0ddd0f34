//! A case: a request and the expected response. README.md in this folder defines the format.

use std::collections::BTreeMap;

use muse_tests::http_client::HttpResponse;
use serde::Deserialize;
use serde_json::Value;

/// Maximum difference of a number from the recorded one.
const TOLERANCE: f64 = 2e-6;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    #[serde(rename = "case")]
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, OneOrMore>,
    pub(crate) body: Option<String>,
    pub(crate) expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub(crate) fn values(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::More(values) => values,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    status: Status,
    json: Option<Value>,
    body: Option<String>,
    allow: Option<Vec<String>>,
    www_authenticate: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    cookies: Option<BTreeMap<String, String>>,
    npy: Option<[usize; 2]>,
    recorded: Option<Box<Expect>>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Status {
    Number(u16),
    Word(Word),
}

#[derive(Debug, Deserialize)]
enum Word {
    #[serde(rename = "4xx")]
    Rejected,
    #[serde(rename = "same-or-4xx")]
    SameOrRejected,
}

impl Expect {
    pub(crate) fn is_status(&self, number: u16) -> bool {
        matches!(self.status, Status::Number(expected) if expected == number)
    }

    /// Returns an error if the response differs from the expectation.
    pub(crate) fn check(&self, method: &str, answer: &HttpResponse) -> Result<(), String> {
        let status = answer.status.as_u16();
        if method == "HEAD" && !answer.body.is_empty() {
            return Err(format!("the answer to HEAD has a body of {} bytes", answer.body.len()));
        }
        if status >= 400 && method != "HEAD" && !is_json(answer) {
            return Err(format!("{status} without JSON: {}", shown(answer)));
        }
        match &self.status {
            Status::Number(expected) if *expected == status => self.check_rest(answer),
            Status::Number(expected) => Err(format!("{status} instead of {expected}: {}", shown(answer))),
            Status::Word(_) if (400..500).contains(&status) => Ok(()),
            Status::Word(Word::Rejected) => Err(format!("{status} instead of 4xx: {}", shown(answer))),
            Status::Word(Word::SameOrRejected) => match &self.recorded {
                Some(recorded) => recorded.check(method, answer),
                None => Err("the case has no recorded response".to_owned()),
            },
        }
    }

    fn check_rest(&self, answer: &HttpResponse) -> Result<(), String> {
        if let Some(expected) = &self.json
            && !matches(expected, &answer.json())
        {
            return Err(format!("{} instead of {expected:.300}", shown(answer)));
        }
        if let Some(expected) = &self.body
            && answer.body != expected.as_bytes()
        {
            return Err(format!("{} instead of {expected}", shown(answer)));
        }
        if let Some(expected) = &self.www_authenticate
            && answer.header("www-authenticate") != expected
        {
            return Err(format!("WWW-Authenticate: {}", answer.header("www-authenticate")));
        }
        if let Some(expected) = &self.allow {
            let mut found: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
            found.sort_unstable();
            let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            expected.sort_unstable();
            if found != expected {
                return Err(format!("Allow: {found:?} instead of {expected:?}"));
            }
        }
        for (name, expected) in &self.headers {
            let found = answer.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
            let good = match (expected.as_deref(), found.as_deref()) {
                (Some("<any text>"), Some(_)) | (None, None) => true,
                (expected, found) => expected == found,
            };
            if !good {
                return Err(format!("{name}: {found:?} instead of {expected:?}"));
            }
        }
        self.cookies.as_ref().map_or(Ok(()), |expected| check_cookies(expected, answer))?;
        self.npy.map_or(Ok(()), |shape| check_npy(shape, &answer.body))
    }
}

fn shown(answer: &HttpResponse) -> String {
    String::from_utf8_lossy(&answer.body).chars().take(300).collect()
}

fn is_json(answer: &HttpResponse) -> bool {
    let kind = answer.header("content-type");
    ["application/json", "application/problem+json"].contains(&kind) && answer.json().is_object()
}

fn matches(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::String(any), Value::String(found)) if any == "<any text>" => !found.is_empty(),
        (Value::String(any), Value::Number(_)) if any == "<any number>" => true,
        (Value::String(any), Value::String(found)) if any == "<JWT>" => is_token(found),
        (Value::Object(expected), Value::Object(found)) => {
            expected.len() == found.len()
                && expected
                    .iter()
                    .all(|(name, value)| found.get(name).is_some_and(|found| matches(value, found)))
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len() && expected.iter().zip(found).all(|(a, b)| matches(a, b))
        }
        (Value::Number(expected), Value::Number(found)) => {
            let close = |a: f64, b: f64| (a - b).abs() <= TOLERANCE;
            expected.as_f64().zip(found.as_f64()).is_some_and(|(a, b)| close(a, b))
        }
        _ => expected == found,
    }
}

fn is_token(text: &str) -> bool {
    text.split('.').filter(|part| !part.is_empty()).count() == 3
}

fn check_cookies(expected: &BTreeMap<String, String>, answer: &HttpResponse) -> Result<(), String> {
    let mut found = BTreeMap::new();
    for line in answer.headers.get_all("set-cookie") {
        let line = String::from_utf8_lossy(line.as_bytes()).into_owned();
        let mut parts = line.split("; ");
        let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).unwrap_or_default();
        let attributes: Vec<&str> = parts.collect();
        for wanted in ["HttpOnly", "SameSite=Strict", "Path=/"] {
            if !attributes.contains(&wanted) {
                return Err(format!("{wanted} is not in {line}"));
            }
        }
        if value.is_empty() != attributes.contains(&"Max-Age=0") {
            return Err(format!("neither set nor cleared: {line}"));
        }
        found.insert(name.to_owned(), Value::from(value));
    }
    let good = expected.len() == found.len()
        && expected.iter().all(|(name, value)| {
            found.get(name).is_some_and(|found| matches(&Value::from(value.as_str()), found))
        });
    if good { Ok(()) } else { Err(format!("cookies {found:?} instead of {expected:?}")) }
}

/// Checks a .npy file: version 1.0, little-endian f32, row-major order, rows of norm 1.
fn check_npy([rows, columns]: [usize; 2], body: &[u8]) -> Result<(), String> {
    let Some(rest) = body.strip_prefix(b"\x93NUMPY\x01\x00") else {
        return Err("no .npy file of version 1.0".to_owned());
    };
    let (length, rest) = rest.split_at_checked(2).ok_or("a header without a length")?;
    let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
    let (header, data) = rest.split_at_checked(length).ok_or("a short header")?;
    let wanted = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let header = String::from_utf8_lossy(header);
    if header.trim_end() != wanted || !header.ends_with('\n') || (10 + length) % 64 != 0 {
        return Err(format!("{header:?} instead of {wanted}"));
    }
    if data.len() != rows * columns * 4 {
        return Err(format!("{} bytes of data", data.len()));
    }
    let squares = |row: &[u8]| -> f32 {
        row.chunks_exact(4)
            .map(|number| f32::from_le_bytes([number[0], number[1], number[2], number[3]]).powi(2))
            .sum()
    };
    match data.chunks_exact(columns * 4).map(squares).find(|length| (length - 1.0).abs() > 1e-4) {
        Some(length) => Err(format!("a vector of length {length}")),
        None => Ok(()),
    }
}
