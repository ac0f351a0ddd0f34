//! Requests of all HTTP routes: bodies with limits, content encodings, and the metadata of their calls to services.

use std::{io::Read, time::Duration};

use axum::{
    body::Body,
    http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header, request::Parts},
};
use bytes::Bytes;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use http_body_util::BodyExt;
use muse_balancer::ResponseFingerprint;
use muse_proto::{Error, FINGERPRINT, Reason};
use muse_server::memory_budget::{MemoryBudget, Reservation};
use muse_telemetry::request_telemetry::RequestContext;
use tokio::time::{Instant, timeout_at};

use crate::middleware::client_address::X_FORWARDED_FOR;

/// A larger body is parsed on a blocking thread.
const MAX_INLINE_BODY: usize = 32 << 10;
/// Time for reading the body of a rejected request.
const LINGER: Duration = Duration::from_secs(2);
/// Timeout of the next part of a body.
pub(crate) const NEXT_PART_WITHIN: Duration = Duration::from_secs(30);
/// Timeout of a whole body.
pub(crate) const BODY_WITHIN: Duration = Duration::from_secs(300);

/// A call for the request with these headers and extensions: with its token, if any, its context, and the client's address.
pub(crate) fn on_behalf_of<T>(headers: &HeaderMap, extensions: &Extensions, message: T) -> tonic::Request<T> {
    let mut call = tonic::Request::new(message);
    RequestContext::copy(extensions, call.extensions_mut());
    let metadata: &mut HeaderMap = call.metadata_mut().as_mut();
    for name in [header::AUTHORIZATION, X_FORWARDED_FOR] {
        for value in headers.get_all(&name) {
            metadata.append(&name, value.clone());
        }
    }
    call
}

/// As [`on_behalf_of`], for a call to the embedders: with the fingerprint that the request requires. The response sets the
/// fingerprint of the request's response.
pub(crate) fn embedder_call<T>(
    headers: &HeaderMap,
    extensions: &Extensions,
    message: T,
) -> tonic::Request<T> {
    let mut call = on_behalf_of(headers, extensions, message);
    let metadata: &mut HeaderMap = call.metadata_mut().as_mut();
    for value in headers.get_all(FINGERPRINT) {
        metadata.append(FINGERPRINT, value.clone());
    }
    if let Some(responded) = extensions.get::<ResponseFingerprint>() {
        call.extensions_mut().insert(responded.clone());
    }
    call
}

/// Headers of a response.
pub(crate) type Headers = Vec<(HeaderName, HeaderValue)>;

/// Why a body is rejected.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// An error of the table.
    Error(Error),
    /// The body stopped arriving; `closes` is whether that ends the connection.
    Timeout { closes: bool },
    /// The content encoding is not supported.
    Encoding,
}

impl From<Error> for BodyError {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl BodyError {
    /// The status, text and headers of an error that is not in the table, or else the error.
    pub(crate) fn response(&self) -> Result<(StatusCode, &'static str, Headers), &Error> {
        match self {
            Self::Error(error) => Err(error),
            Self::Timeout { closes } => {
                let close = closes.then_some((header::CONNECTION, HeaderValue::from_static("close")));
                let text = "The body did not arrive in time";
                Ok((StatusCode::REQUEST_TIMEOUT, text, close.into_iter().collect()))
            }
            Self::Encoding => {
                let accepted = (header::ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED_ENCODINGS));
                let text = "The Content-Encoding of the body is not supported; gzip, deflate and zstd are";
                Ok((StatusCode::UNSUPPORTED_MEDIA_TYPE, text, vec![accepted]))
            }
        }
    }
}

/// A body, and the memory that is reserved for it.
#[derive(Debug)]
pub(crate) struct RequestBody {
    pub(crate) bytes: Bytes,
    pub(crate) reservation: Option<Reservation>,
}

/// Reads and decodes a body of at most `limit` bytes, encoded and decoded. Its memory is accounted to `caller`.
pub(crate) async fn read_body(
    memory: &MemoryBudget,
    caller: &str,
    head: &Parts,
    body: Body,
    limit: usize,
) -> Result<RequestBody, BodyError> {
    read_body_within(NEXT_PART_WITHIN, memory, caller, head, body, limit).await
}

