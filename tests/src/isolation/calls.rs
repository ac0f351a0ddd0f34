//! Encoded calls of every method over every protocol.

use std::{fmt, net::SocketAddr};

use bytes::Bytes;
use muse_proto::v1::{EmbedRequest, EmbedStreamRequest, LoginRequest, TokenizeRequest};
use prost::Message;
use serde_json::json;
use tonic_health::pb::HealthCheckRequest;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};

use super::{PASSWORD, frames};

/// A method of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// `EmbedderService.Embed`
    Embed,
    /// `EmbedderService.EmbedStream`
    EmbedStream,
    /// `EmbedderService.Tokenize`
    Tokenize,
    /// `EmbedderService.GetModel`
    GetModel,
    /// `AuthService.Login`
    Login,
    /// `AuthService.RefreshToken`
    RefreshToken,
    /// `AuthService.RevokeToken`
    RevokeToken,
    /// `ServerReflection.ServerReflectionInfo`
    Reflection,
    /// `Health.Watch`
    HealthWatch,
    /// `POST /embed`
    RestEmbed,
    /// `POST /tokenize`
    RestTokenize,
    /// `POST /login`
    RestLogin,
    /// `POST /v1/embeddings`
    OpenAi,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 13] = [
        Self::Embed,
        Self::EmbedStream,
        Self::Tokenize,
        Self::GetModel,
        Self::Login,
        Self::RefreshToken,
        Self::RevokeToken,
        Self::Reflection,
        Self::HealthWatch,
        Self::RestEmbed,
        Self::RestTokenize,
        Self::RestLogin,
        Self::OpenAi,
    ];

    /// The path of the call.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Embed => "/muse.v1.EmbedderService/Embed",
            Self::EmbedStream => "/muse.v1.EmbedderService/EmbedStream",
            Self::Tokenize => "/muse.v1.EmbedderService/Tokenize",
            Self::GetModel => "/muse.v1.EmbedderService/GetModel",
            Self::Login => "/muse.v1.AuthService/Login",
            Self::RefreshToken => "/muse.v1.AuthService/RefreshToken",
            Self::RevokeToken => "/muse.v1.AuthService/RevokeToken",
            Self::Reflection => "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            Self::HealthWatch => "/grpc.health.v1.Health/Watch",
            Self::RestEmbed => "/embed",
            Self::RestTokenize => "/tokenize",
            Self::RestLogin => "/login",
            Self::OpenAi => "/v1/embeddings",
        }
    }

    /// Whether it is a gRPC method.
    #[must_use]
    pub fn is_grpc(self) -> bool {
        !matches!(self, Self::RestEmbed | Self::RestTokenize | Self::RestLogin | Self::OpenAi)
    }

    /// Whether it needs a token.
    #[must_use]
    pub fn needs_token(self) -> bool {
        !matches!(self, Self::Login | Self::Reflection | Self::HealthWatch | Self::RestLogin)
    }

    /// Whether the caller may send further messages.
    #[must_use]
    pub fn streams_requests(self) -> bool {
        matches!(self, Self::EmbedStream | Self::Reflection)
    }

    /// The protocols of the method.
    #[must_use]
    pub fn protocols(self) -> &'static [Protocol] {
        if self.is_grpc() {
            &[Protocol::Grpc, Protocol::WebHttp1, Protocol::WebHttp2]
        } else {
            &[Protocol::Http1, Protocol::Http2]
        }
    }

    /// The stages at which its calls are cancelled.
    #[must_use]
    pub fn stages(self) -> &'static [Stage] {
        match self {
            Self::Embed | Self::Tokenize | Self::RestEmbed | Self::RestTokenize | Self::OpenAi => {
                &[Stage::Headers, Stage::Message, Stage::Head, Stage::Middle]
            }
            Self::EmbedStream => &[Stage::Headers, Stage::Message, Stage::Head, Stage::Items, Stage::Unread],
            Self::Reflection => &[Stage::Headers, Stage::Message, Stage::Head, Stage::Middle],
            // The response has one short message, so its head and its middle arrive together.
            _ => &[Stage::Headers, Stage::Message, Stage::Head],
        }
    }

    /// The message, or the JSON body.
    fn message(self, name: &str) -> Vec<u8> {
        let sentences = |count: usize, words: usize| -> Vec<String> {
            (0..count).map(|number| format!("{number} {}", "word ".repeat(words))).collect()
        };
        match self {
            Self::Embed => {
                EmbedRequest { sentences: sentences(4, 2), ..EmbedRequest::default() }.encode_to_vec()
            }
            Self::EmbedStream => item(4).encode_to_vec(),
            Self::Tokenize => TokenizeRequest { sentences: sentences(32, 16) }.encode_to_vec(),
            Self::GetModel | Self::RefreshToken | Self::RevokeToken => Vec::new(),
            Self::Login => {
                LoginRequest { username: name.to_owned(), password: PASSWORD.to_owned() }.encode_to_vec()
            }
            Self::Reflection => ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::FileContainingSymbol(
                    "muse.v1.EmbedderService".to_owned(),
                )),
            }
            .encode_to_vec(),
            Self::HealthWatch => HealthCheckRequest::default().encode_to_vec(),
            Self::RestEmbed => json!({ "sentence": sentences(4, 2) }).to_string().into_bytes(),
            Self::RestTokenize => json!({ "sentence": sentences(32, 16) }).to_string().into_bytes(),
            Self::RestLogin => json!({ "username": name, "password": PASSWORD }).to_string().into_bytes(),
            Self::OpenAi => json!({
                "model": "universal-sentence-encoder-multilingual",
                "input": sentences(4, 2),
            })
            .to_string()
            .into_bytes(),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            self.path().rsplit_once('/').filter(|_| self.is_grpc()).map_or(self.path(), |(_, name)| name),
        )
    }
}

