//! Requests of every shape, filled to a given size.

use std::{io, net::IpAddr, time::Duration};

use bytes::Bytes;
use muse_tests::isolation::{
    calls::{Call, framed},
    frames::{Connection, Event, connect},
    stack::Stack,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::random;

/// Timeout of a request.
const WITHIN: Duration = Duration::from_secs(120);

/// A way to fill a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) kind: &'static str,
    body: fn(usize) -> Vec<u8>,
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";
const MULTIPART: &str = "multipart/form-data; boundary=b";
const GRPC: &str = "application/grpc";
const WEB: &str = "application/grpc-web+proto";
/// The longest sentence, in bytes.
const SENTENCE: usize = 262_144;

/// Repeats `unit` between `before` and `after`, without a trailing separator.
fn filled(before: &str, unit: &str, after: &str, size: usize) -> Vec<u8> {
    let room = size.saturating_sub(before.len() + after.len());
    let mut body = before.as_bytes().to_vec();
    body.extend(unit.as_bytes().repeat(room / unit.len()));
    if matches!(body.last(), Some(b',' | b'&')) {
        body.pop();
    }
    body.extend_from_slice(after.as_bytes());
    body
}

/// Encodes a length-delimited field of a message.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut rest = content.len();
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes.extend_from_slice(content);
    bytes
}

/// Texts of tokens of two bytes, as long as a sentence may be.
fn long_texts(size: usize) -> Vec<String> {
    let length = SENTENCE - 16;
    let texts = (0..size / (length + 8)).map(|number| format!("{number} {}", "a ".repeat(length / 2 - 4)));
    texts.chain([String::from("a")]).collect()
}

fn json_long(before: &str, size: usize) -> Vec<u8> {
    let texts: Vec<String> = long_texts(size).iter().map(|text| format!("\"{text}\"")).collect();
    format!("{before}[{}]}}", texts.join(",")).into_bytes()
}

fn grpc_long(size: usize) -> Vec<u8> {
    long_texts(size).iter().flat_map(|text| field(1, text.as_bytes())).collect()
}

fn grpc_repeated(unit: &[u8], size: usize) -> Vec<u8> {
    unit.repeat(size / unit.len())
}

const MODEL: &str = "{\"model\":\"universal-sentence-encoder-multilingual\",\"input\":";

