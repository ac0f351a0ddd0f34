//! The context of a request: its id, its trace and its caller.
//!
//! It travels in the extensions of the request, and of the calls to other services that are made
//! for it.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use http::Extensions;
use opentelemetry::{Context, trace::TraceContextExt};
use tracing::Span;

use super::id::RequestId;
use crate::trace::Traces;

/// The class of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// No valid token.
    Anonymous,
    /// A user.
    User,
    /// A user who was an admin when the token was issued.
    Admin,
}

impl Caller {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::User => "user",
            Self::Admin => "admin",
        }
    }
}

/// The context of a request. Clones share it.
#[derive(Debug, Clone)]
pub struct RequestContext(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    id: RequestId,
    traces: Traces,
    /// The span of the request.
    trace: Context,
    /// The span of its log lines.
    log: Span,
    caller: OnceLock<Caller>,
}

impl RequestContext {
    pub(super) fn new(id: RequestId, traces: Traces, trace: Context, log: Span) -> Self {
        Self(Arc::new(Shared { id, traces, trace, log, caller: OnceLock::new() }))
    }

    /// Adds the context of the request with the extensions `from` to those of a call that is made
    /// for it.
    pub fn copy(from: &Extensions, to: &mut Extensions) {
        if let Some(context) = from.get::<Self>() {
            to.insert(context.clone());
        }
    }

    /// Records the user, for the metrics and the log of the request.
    pub fn record_caller(extensions: &Extensions, caller: Caller, name: &str) {
        let Some(Self(context)) = extensions.get() else { return };
        if context.caller.set(caller).is_ok() {
            context.log.record("user", name);
        }
    }

    /// Records a step that has just ended, for the trace of the request.
    pub fn record_step(&self, name: &'static str, began: Instant, took: Duration) {
        if self.is_recorded() {
            self.0.traces.record(name, (began, took), self.trace());
        }
    }

    pub(super) fn caller(&self) -> Caller {
        self.0.caller.get().copied().unwrap_or(Caller::Anonymous)
    }

    pub(super) fn id(&self) -> &RequestId {
        &self.0.id
    }

    pub(super) fn traces(&self) -> &Traces {
        &self.0.traces
    }

    pub(super) fn trace(&self) -> &Context {
        &self.0.trace
    }

    pub(super) fn log(&self) -> &Span {
        &self.0.log
    }

    /// Whether its trace is exported.
    pub(super) fn is_recorded(&self) -> bool {
        self.trace().span().is_recording()
    }
}
