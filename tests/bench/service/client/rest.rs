//! A REST client with pre-encoded bodies that only counts the bytes of responses.

use std::net::SocketAddr;

use bytes::{Buf, Bytes};
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::Outcome;
use crate::workload::Call;

/// The response format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// JSON.
    Json,
    /// A NumPy file.
    Npy,
}

impl Form {
    fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::Npy => "application/octet-stream",
        })
    }

    /// Minimum size of a vector in bytes.
    fn vector_bytes(self) -> usize {
        match self {
            // One digit and a comma for each number.
            Self::Json => 512 * 2,
            Self::Npy => 512 * 4,
        }
    }
}

/// The version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A client of `/embed`.
#[derive(Debug, Clone)]
pub(crate) struct RestClient {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    token: HeaderValue,
    form: Form,
}

impl RestClient {
    /// A client that connects when it is first used.
    pub(crate) fn new(address: SocketAddr, token: &str, form: Form, version: Version) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut client = Client::builder(TokioExecutor::new());
        if version == Version::Http2 {
            client.http2_only(true).http2_initial_stream_window_size(16 << 20);
            client.http2_initial_connection_window_size(64 << 20);
        }
        Self {
            client: client.build(connector),
            uri: format!("http://{address}/embed").parse().expect("the address makes a URL"),
            token: format!("Bearer {token}").parse().expect("a token is ASCII"),
            form,
        }
    }

    /// Sends `POST /embed`.
    pub(crate) async fn embed(&self, call: &Call) -> Outcome {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(header::AUTHORIZATION, self.token.clone())
            .header(header::CONTENT_TYPE, Form::Json.media_type())
            .header(header::ACCEPT, self.form.media_type())
            .body(Full::from(call.json.clone()))
            .expect("the request is well-formed");
        let Ok(response) = self.client.request(request).await else { return Outcome::Broken };
        let (status, mut body, mut bytes) = (response.status(), response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Outcome::Broken };
            bytes += frame.data_ref().map_or(0, Buf::remaining);
        }
        if status.is_success() {
            Outcome::of_bytes(bytes, call.sentences * self.form.vector_bytes())
        } else {
            Outcome::Http(status.as_u16())
        }
    }
}
