//! An HTTP/1.1 client for plain text.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

/// A client of one address, with a connection pool.
#[derive(Debug, Clone)]
pub struct HttpClient {
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A response with its whole body.
#[derive(Debug)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl HttpResponse {
    /// The body as JSON, or null if it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A text field of a JSON body. Panics if it is missing.
    #[must_use]
    pub fn text_of(&self, name: &str) -> String {
        let text = self.json()[name].as_str().map(str::to_owned);
        text.unwrap_or_else(|| panic!("there is no {name} in {self:?}"))
    }

    /// A header as text, or an empty text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl HttpClient {
    /// Creates a client of the server at `address`.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// The address of the server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request with these headers.
    pub async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> HttpResponse {
        self.try_send(method, target, headers, body).await.expect("the server responds")
    }

    /// As [`HttpClient::send`], for a server that may not respond.
    ///
    /// # Errors
    ///
    /// A description of the failure.
    pub async fn try_send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<HttpResponse, String> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{target}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).expect("the request is well-formed");
        let response = self.client.request(request).await.map_err(|failure| format!("{failure:?}"))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|failure| format!("{failure:?}"))?.to_bytes();
        Ok(HttpResponse { status: head.status, headers: head.headers, body })
    }

    /// Sends POST to `/login`, with additional headers.
    pub async fn log_in(&self, username: &str, password: &str, headers: &[(&str, &str)]) -> HttpResponse {
        let body = json!({ "username": username, "password": password }).to_string();
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.send("POST", "/login", &headers, &body).await
    }

    /// Sends GET with a token.
    pub async fn get(&self, target: &str, token: &str) -> HttpResponse {
        self.send("GET", target, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    /// Sends POST with a token and no body.
    pub async fn post(&self, target: &str, token: &str) -> HttpResponse {
        self.send("POST", target, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    /// Sends a request with a token and a JSON body.
    pub async fn json(&self, method: &str, target: &str, token: &str, body: &Value) -> HttpResponse {
        self.try_json(method, target, token, body).await.expect("the server responds")
    }

    /// As [`HttpClient::json`], for a server that may not respond.
    ///
    /// # Errors
    ///
    /// A description of the failure.
    pub async fn try_json(
        &self,
        method: &str,
        target: &str,
        token: &str,
        body: &Value,
    ) -> Result<HttpResponse, String> {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.try_send(method, target, &headers, &body.to_string()).await
    }
}