async fn read_body_within(
    next_part_within: Duration,
    memory: &MemoryBudget,
    caller: &str,
    head: &Parts,
    mut body: Body,
    limit: usize,
) -> Result<RequestBody, BodyError> {
    let Ok(encoding) = ContentEncoding::of(&head.headers) else {
        read_out(body).await;
        return Err(BodyError::Encoding);
    };
    let timed_out = || BodyError::Timeout { closes: head.version <= Version::HTTP_11 };
    let broke_off = || Error::new(Reason::InvalidArgument, "The body broke off");
    let declared = http_body::Body::size_hint(&body).exact().map(|length| length as usize);
    // The decoded size of an encoded body is not known yet: reserve the limit.
    let needed = declared.filter(|_| encoding.is_none()).unwrap_or(limit).min(limit);
    let mut reservation = None;
    let mut whole = Vec::new();
    let end = Instant::now() + BODY_WITHIN;
    loop {
        let frame = timeout_at(end.min(Instant::now() + next_part_within), body.frame()).await;
        let Some(frame) = frame.map_err(|_| timed_out())? else { break };
        let Ok(data) = frame.map_err(|_| broke_off())?.into_data() else { continue };
        let length = whole.len() + data.len();
        if length > limit || declared.is_some_and(|length| length > limit) {
            read_out(body).await;
            return Err(too_large(limit).into());
        }
        if memory.counts(length) && reservation.is_none() {
            reservation = reserve(memory, caller, needed, &mut body).await?;
        }
        if length > whole.capacity() {
            // Capacity that is not written yet takes no memory.
            let capacity = declared.unwrap_or(2 * length).clamp(length, limit);
            whole.reserve_exact(capacity - whole.len());
        }
        whole.extend_from_slice(&data);
    }
    if let Some(encoding) = encoding {
        if reservation.is_none() {
            reservation = reserve(memory, caller, limit, &mut body).await?;
        }
        let decoding = tokio::task::spawn_blocking(move || encoding.decode(&whole, limit)).await;
        whole = decoding.map_err(|_| Error::new(Reason::Internal, "a body could not be decoded"))??;
    }
    if let Some(reservation) = &mut reservation {
        reservation.shrink_to(whole.len());
    }
    Ok(RequestBody { bytes: whole.into(), reservation })
}

async fn reserve(
    memory: &MemoryBudget,
    caller: &str,
    bytes: usize,
    body: &mut Body,
) -> Result<Option<Reservation>, Error> {
    match memory.reserve(caller, bytes).await {
        Ok(reservation) => Ok(reservation),
        Err(exhausted) => {
            read_out(std::mem::take(body)).await;
            Err(exhausted)
        }
    }
}

fn too_large(limit: usize) -> Error {
    Error::new(Reason::TooLarge, format!("The body is too large; the limit is {limit} bytes"))
}

/// Replaces the field of the embedder's error by that of the request: with the name `input`,
/// `sentences[3]` by `input[3]`, or by `input` if that is one sentence.
pub(crate) fn with_request_field(error: Error, name: &str, is_one: bool) -> Error {
    let Some(field) = error.field() else { return error };
    let Some(index) = field.strip_prefix("sentences").or_else(|| field.strip_prefix("token_ids")) else {
        return error;
    };
    let index = index.replace(".ids", "");
    let index = if is_one { index.strip_prefix("[0]").unwrap_or(&index) } else { &index };
    let request_field = format!("{name}{index}");
    let text = match error.message().strip_prefix(field) {
        Some(rest) => format!("{request_field}{rest}"),
        None => error.message().to_owned(),
    };
    Error::new(error.reason(), text).with_field(request_field)
}

/// The error of a request with sentences; an exceeded limit with advice.
pub(crate) fn with_remedy(error: Error) -> Error {
    if error.reason() != Reason::TooLarge {
        return error;
    }
    let remedy = if error.message().ends_with("a sentence") {
        "split the text"
    } else {
        "send fewer texts per request (LangChain: chunk_size)"
    };
    let field = error.field().map(str::to_owned);
    let advised = Error::new(Reason::TooLarge, format!("{}; {remedy}", error.message()));
    match field {
        Some(field) => advised.with_field(field),
        None => advised,
    }
}

/// The value of `Accept-Encoding` in the response to a request with another encoding (RFC 9110, section 12.5.3).
const ACCEPTED_ENCODINGS: &str = "gzip, deflate, zstd";
/// Maximum window of a zstd frame: the size that RFC 8878, section 3.1.1.1.2, recommends decoders to support.
const ZSTD_WINDOW_LOG: u32 = 23;

/// The supported content encodings of requests.
///
/// This is not tower-http's `RequestDecompressionLayer`, which decodes on the threads of the async runtime and without a memory
/// reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContentEncoding {
    Gzip,
    Deflate,
    Zstd,
}

impl ContentEncoding {
    /// The encoding of a body, if it is encoded; an error if it is not supported.
    fn of(headers: &HeaderMap) -> Result<Option<Self>, ()> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).into_iter();
        let value = values.next().map(HeaderValue::as_bytes).unwrap_or_default().trim_ascii();
        match value.to_ascii_lowercase().as_slice() {
            _ if values.next().is_some() => Err(()),
            b"" | b"identity" => Ok(None),
            b"gzip" | b"x-gzip" => Ok(Some(Self::Gzip)),
            b"deflate" => Ok(Some(Self::Deflate)),
            b"zstd" => Ok(Some(Self::Zstd)),
            _ => Err(()),
        }
    }

    /// Decodes a body to at most `limit` bytes.
    fn decode(self, body: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
        let mut decoded = Vec::new();
        let most = limit as u64 + 1;
        let read = match self {
            Self::Gzip => MultiGzDecoder::new(body).take(most).read_to_end(&mut decoded),
            Self::Deflate => ZlibDecoder::new(body).take(most).read_to_end(&mut decoded),
            Self::Zstd => zstd::stream::read::Decoder::with_buffer(body).and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                decoder.take(most).read_to_end(&mut decoded)
            }),
        };
        match read {
            Ok(length) if length > limit => Err(too_large(limit)),
            Ok(_) => Ok(decoded),
            Err(failure) => {
                let text = format!("The body is not encoded as its Content-Encoding says: {failure}");
                Err(Error::new(Reason::InvalidArgument, text))
            }
        }
    }
}

