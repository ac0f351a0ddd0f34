//! Compression of responses with gzip or zstd, by `Accept-Encoding`.
//!
//! This is not tower-http's `CompressionLayer`, which compresses on the threads of the async runtime: thousands of vectors are
//! megabytes. Here a blocking thread compresses. A body that is produced in pieces is compressed piece by piece, while the client
//! reads it.

use std::io::{self, Write};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use http_body_util::BodyExt;
use tracing::error;

use crate::api::{problem::Problem, weighted};

/// Bytes of the smallest body that is compressed.
const MIN_BYTES: usize = 1024;
const ZSTD_LEVEL: i32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Zstd,
    Gzip,
}

impl Encoding {
    /// The encoding with the highest weight; of equal ones zstd, which is faster and smaller.
    fn preferred(headers: &HeaderMap) -> Option<Self> {
        let listed = weighted(headers, header::ACCEPT_ENCODING);
        let weight =
            |name: &str| listed.iter().find(|(listed, _)| listed == name).map_or(0, |(_, weight)| *weight);
        let (zstd, gzip) = (weight("zstd"), weight("gzip"));
        match zstd.max(gzip) {
            0 => None,
            best if zstd == best => Some(Self::Zstd),
            _ => Some(Self::Gzip),
        }
    }

    fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        })
    }

    fn encode(self, body: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body)?;
                encoder.finish()
            }
        }
    }
}

/// Compresses a body that comes in pieces. It allocates its window: 32 KiB for gzip, some 500 KiB for zstd.
enum StreamCompressor {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl StreamCompressor {
    fn new(encoding: Encoding) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?),
            Encoding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
        })
    }

    /// Adds a piece, and returns the compressed bytes so far.
    fn add(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        let encoded = match self {
            Self::Zstd(encoder) => {
                encoder.write_all(piece)?;
                encoder.get_mut()
            }
            Self::Gzip(encoder) => {
                encoder.write_all(piece)?;
                encoder.get_mut()
            }
        };
        Ok(std::mem::take(encoded))
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

/// Compresses the response, for `from_fn`. A body without a known size comes in pieces.
pub(crate) async fn compress(request: Request, next: Next) -> Response {
    let encoding = Encoding::preferred(request.headers());
    let mut response = next.run(request).await;
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let size = http_body::Body::size_hint(response.body()).exact();
    match encoding {
        Some(encoding) if size.is_none() => encoded_in_pieces(response, encoding),
        Some(encoding) if size.is_some_and(|size| size >= MIN_BYTES as u64) => {
            encoded(response, encoding).await
        }
        _ => response,
    }
}

fn encoded_in_pieces(response: Response, encoding: Encoding) -> Response {
    let (mut head, body) = response.into_parts();
    let encoder = match StreamCompressor::new(encoding) {
        Ok(encoder) => encoder,
        Err(failure) => {
            error!(%failure, "a response cannot be compressed");
            return Problem::fault().into_response();
        }
    };
    let pieces = stream::try_unfold(Some((body, encoder)), async |rest| {
        let Some((mut body, mut encoder)) = rest else { return Ok(None) };
        loop {
            let piece = match body.frame().await {
                Some(frame) => frame.map_err(io::Error::other)?.into_data().unwrap_or_default(),
                None => {
                    let last = tokio::task::spawn_blocking(|| encoder.finish()).await;
                    return Ok(Some((last.map_err(io::Error::other)??, None)));
                }
            };
            let adding = tokio::task::spawn_blocking(move || (encoder.add(&piece), encoder));
            let (encoded, next) = adding.await.map_err(io::Error::other)?;
            encoder = next;
            let encoded = encoded?;
            if !encoded.is_empty() {
                return Ok::<_, io::Error>(Some((encoded, Some((body, encoder)))));
            }
        }
    });
    head.headers.insert(header::CONTENT_ENCODING, encoding.name());
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from_stream(pieces))
}

async fn encoded(response: Response, encoding: Encoding) -> Response {
    let (mut head, body) = response.into_parts();
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return Problem::fault().into_response();
    };
    let compressing = tokio::task::spawn_blocking(move || encoding.encode(&body)).await;
    match compressing.map_err(io::Error::other).flatten() {
        Ok(compressed) => {
            head.headers.insert(header::CONTENT_ENCODING, encoding.name());
            head.headers.insert(header::CONTENT_LENGTH, compressed.len().into());
            Response::from_parts(head, Body::from(compressed))
        }
        Err(failure) => {
            error!(%failure, "a response cannot be compressed");
            Problem::fault().into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn preferred(accepted: &str) -> Option<Encoding> {
        Encoding::preferred(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, accepted.parse().unwrap())]))
    }

    #[test]
    fn encoding_follows_accept_encoding() {
        assert_eq!(Encoding::preferred(&HeaderMap::new()), None);
        for (accepted, expected) in [
            ("gzip, deflate, br, zstd", Some(Encoding::Zstd)),
            ("gzip", Some(Encoding::Gzip)),
            ("zstd;q=0.5, gzip;q=0.8", Some(Encoding::Gzip)),
            ("zstd;q=0, GZIP;q=0.001", Some(Encoding::Gzip)),
            ("identity", None),
            ("*", None),
            ("br", None),
            ("gzip;q=0, zstd;q=0", None),
        ] {
            assert_eq!(preferred(accepted), expected, "{accepted}");
        }
    }

    #[tokio::test]
    async fn body_in_pieces_is_compressed_in_pieces() {
        let piece = b"0.012345678,0.9,".repeat(10_000);
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let (pieces, expected) = (vec![piece.clone(); 20], piece.repeat(20));
            let body = Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, io::Error>)));
            let response = encoded_in_pieces(Response::new(body), encoding);
            assert_eq!(response.headers()[header::CONTENT_ENCODING], encoding.name());
            let encoded = response.into_body().collect().await.unwrap().to_bytes();
            assert!(encoded.len() < expected.len() / 10, "{}", encoded.len());
            let mut decoded = Vec::new();
            match encoding {
                Encoding::Gzip => flate2::read::GzDecoder::new(&*encoded).read_to_end(&mut decoded).unwrap(),
                Encoding::Zstd => zstd::Decoder::new(&*encoded).unwrap().read_to_end(&mut decoded).unwrap(),
            };
            assert!(decoded == expected);
        }
    }

    #[test]
    fn compressed_body_decompresses() {
        let body = b"0.012345678,".repeat(1000);
        let mut unzipped = Vec::new();
        let gzip = Encoding::Gzip.encode(&body).unwrap();
        flate2::read::GzDecoder::new(gzip.as_slice()).read_to_end(&mut unzipped).unwrap();
        assert_eq!(unzipped, body);
        let zstd = Encoding::Zstd.encode(&body).unwrap();
        assert_eq!(zstd::bulk::decompress(&zstd, body.len()).unwrap(), body);
    }
}