/// An item of `EmbedStream` with an id of `id` bytes.
#[must_use]
pub fn item(id: usize) -> EmbedStreamRequest {
    EmbedStreamRequest { id: "i".repeat(id), sentence: "a".to_owned() }
}

/// Encodes a gRPC frame.
///
/// # Panics
///
/// If it has more than 4 GiB.
#[must_use]
pub fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a message is shorter").to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

/// The protocol of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// gRPC-Web over HTTP/1.1.
    WebHttp1,
    /// gRPC-Web over HTTP/2.
    WebHttp2,
    /// REST over HTTP/1.1.
    Http1,
    /// REST over HTTP/2.
    Http2,
}

impl Protocol {
    /// Whether each call has its own connection, because HTTP/1.1 calls are cancelled by closing
    /// it.
    #[must_use]
    pub fn is_http1(self) -> bool {
        matches!(self, Self::WebHttp1 | Self::Http1)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "gRPC",
            Self::WebHttp1 => "gRPC-Web, HTTP/1.1",
            Self::WebHttp2 => "gRPC-Web, HTTP/2",
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        })
    }
}

/// The stage at which a call is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// After the request's head; over HTTP/1.1 in the middle of its body.
    Headers,
    /// After the whole request, or a few milliseconds later.
    Message,
    /// At the head of the response.
    Head,
    /// In the middle of the response.
    Middle,
    /// After some answers of a stream.
    Items,
    /// When the windows of a stream are full in both directions and nothing was read.
    Unread,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Headers => "after the head",
            Self::Message => "after the message",
            Self::Head => "at the response head",
            Self::Middle => "in the response",
            Self::Items => "after some answers",
            Self::Unread => "windows full",
        })
    }
}

/// An encoded call.
#[derive(Debug, Clone)]
pub struct Call {
    /// The HTTP/2 head in HPACK.
    pub head: Vec<u8>,
    /// The HTTP/1.1 head, with `content-length`, or with `transfer-encoding` for a stream.
    pub head1: Vec<u8>,
    /// The message or the body.
    pub body: Bytes,
}

impl Call {
    /// Encodes a call of `method` over `protocol`. `user` is the name in logins.
    #[must_use]
    pub fn new(
        gateway: SocketAddr,
        method: Method,
        protocol: Protocol,
        token: Option<&str>,
        user: &str,
    ) -> Self {
        let message = method.message(user);
        let body = if method.is_grpc() { framed(&message) } else { message.into() };
        let kind = match protocol {
            Protocol::Grpc => "application/grpc",
            Protocol::WebHttp1 | Protocol::WebHttp2 => "application/grpc-web+proto",
            Protocol::Http1 | Protocol::Http2 => "application/json",
        };
        let authority = gateway.to_string();
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut fields = vec![("content-type", kind)];
        if protocol == Protocol::Grpc {
            fields.push(("te", "trailers"));
        }
        fields.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        Self::from_fields(&authority, method.path(), &fields, body, method.streams_requests())
    }

    /// Encodes a call with these headers. Over HTTP/1.1 a `chunked` call has no length.
    #[must_use]
    pub fn from_fields(
        authority: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Bytes,
        chunked: bool,
    ) -> Self {
        let pseudo = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", authority)];
        let head = frames::head(&[&pseudo, fields].concat());
        let mut head1 = format!("POST {path} HTTP/1.1\r\nhost: {authority}\r\n");
        for (name, value) in fields {
            head1.push_str(&format!("{name}: {value}\r\n"));
        }
        if chunked {
            head1.push_str("transfer-encoding: chunked\r\n\r\n");
        } else {
            head1.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        }
        Self { head, head1: head1.into_bytes(), body }
    }
}

/// Encodes an HTTP/1.1 chunk.
#[must_use]
pub fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}