/// All shapes, by path: REST, OpenAI's routes, gRPC. Without query strings, because the request
/// head has at most 32 KiB.
pub(crate) const SHAPES: &[Shape] = &[
    Shape { name: "form a&a&…", path: "/embed", kind: FORM, body: |size| filled("", "a&", "", size) },
    Shape {
        name: "form sentence=&…",
        path: "/embed",
        kind: FORM,
        body: |size| filled("", "sentence=&", "", size),
    },
    Shape {
        name: "form sentence=a&…",
        path: "/tokenize",
        kind: FORM,
        body: |size| filled("", "sentence=a&", "", size),
    },
    Shape {
        name: "form, escaped text",
        path: "/tokenize",
        kind: FORM,
        body: |size| filled("sentence=", "%61", "", size),
    },
    Shape { name: "form a&a&…", path: "/login", kind: FORM, body: |size| filled("", "a&", "", size) },
    Shape {
        name: "JSON, unknown objects",
        path: "/embed",
        kind: JSON,
        body: |size| filled("{\"sentence\":\"a\",\"x\":[", "{\"\":0},", "]}", size),
    },
    Shape {
        name: "JSON, unknown numbers",
        path: "/embed",
        kind: JSON,
        body: |size| filled("{\"sentence\":\"a\",\"x\":[", "0,", "]}", size),
    },
    Shape {
        name: "JSON, unknown fields",
        path: "/embed",
        kind: JSON,
        body: |size| filled("{\"sentence\":\"a\",", "\"x\":0,", "\"y\":0}", size),
    },
    Shape {
        name: "JSON, deep nesting",
        path: "/embed",
        kind: JSON,
        body: |size| filled("{\"x\":", "[", "", size),
    },
    Shape {
        name: "JSON, one unknown text",
        path: "/embed",
        kind: JSON,
        body: |size| filled("{\"sentence\":\"a\",\"x\":\"", "\\u0061", "\"}", size),
    },
    Shape {
        name: "JSON, repeated sentence",
        path: "/embed",
        kind: JSON,
        body: |size| filled("{", "\"sentence\":\"a\",", "\"y\":0}", size),
    },
    Shape {
        name: "JSON, empty sentences",
        path: "/embed",
        kind: JSON,
        body: |size| filled("{\"sentence\":[", "\"\",", "]}", size),
    },
    Shape {
        name: "JSON, numbers",
        path: "/embed",
        kind: JSON,
        body: |size| filled("{\"sentence\":[", "0,", "]}", size),
    },
    Shape {
        name: "JSON, nested sentences",
        path: "/embed",
        kind: JSON,
        body: |size| filled("{\"sentence\":[", "[{}],", "]}", size),
    },
    Shape {
        name: "JSON, long sentences",
        path: "/embed",
        kind: JSON,
        body: |size| json_long("{\"sentence\":", size),
    },
    Shape {
        name: "JSON, long sentences",
        path: "/tokenize",
        kind: JSON,
        body: |size| json_long("{\"sentence\":", size),
    },
    Shape {
        name: "JSON, empty sentences",
        path: "/tokenize",
        kind: JSON,
        body: |size| filled("{\"sentence\":[", "\"\",", "]}", size),
    },
    Shape {
        name: "JSON, unknown objects",
        path: "/login",
        kind: JSON,
        body: |size| filled("{\"x\":[", "{\"\":0},", "]}", size),
    },
    Shape {
        name: "multipart, many parts",
        path: "/embed",
        kind: MULTIPART,
        body: |size| {
            filled(
                "",
                "--b\r\nContent-Disposition: form-data; name=\"sentence\"\r\n\r\na\r\n",
                "--b--\r\n",
                size,
            )
        },
    },
    Shape {
        name: "multipart, one part",
        path: "/tokenize",
        kind: MULTIPART,
        body: |size| {
            filled(
                "--b\r\nContent-Disposition: form-data; name=\"sentence\"\r\n\r\n",
                "a ",
                "\r\n--b--\r\n",
                size,
            )
        },
    },
    Shape {
        name: "no known content type",
        path: "/embed",
        kind: "text/plain",
        body: |size| filled("", "a", "", size),
    },
    Shape {
        name: "texts, empty",
        path: "/v1/embeddings",
        kind: JSON,
        body: |size| filled(&format!("{MODEL}["), "\"\",", "]}", size),
    },
    Shape { name: "texts, long", path: "/v1/embeddings", kind: JSON, body: |size| json_long(MODEL, size) },
    Shape {
        name: "one text",
        path: "/v1/embeddings",
        kind: JSON,
        body: |size| filled(&format!("{MODEL}\""), "a ", "\"}", size),
    },
    Shape {
        name: "ids",
        path: "/v1/embeddings",
        kind: JSON,
        body: |size| filled(&format!("{MODEL}["), "7,", "]}", size),
    },
    Shape {
        name: "lists of ids",
        path: "/v1/embeddings",
        kind: JSON,
        body: |size| filled(&format!("{MODEL}["), "[7],", "]}", size),
    },
    Shape {
        name: "empty lists of ids",
        path: "/v1/embeddings",
        kind: JSON,
        body: |size| filled(&format!("{MODEL}["), "[],", "]}", size),
    },
    Shape {
        name: "unknown objects",
        path: "/v1/embeddings",
        kind: JSON,
        body: |size| filled("{\"input\":\"a\",\"x\":[", "{\"\":0},", "]}", size),
    },
    Shape {
        name: "empty sentences",
        path: "/muse.v1.EmbedderService/Embed",
        kind: GRPC,
        body: |size| grpc_repeated(&[10, 0], size),
    },
    Shape {
        name: "empty token_ids",
        path: "/muse.v1.EmbedderService/Embed",
        kind: GRPC,
        body: |size| grpc_repeated(&[18, 0], size),
    },
    Shape {
        name: "packed ids",
        path: "/muse.v1.EmbedderService/Embed",
        kind: GRPC,
        body: |size| field(2, &field(1, &vec![7; size - 16])),
    },
    Shape {
        name: "ids, not packed",
        path: "/muse.v1.EmbedderService/Embed",
        kind: GRPC,
        body: |size| field(2, &grpc_repeated(&[8, 7], size - 16)),
    },
    Shape {
        name: "unknown fields",
        path: "/muse.v1.EmbedderService/Embed",
        kind: GRPC,
        body: |size| [vec![10, 1, b'a'], grpc_repeated(&[120, 0], size)].concat(),
    },
    Shape { name: "long sentences", path: "/muse.v1.EmbedderService/Embed", kind: GRPC, body: grpc_long },
    Shape {
        name: "sentences of 4 KB",
        path: "/muse.v1.EmbedderService/Embed",
        kind: GRPC,
        body: |size| grpc_repeated(&field(1, "a ".repeat(2_040).as_bytes()), size),
    },
    Shape {
        name: "empty sentences",
        path: "/muse.v1.EmbedderService/Tokenize",
        kind: GRPC,
        body: |size| grpc_repeated(&[10, 0], size),
    },
    Shape { name: "long sentences", path: "/muse.v1.EmbedderService/Tokenize", kind: GRPC, body: grpc_long },
    Shape {
        name: "sentences of 4 KB",
        path: "/muse.v1.EmbedderService/Tokenize",
        kind: GRPC,
        body: |size| grpc_repeated(&field(1, "a ".repeat(2_040).as_bytes()), size),
    },
    Shape {
        name: "unknown groups",
        path: "/muse.v1.EmbedderService/Tokenize",
        kind: GRPC,
        body: |size| grpc_repeated(&[123, 124], size),
    },
    Shape { name: "long sentences", path: "/muse.v1.EmbedderService/Tokenize", kind: WEB, body: grpc_long },
    Shape {
        name: "unknown fields",
        path: "/muse.v1.EmbedderService/GetModel",
        kind: GRPC,
        body: |size| grpc_repeated(&[120, 0], size),
    },
    Shape {
        name: "an id",
        path: "/muse.v1.EmbedderService/EmbedStream",
        kind: GRPC,
        body: |size| field(1, &vec![b'i'; size - 16]),
    },
    Shape {
        name: "unknown fields",
        path: "/muse.v1.AuthService/Login",
        kind: GRPC,
        body: |size| grpc_repeated(&[120, 0], size),
    },
    Shape {
        name: "a long name",
        path: "/muse.v1.AuthService/Login",
        kind: WEB,
        body: |size| field(1, &vec![b'n'; size - 16]),
    },
    Shape {
        name: "unknown fields",
        path: "/muse.v1.AuthService/RefreshToken",
        kind: GRPC,
        body: |size| grpc_repeated(&[120, 0], size),
    },
    Shape {
        name: "unknown fields",
        path: "/grpc.health.v1.Health/Check",
        kind: GRPC,
        body: |size| grpc_repeated(&[120, 0], size),
    },
    Shape {
        name: "an unknown symbol",
        path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        kind: GRPC,
        body: |size| field(4, &vec![b's'; size - 16]),
    },
    // Random shapes.
    Shape { name: "form, random", path: "/embed", kind: FORM, body: random::form },
    Shape { name: "JSON, random", path: "/embed", kind: JSON, body: random::json },
    Shape { name: "JSON, random unknown fields", path: "/embed", kind: JSON, body: random::served_json },
    Shape { name: "form, random", path: "/tokenize", kind: FORM, body: random::form },
    Shape { name: "JSON, random", path: "/tokenize", kind: JSON, body: random::json },
    Shape { name: "JSON, random unknown fields", path: "/tokenize", kind: JSON, body: random::served_json },
    Shape { name: "JSON, random", path: "/v1/embeddings", kind: JSON, body: random::json },
    Shape {
        name: "JSON, random unknown fields",
        path: "/v1/embeddings",
        kind: JSON,
        body: random::served_json,
    },
    Shape { name: "form, random", path: "/login", kind: FORM, body: random::form },
    Shape { name: "JSON, random", path: "/login", kind: JSON, body: random::json },
    Shape {
        name: "random fields",
        path: "/muse.v1.EmbedderService/Embed",
        kind: GRPC,
        body: random::message,
    },
    Shape {
        name: "random fields",
        path: "/muse.v1.EmbedderService/Tokenize",
        kind: GRPC,
        body: random::message,
    },
    Shape {
        name: "random fields",
        path: "/muse.v1.EmbedderService/EmbedStream",
        kind: GRPC,
        body: random::message,
    },
    Shape { name: "random fields", path: "/muse.v1.AuthService/Login", kind: GRPC, body: random::message },
];

