//! The context of the request that a task serves.
//!
//! The user is known after the token is verified, deep inside the handler, and calls to other services are made there, too. So the
//! context is a task-local.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use opentelemetry::{Context, trace::TraceContextExt};
use tokio::{task::futures::TaskLocalFuture, task_local};
use tracing::{Instrument, Span, instrument::Instrumented};

use super::id::RequestId;
use crate::trace::Traces;

task_local! {
    static CURRENT: Arc<RequestContext>;
}

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

/// A future with the context of a request.
pub(super) type Scoped<F> = TaskLocalFuture<Arc<RequestContext>, Instrumented<F>>;

/// The context of a request.
#[derive(Debug)]
pub(crate) struct RequestContext {
    pub(crate) id: RequestId,
    pub(crate) traces: Traces,
    /// The span of the request.
    pub(crate) trace: Context,
    /// The span of its log lines.
    pub(super) log: Span,
    caller: OnceLock<Caller>,
}

impl RequestContext {
    pub(super) fn new(id: RequestId, traces: Traces, trace: Context, log: Span) -> Arc<Self> {
        Arc::new(Self { id, traces, trace, log, caller: OnceLock::new() })
    }

    /// The context of the current task, if it serves a request.
    pub(crate) fn get() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Runs a function in this context.
    pub(super) fn sync_scope<T>(self: &Arc<Self>, function: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(Arc::clone(self), || self.log.in_scope(function))
    }

    /// Runs a future in this context.
    pub(super) fn scope<F: Future>(self: &Arc<Self>, answer: F) -> Scoped<F> {
        CURRENT.scope(Arc::clone(self), answer.instrument(self.log.clone()))
    }

    pub(super) fn caller(&self) -> Caller {
        self.caller.get().copied().unwrap_or(Caller::Anonymous)
    }

    /// Whether its trace is exported.
    pub(crate) fn is_recorded(&self) -> bool {
        self.trace.span().is_recording()
    }
}

/// Records the user, for the metrics and the log of the current request.
pub fn record_caller(caller: Caller, name: &str) {
    let _ = CURRENT.try_with(|current| {
        if current.caller.set(caller).is_ok() {
            current.log.record("user", name);
        }
    });
}

/// Records a step that has just ended, for the trace of the current request.
pub fn record_step(name: &'static str, began: Instant, took: Duration) {
    let _ = CURRENT.try_with(|current| {
        if current.is_recorded() {
            current.traces.record(name, (began, took), &current.trace);
        }
    });
}
