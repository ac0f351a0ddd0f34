//! The format of the response of `/embed`, by the argument `format` or the header `Accept`.

use axum::http::{HeaderMap, header};
use muse_proto::{Error, Reason};

use super::{arguments::Arguments, response::RestError};
use crate::api::accept::weighted;

/// The format of the response of `/embed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponseFormat {
    /// `{"embedding": [[…], …]}`.
    Json,
    /// A NumPy file.
    Npy,
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
        if npy > json { Self::Npy } else { Self::Json }
    }

    /// The format by the argument `format`, if there is one; it takes precedence over `Accept`.
    pub(super) fn named(arguments: &mut Arguments) -> Result<Option<Self>, RestError> {
        match arguments.first("format") {
            Err(RestError::Blank(_)) => Ok(None),
            Err(error) => Err(error),
            Ok(name) if name == "json" => Ok(Some(Self::Json)),
            Ok(name) if name == "npy" => Ok(Some(Self::Npy)),
            Ok(name) => {
                let text = format!("format: 'json' and 'npy' are known, '{name}' is not");
                Err(Error::new(Reason::InvalidArgument, text).into())
            }
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
            assert_eq!(accepted(npy), ResponseFormat::Npy, "{npy}");
        }
    }
}
