//! A gRPC client with pre-encoded messages that only counts the bytes of responses.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use futures::Stream;
use http::uri::PathAndQuery;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::Outcome;
use crate::workload::Call;

const EMBED: PathAndQuery = PathAndQuery::from_static("/muse.v1.EmbedderService/Embed");
const EMBED_STREAM: PathAndQuery = PathAndQuery::from_static("/muse.v1.EmbedderService/EmbedStream");
/// Size of a vector in bytes.
const VECTOR_BYTES: usize = 512 * 4;

/// A client of `muse.v1.EmbedderService`.
#[derive(Debug, Clone)]
pub(crate) struct GrpcClient {
    grpc: Grpc<Channel>,
    token: MetadataValue<Ascii>,
}

impl GrpcClient {
    /// Connects to the gateway.
    pub(crate) async fn connect(address: SocketAddr, token: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("the address makes a URL");
        // Windows as large as the largest response.
        let endpoint = endpoint.tcp_nodelay(true).initial_stream_window_size(16 << 20);
        let channel = endpoint.initial_connection_window_size(64 << 20).connect().await;
        let grpc = Grpc::new(channel.expect("the gateway listens")).max_decoding_message_size(64 << 20);
        Self { grpc, token: format!("Bearer {token}").parse().expect("a token is ASCII") }
    }

    /// Calls `Embed`, optionally with a deadline.
    pub(crate) async fn embed(&mut self, call: &Call, deadline: Option<Duration>) -> Outcome {
        let mut request = self.request(call.message.clone());
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        if self.grpc.ready().await.is_err() {
            return Outcome::Broken;
        }
        match self.grpc.unary(request, EMBED, RawCodec).await {
            Ok(answer) => Outcome::of_bytes(answer.into_inner(), call.sentences * VECTOR_BYTES),
            Err(status) => outcome(&status),
        }
    }

    /// Calls `EmbedStream`; returns the length of each answer.
    pub(crate) async fn embed_stream(
        &mut self,
        items: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<usize>, Status> {
        self.grpc.ready().await.map_err(|failure| Status::unavailable(failure.to_string()))?;
        let request = self.request(()).map(|()| items);
        Ok(self.grpc.streaming(request, EMBED_STREAM, RawCodec).await?.into_inner())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token.clone());
        request
    }
}

fn outcome(status: &Status) -> Outcome {
    // tonic's status for a broken connection has no details, unlike those of the service.
    match status.code() {
        Code::Unavailable | Code::Unknown if status.details().is_empty() => Outcome::Broken,
        code => Outcome::Grpc(code),
    }
}

/// A codec that sends bytes unchanged and decodes only the length of messages.
#[derive(Debug, Clone, Copy, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = usize;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = usize;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let length = buffer.remaining();
        buffer.advance(length);
        Ok(Some(length))
    }
}
