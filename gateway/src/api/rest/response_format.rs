//! In which form a client wants its vectors.

use axum::http::{HeaderMap, header};
use muse_proto::{Error, Reason};

use super::{arguments::Arguments, response::RestError};
use crate::api::accept::weighted;

/// The form of the answer of `/embed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponseFormat {
    /// `{"embedding": [[…], …]}`.
    Json,
    /// A file of NumPy.
    Npy,
}

impl ResponseFormat {
    /// What the headers ask for; JSON unless they name `application/octet-stream` and like it no less.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let listed = weighted(headers, header::ACCEPT);
        let weight = |name: &str| listed.iter().find(|(listed, _)| listed == name).map(|(_, weight)| *weight);
        let npy = weight("application/octet-stream").unwrap_or(0);
        let json = match weight("application/json") {
            Some(named) => named,
            // A range is less than a name.
            None => weight("application/*").or(weight("*/*")).unwrap_or(0).saturating_sub(1),
        };
        if npy > json { Self::Npy } else { Self::Json }
    }

    /// What the argument `format` asks for, if it is there; it counts more than the headers.
    pub(super) fn named(arguments: &mut Arguments) -> Result<Option<Self>, RestError> {
        match arguments.first("format") {
            Err(RestError::Blank(_)) => Ok(None),
            Err(refusal) => Err(refusal),
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
    fn json_is_for_those_who_do_not_ask() {
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