impl Shape {
    /// A request of about `size` bytes.
    pub(crate) fn call(&self, stack: &Stack, token: &str, size: usize) -> Call {
        let message = (self.body)(size);
        let body =
            if self.kind.starts_with("application/grpc") { framed(&message) } else { Bytes::from(message) };
        let bearer = format!("Bearer {token}");
        let mut fields = vec![("content-type", self.kind), ("authorization", &*bearer)];
        if self.kind == GRPC {
            fields.push(("te", "trailers"));
        }
        Call::from_fields(&stack.gateway.address.to_string(), self.path, &fields, body, false)
    }

    /// Sends the request and reads the whole response. Returns the number of received bytes.
    pub(crate) async fn send(&self, stack: &Stack, from: IpAddr, call: &Call) -> io::Result<usize> {
        let sent = async {
            if self.kind == GRPC { grpc(stack, from, call).await } else { http1(stack, from, call).await }
        };
        timeout(WITHIN, sent).await?
    }
}

async fn grpc(stack: &Stack, from: IpAddr, call: &Call) -> io::Result<usize> {
    let mut connection = Connection::open(from, stack.gateway.address, 16 << 20).await?;
    let id = connection.open_stream(&call.head, false);
    connection.send(id, call.body.clone(), true);
    connection.flush().await?;
    let mut received = 0;
    loop {
        for event in connection.receive().await? {
            match event {
                Event::Data(_, length) => received += length,
                Event::End(_) => return Ok(received),
                Event::Reset(_, code) => {
                    return Err(io::Error::other(format!("reset with error code {code}")));
                }
                Event::Head(_) => {}
            }
        }
    }
}

