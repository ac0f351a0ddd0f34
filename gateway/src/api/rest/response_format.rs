//! The format of the response of `/embed`, by the argument `format` or the header `Accept`.

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use muse_proto::{
    Error, Reason,
    v1::{Embedding, VectorFormat},
};

use super::{arguments::Arguments, response::RestError};
use crate::api::accept::weighted;

/// The values of the argument `format`.
const NAMES: [(&str, ResponseFormat); 4] = [
    ("json", ResponseFormat::Json),
    ("npy", ResponseFormat::Npy(NumberFormat::Float32)),
    ("float16", ResponseFormat::Npy(NumberFormat::Float16)),
    ("int8", ResponseFormat::Npy(NumberFormat::Int8)),
];

/// The format of the response of `/embed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponseFormat {
    /// `{"embedding": [[…], …]}`.
    Json,
    /// A NumPy file.
    Npy(NumberFormat),
}

/// The format of the components of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberFormat {
    Float32,
    Float16,
    Int8,
}

impl NumberFormat {
    /// The `descr` of NumPy.
    pub(super) fn descr(self) -> &'static str {
        match self {
            Self::Float32 => "<f4",
            Self::Float16 => "<f2",
            Self::Int8 => "|i1",
        }
    }

    /// The value of `EmbedRequest.format`.
    pub(super) fn requested(self) -> VectorFormat {
        match self {
            Self::Float32 => VectorFormat::Unspecified,
            Self::Float16 => VectorFormat::Float16,
            Self::Int8 => VectorFormat::Int8,
        }
    }

    /// The bytes of the components in an embedding of this format.
    pub(super) fn bytes(self, embedding: &mut Embedding) -> &mut Bytes {
        match self {
            Self::Float32 => &mut embedding.packed,
            Self::Float16 | Self::Int8 => &mut embedding.encoded,
        }
    }

    /// Bytes of a number.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 => 2,
            Self::Int8 => 1,
        }
    }
}

impl ResponseFormat {
    /// The format by `Accept`: JSON, unless `application/octet-stream` has a higher weight.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let listed = weighted(headers, header::ACCEPT);
        let weight = |name: &str| listed.iter().find(|(listed, _)| listed == name).map(|(_, weight)| *weight);
        let npy = weight("application/octet-stream").unwrap_or(0);
        let json = match weight("application/json") {
            Some(named) => named,
            // A range is less specific than a name.
            None => weight("application/*").or(weight("*/*")).unwrap_or(0).saturating_sub(1),
        };
        if npy > json { Self::Npy(NumberFormat::Float32) } else { Self::Json }
    }

    /// The format by the argument `format`, if there is one; it takes precedence over `Accept`.
    pub(super) fn named(arguments: &mut Arguments) -> Result<Option<Self>, RestError> {
        match arguments.first("format") {
            Err(RestError::Blank(_)) => Ok(None),
            Err(error) => Err(error),
            Ok(name) => match NAMES.iter().find(|(known, _)| name == *known) {
                Some((_, format)) => Ok(Some(*format)),
                None => {
                    let text =
                        format!("format: 'json', 'npy', 'float16' and 'int8' are known, '{name}' is not");
                    Err(Error::new(Reason::InvalidArgument, text).into())
                }
            },
        }
    }

    /// The numbers in the response of the embedder.
    pub(super) fn numbers(self) -> NumberFormat {
        match self {
            Self::Json => NumberFormat::Float32,
            Self::Npy(numbers) => numbers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_defaults_to_json() {
        let accepted = |value: &str| {
            ResponseFormat::accepted(&HeaderMap::from_iter([(header::ACCEPT, value.parse().unwrap())]))
        };
        assert_eq!(ResponseFormat::accepted(&HeaderMap::new()), ResponseFormat::Json);
        for json in [
            "*/*",
            "application/json",
            "application/json, application/octet-stream",
            "application/octet-stream;q=0.5, */*",
            "application/octet-stream;q=0",
            "text/html",
        ] {
            assert_eq!(accepted(json), ResponseFormat::Json, "{json}");
        }
        for npy in [
            "application/octet-stream",
            "application/octet-stream, */*",
            "Application/Octet-Stream, application/json;q=0.9",
            "application/octet-stream;q=0.2, */*;q=0.1",
        ] {
            assert_eq!(accepted(npy), ResponseFormat::Npy(NumberFormat::Float32), "{npy}");
        }
    }
}
