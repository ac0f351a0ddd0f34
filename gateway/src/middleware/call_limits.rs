//! Limits on the open calls of a user and of an address, and on the streams among them.
//!
//! A call is open until its response has been sent. A request without a valid token counts for its address alone.
//!
//! This is not tower's `ConcurrencyLimitLayer`, which limits a service as a whole, and lets calls wait.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use muse_proto::{Error, Reason};
use muse_server::client_network;

use super::{Around, ConnectionResponses, Rejection, track_response};
use crate::{auth::Authenticated, config::ClientLimits, middleware::client_address::address_of};

/// The streaming methods.
const STREAMS: [&str; 4] = [
    "/muse.v1.EmbedderService/EmbedStream",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Limits on open calls. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct CallLimits {
    limits: ClientLimits,
    open: Arc<Mutex<HashMap<Subject, Open>>>,
}

/// A user or an address, which has open calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    /// The bulk keys of a user.
    BulkKeys(String),
    /// An address, or an IPv6 network.
    Address(IpAddr),
}

#[derive(Debug, Default, Clone, Copy)]
struct Open {
    calls: usize,
    streams: usize,
}

/// An open call, which counts until this is dropped.
#[derive(Debug)]
pub(crate) struct CallPermit {
    limits: CallLimits,
    subjects: Vec<Subject>,
    is_stream: bool,
}

impl CallLimits {
    /// Limits of users and of addresses.
    pub(crate) fn new(limits: ClientLimits) -> Self {
        Self { limits, open: Arc::default() }
    }

    fn admit(&self, request: &Request) -> Result<CallPermit, Error> {
        let principal = request.extensions().get().map(|Authenticated(principal)| principal);
        if let Some(principal) = principal {
            principal.record(request.extensions());
        }
        let is_stream = STREAMS.contains(&request.uri().path());
        let mut permit = CallPermit { limits: self.clone(), subjects: Vec::with_capacity(3), is_stream };
        let bulk_keys = principal.filter(|principal| principal.is_bulk());
        let bulk_keys = bulk_keys.map(|principal| Subject::BulkKeys(principal.user().to_owned()));
        let user = principal.map(|principal| Subject::User(principal.user().to_owned()));
        let address = address_of(request.headers());
        let address = address.map(|address| Subject::Address(client_network(address)));
        let has_user = user.is_some();
        let ClientLimits { calls_per_user, streams_per_user, calls_per_address, .. } = self.limits;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for subject in user.into_iter().chain(bulk_keys).chain(address) {
            let (calls, streams, whose) = match &subject {
                Subject::User(_) => (calls_per_user, streams_per_user, "one user"),
                // The other half is for the user's own requests.
                Subject::BulkKeys(_) => {
                    (calls_per_user.div_ceil(2), streams_per_user.div_ceil(2), "bulk keys of one user")
                }
                // Streams of users count for the user alone: an address may stand for many of them.
                Subject::Address(_) if has_user => (calls_per_address, usize::MAX, "one address"),
                Subject::Address(_) => (calls_per_address, streams_per_user, "one address"),
            };
            let counts = match open.get_mut(&subject) {
                Some(counts) => counts,
                None => open.entry(subject.clone()).or_default(),
            };
            let exceeded = if counts.calls >= calls {
                Some(format!("{calls} requests of {whose} are open, which is the limit"))
            } else if is_stream && counts.streams >= streams {
                Some(format!("{streams} streams of {whose} are open, which is the limit"))
            } else {
                None
            };
            if let Some(text) = exceeded {
                drop(open);
                return Err(Error::new(Reason::Overloaded, text).with_retry_after(Duration::from_secs(1)));
            }
            counts.calls += 1;
            counts.streams += usize::from(is_stream);
            permit.subjects.push(subject);
        }
        drop(open);
        Ok(permit)
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock().unwrap_or_else(PoisonError::into_inner);
        for subject in &self.subjects {
            let Some(counts) = open.get_mut(subject) else { continue };
            counts.calls -= 1;
            counts.streams -= usize::from(self.is_stream);
            if counts.calls == 0 {
                open.remove(subject);
            }
        }
    }
}

/// Rejects requests beyond the limits. A request is open until its response has been sent, or its connection ends.
impl Around for CallLimits {
    type Context = (CallPermit, Option<ConnectionResponses>);

    fn before(&self, request: &mut Request) -> Result<Self::Context, Rejection> {
        let permit = self.admit(request).map_err(Rejection::Error)?;
        Ok((permit, request.extensions().get().cloned()))
    }

    fn after((permit, connection): Self::Context, response: Response) -> Response {
        response.map(|body| Body::new(track_response(body, permit, connection)))
    }
}
