//! The web page: the files of `gateway/web/`, which are part of the program.
//!
//! The page itself is at `/`, and names its files by a hash of all of them, so that browsers cache these for ever and a new version
//! of the program is loaded at once. All URLs are relative: a proxy may serve the gateway below a path.

use std::{borrow::Cow, fmt::Write, sync::LazyLock};

use axum::{
    extract::{Path, Request, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use clap::ValueEnum;
use muse_verifier::Verifier;
use rust_embed::Embed;
use sha2::{Digest, Sha256};

use crate::{
    Cookies,
    api::routing::{not_found, on_get},
    auth::{ApiRouter, Routes},
};

pub(crate) const INDEX_PATH: &str = "/";
/// The path of the files, before their hash.
pub(crate) const FILES_PATH: &str = "/page/";
const INDEX: &str = "index.html";
/// Browsers ask whether they have the current page.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");
/// Files of one hash never change.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Whether the page is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Page {
    /// It is at `/`.
    On,
    /// There is nothing at `/`.
    Off,
}

#[derive(Embed)]
#[folder = "web/"]
struct Files;

/// The first 16 hexadecimal digits of a SHA-256 of the names and contents of all files.
static HASH: LazyLock<String> = LazyLock::new(|| {
    let mut names: Vec<_> = Files::iter().collect();
    names.sort_unstable();
    let mut all = Sha256::new();
    for (name, file) in names.iter().filter_map(|name| Some((name, Files::get(name)?))) {
        all.update(name.as_bytes());
        all.update(file.metadata.sha256_hash());
    }
    all.finalize()[..8].iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
});

pub(crate) fn routes(verifier: &Verifier, page: Page, cookies: Cookies) -> ApiRouter {
    let routes = Routes::new(verifier, Cookies::Off);
    if page == Page::Off {
        return routes.with_state(());
    }
    let index = Index::new(cookies);
    routes
        .public_route(INDEX_PATH, on_get(get(async move |headers: HeaderMap| index.respond(&headers))))
        .public_route(&format!("{FILES_PATH}{{hash}}/{{*name}}"), on_get(get(file)))
        .with_state(())
}

/// The page at `/`.
#[derive(Debug, Clone)]
struct Index {
    html: Bytes,
    etag: HeaderValue,
}

impl Index {
    fn new(cookies: Cookies) -> Self {
        let file = Files::get(INDEX).expect("the page is part of the program");
        let cookies = cookies.to_possible_value().expect("no value is hidden");
        let html = String::from_utf8_lossy(&file.data)
            .replace("{{assets}}", &format!("{}{}", FILES_PATH.trim_start_matches('/'), *HASH))
            .replace("{{version}}", env!("CARGO_PKG_VERSION"))
            .replace("{{cookies}}", cookies.get_name());
        let etag = format!("\"{}-{}\"", *HASH, cookies.get_name());
        let etag = HeaderValue::try_from(etag).expect("a hash is a header value");
        Self { html: html.into(), etag }
    }

    fn respond(&self, headers: &HeaderMap) -> Response {
        let caching = [(header::CACHE_CONTROL, REVALIDATE), (header::ETAG, self.etag.clone())];
        if headers.get(header::IF_NONE_MATCH).is_some_and(|known| self.is_in(known)) {
            return (StatusCode::NOT_MODIFIED, caching).into_response();
        }
        (caching, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], self.html.clone()).into_response()
    }

    /// Whether its ETag is in the value of an `If-None-Match`, where proxies may have marked it as weak.
    fn is_in(&self, known: &HeaderValue) -> bool {
        let mut tags = known.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        tags.any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == self.etag.as_bytes())
    }
}

async fn file(path: Result<Path<(String, String)>, PathRejection>, request: Request) -> Response {
    // A name that is not UTF-8 is unknown, like those of other versions.
    let path = path.ok().filter(|Path((hash, name))| *hash == *HASH && name != INDEX);
    let Some(file) = path.and_then(|Path((_, name))| Files::get(&name)) else {
        return not_found(request).await;
    };
    let content = match file.data {
        Cow::Borrowed(part_of_the_program) => Bytes::from_static(part_of_the_program),
        Cow::Owned(read) => read.into(),
    };
    let content_type = HeaderValue::try_from(file.metadata.mimetype());
    let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    ([(header::CACHE_CONTROL, IMMUTABLE), (header::CONTENT_TYPE, content_type)], content).into_response()
}
