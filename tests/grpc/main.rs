//! The gRPC services through the gateway.

mod admin;
mod browser;
mod deadlines;
mod fairness;
mod fingerprint;
mod health;
mod inputs;
mod limits;
mod outages;
mod reflection;
mod stream;
mod tokens;
mod web;

use muse_proto::{Error, Reason, v1::EmbedRequest};
use tonic::{Status, metadata::MetadataMap};

fn reason(status: &Status) -> Reason {
    Error::from(status).reason()
}

fn sentences(texts: &[&str]) -> EmbedRequest {
    EmbedRequest {
        sentences: texts.iter().map(|text| (*text).to_owned()).collect(),
        ..EmbedRequest::default()
    }
}

/// Milliseconds of a step, by `server-timing`.
fn timing(metadata: &MetadataMap, step: &str) -> f64 {
    let timings = metadata.get("server-timing").expect("timings").to_str().expect("ASCII");
    let found = timings.split(", ").find_map(|entry| entry.strip_prefix(step)?.strip_prefix(";dur="));
    found.unwrap_or_else(|| panic!("{step} is not in {timings}")).parse().expect("a number")
}