async fn http1(stack: &Stack, from: IpAddr, call: &Call) -> io::Result<usize> {
    let (mut reader, mut writer) = connect(from, stack.gateway.address).await?.into_split();
    let write = async {
        // The gateway may respond before it has read everything.
        let _ = writer.write_all(&call.head1).await;
        let _ = writer.write_all(&call.body).await;
    };
    let read = async {
        let mut received = 0;
        let mut buffer = vec![0; 64 << 10];
        let mut head = Vec::new();
        let mut left: Option<usize> = None;
        // The connection stays open, so the length or the last chunk determines the end.
        loop {
            let length = reader.read(&mut buffer).await?;
            if length == 0 {
                return Ok(received);
            }
            received += length;
            if let Some(left) = &mut left {
                *left = left.saturating_sub(length);
                if *left == 0 {
                    return Ok(received);
                }
                continue;
            }
            head.extend_from_slice(&buffer[..length]);
            let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
            let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
            let field = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            match field {
                Some(whole) => {
                    let rest = whole.saturating_sub(head.len() - end - 4);
                    if rest == 0 {
                        return Ok(received);
                    }
                    left = Some(rest);
                }
                None if head.ends_with(b"0\r\n\r\n") => return Ok(received),
                None => {
                    // Only the end of a chunked response is examined.
                    let from = head.len().saturating_sub(16).max(end.min(head.len()));
                    let tail = head[from..].to_vec();
                    head.truncate(end + 4);
                    head.extend_from_slice(&tail);
                }
            }
        }
    };
    let (_, received) = tokio::join!(write, read);
    received
}
