//! A plain HTTP/1.1 client.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

/// Keeps connections to one address.
#[derive(Debug, Clone)]
pub struct HttpClient {
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON, or null where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A text in a JSON body, which has it.
    #[must_use]
    pub fn text_of(&self, name: &str) -> String {
        let text = self.json()[name].as_str().map(str::to_owned);
        text.unwrap_or_else(|| panic!("there is no {name} in {self:?}"))
    }

    /// A header as text, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl HttpClient {
    /// A client of the server at `address`.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Where the server is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request with these headers.
    pub async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.try_send(method, target, headers, body).await.expect("the server answers")
    }

    /// As [`HttpClient::send`], for a server that may not answer.
    ///
    /// # Errors
    ///
    /// What has happened instead.
    pub async fn try_send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{target}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).expect("the request is well-formed");
        let response = self.client.request(request).await.map_err(|failure| format!("{failure:?}"))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|failure| format!("{failure:?}"))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// POST to `/login`, with further headers.
    pub async fn log_in(&self, username: &str, password: &str, headers: &[(&str, &str)]) -> Answer {
        let body = json!({ "username": username, "password": password }).to_string();
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.send("POST", "/login", &headers, &body).await
    }

    /// GET with a token.
    pub async fn get(&self, target: &str, token: &str) -> Answer {
        self.send("GET", target, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    /// POST with a token and no body.
    pub async fn post(&self, target: &str, token: &str) -> Answer {
        self.send("POST", target, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    /// A request with a token and a JSON body.
    pub async fn json(&self, method: &str, target: &str, token: &str, body: &Value) -> Answer {
        self.try_json(method, target, token, body).await.expect("the server answers")
    }

    /// As [`HttpClient::json`], for a server that may not answer.
    ///
    /// # Errors
    ///
    /// What has happened instead.
    pub async fn try_json(
        &self,
        method: &str,
        target: &str,
        token: &str,
        body: &Value,
    ) -> Result<Answer, String> {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.try_send(method, target, &headers, &body.to_string()).await
    }
}
