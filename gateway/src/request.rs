//! What the requests of all HTTP routes have in common: bodies with a bound, tokens, and the calls that they become.

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use muse_proto::{Error, Reason};
use muse_verifier::TokenKind;
use tokio::time::{Instant, timeout_at};

use crate::{client_address::X_FORWARDED_FOR, upstream::Upstream};

/// Bytes of a body that holds sentences.
pub(crate) const MAX_SENTENCES_BYTES: usize = 16 << 20;
/// A larger body is parsed on a thread where that may take its time.
const BRIEF_BODY: usize = 32 << 10;
/// How long a body that is of no use is read on.
const LINGER: Duration = Duration::from_secs(2);
/// How long a client may take for the next part of a body.
pub(crate) const NEXT_PART_WITHIN: Duration = Duration::from_secs(30);
/// How long a client may take for a whole body.
pub(crate) const BODY_WITHIN: Duration = Duration::from_secs(300);

/// The request, if its access token holds; else it is read to its end first.
pub(crate) async fn authorized(upstream: &Upstream, request: Request) -> Result<Request, Error> {
    match upstream.verifier.authorize(request.headers(), Some(TokenKind::Access)) {
        Ok(_) => Ok(request),
        Err(refusal) => {
            read_out(request.into_body()).await;
            Err(refusal)
        }
    }
}

/// A call with the token of the request that has these headers, if there is one, and the address of the client.
pub(crate) fn on_behalf_of<T>(headers: &HeaderMap, message: T) -> tonic::Request<T> {
    let mut call = tonic::Request::new(message);
    let metadata: &mut HeaderMap = call.metadata_mut().as_mut();
    for name in [header::AUTHORIZATION, X_FORWARDED_FOR] {
        for value in headers.get_all(&name) {
            metadata.append(&name, value.clone());
        }
    }
    call
}

/// Reads a body that is no longer than `limit` bytes.
pub(crate) async fn read_body(mut body: Body, limit: usize) -> Result<Bytes, Error> {
    let mut whole = BytesMut::new();
    let broke_off = || Error::new(Reason::InvalidArgument, "The body broke off");
    let end = Instant::now() + BODY_WITHIN;
    loop {
        let frame = timeout_at(end.min(Instant::now() + NEXT_PART_WITHIN), body.frame()).await;
        let Some(frame) = frame.map_err(|_| broke_off())? else { break };
        let frame = frame.map_err(|_| broke_off())?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > limit {
            read_out(body).await;
            let text = format!("The body is too large; the limit is {limit} bytes");
            return Err(Error::new(Reason::TooLarge, text));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// What `parse` makes of a body.
pub(crate) async fn parsed<T: Send + 'static>(
    body: Bytes,
    parse: impl FnOnce(Bytes) -> T + Send + 'static,
) -> Result<T, Error> {
    if body.len() <= BRIEF_BODY {
        return Ok(parse(body));
    }
    let parsing = tokio::task::spawn_blocking(|| parse(body)).await;
    parsing.map_err(|_| Error::new(Reason::Internal, "a body could not be parsed"))
}

/// Reads and forgets the rest of a body, for a while. A client that is still sending when the connection is closed may
/// never see the answer (RFC 9112, section 9.6), and so not learn why it was refused.
pub(crate) async fn read_out(mut body: Body) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(LINGER, rest).await;
}