/// Parses a body, on a blocking thread if it is large.
pub(crate) async fn parsed<T: Send + 'static>(
    body: Bytes,
    parse: impl FnOnce(Bytes) -> T + Send + 'static,
) -> Result<T, Error> {
    if body.len() <= MAX_INLINE_BODY {
        return Ok(parse(body));
    }
    let parsing = tokio::task::spawn_blocking(|| parse(body)).await;
    parsing.map_err(|_| Error::new(Reason::Internal, "a body could not be parsed"))
}

/// Reads and discards the rest of a body, for a limited time. A client that is still sending when the connection is closed may lose
/// the error response (RFC 9112, section 9.6).
pub(crate) async fn read_out(mut body: Body) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use http::Request;

    use super::*;

    async fn read(encoding: &str, body: impl Into<Body>, limit: usize) -> Result<Bytes, BodyError> {
        let (head, ()) =
            Request::builder().header(header::CONTENT_ENCODING, encoding).body(()).unwrap().into_parts();
        let memory = MemoryBudget::new(64 << 20, 64 << 10, Duration::from_secs(1));
        let wait = Duration::from_millis(100);
        read_body_within(wait, &memory, "ann", &head, body.into(), limit).await.map(|body| body.bytes)
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn encoded_bodies_are_decoded_within_the_limit() {
        let body = b"a sentence, ".repeat(1000);
        let zstd = |body: &[u8]| zstd::bulk::compress(body, 1).unwrap();
        for (name, encoded) in [
            ("gzip", gzip(&body)),
            ("X-GZIP", gzip(&body)),
            ("deflate", zlib(&body)),
            ("zstd", zstd(&body)),
            ("identity", body.clone()),
        ] {
            assert_eq!(read(name, encoded.clone(), body.len()).await.unwrap(), body, "{name}");
            let error = read(name, encoded, body.len() - 1).await.unwrap_err();
            assert!(matches!(&error, BodyError::Error(e) if e.reason() == Reason::TooLarge), "{error:?}");
        }
        // A bomb: 64 MiB in some 64 KB.
        for (name, bomb) in [("gzip", gzip(&vec![0; 64 << 20])), ("zstd", zstd(&vec![0; 64 << 20]))] {
            let error = read(name, bomb, 16 << 20).await.unwrap_err();
            assert!(matches!(&error, BodyError::Error(e) if e.reason() == Reason::TooLarge), "{error:?}");
        }
        for (name, broken) in [("gzip", &gzip(&body)[..100]), ("zstd", &zstd(&body)[..10]), ("deflate", b"x")]
        {
            let error = read(name, broken.to_vec(), 1 << 20).await.unwrap_err();
            let expected = Reason::InvalidArgument;
            assert!(matches!(&error, BodyError::Error(e) if e.reason() == expected), "{error:?}");
        }
        for other in ["br", "gzip, gzip", "compress"] {
            assert!(matches!(read(other, "a", 10).await, Err(BodyError::Encoding)), "{other}");
        }
    }

    #[tokio::test]
    async fn body_that_stops_arriving_times_out() {
        let body = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let error = read("identity", body, 1 << 20).await.unwrap_err();
        let (status, _, headers) = error.response().unwrap();
        let close = vec![(header::CONNECTION, HeaderValue::from_static("close"))];
        assert_eq!((status.as_u16(), headers), (408, close));
    }

    #[test]
    fn embedder_errors_name_the_field_of_the_request() {
        for (field, is_one, expected) in [
            ("sentences[3]", false, "input[3]"),
            ("sentences[0]", true, "input"),
            ("sentences", false, "input"),
            ("token_ids[2].ids[5]", false, "input[2][5]"),
            ("token_ids[0].ids[5]", true, "input[5]"),
            ("dimensions", false, "dimensions"),
        ] {
            let error = Error::new(Reason::TooLarge, format!("{field}: too much")).with_field(field);
            let error = with_request_field(error, "input", is_one);
            let text = format!("{expected}: too much");
            assert_eq!((error.field(), error.message()), (Some(expected), text.as_str()));
        }
    }

    #[test]
    fn exceeded_limits_name_a_remedy() {
        for (text, remedy) in [
            ("sentences: 5000 sentences; the limit is 4096 a request", "; send fewer texts per request"),
            ("sentences[3]: 9000 tokens; the limit is 8192 a sentence", "; split the text"),
        ] {
            let advised = with_remedy(Error::new(Reason::TooLarge, text).with_field("f"));
            assert!(advised.message().starts_with(&format!("{text}{remedy}")), "{advised}");
            assert_eq!(advised.field(), Some("f"));
        }
        let other = Error::new(Reason::InvalidArgument, "x");
        assert_eq!(with_remedy(other.clone()), other);
    }
}
