//! The request that a task answers.
//!
//! Who asks is known only when the token has been checked, somewhere inside of what answers, and calls to other services are
//! made there, too. So the request is kept beside the task, where they find it.

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
    static CURRENT: Arc<Current>;
}

/// The class of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Nobody whose token was found good.
    Anonymous,
    /// A user.
    User,
    /// A user who was an admin when their token was made.
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

/// A future that knows of which request it is part.
pub(super) type Scoped<F> = TaskLocalFuture<Arc<Current>, Instrumented<F>>;

/// What is known of a request while it is answered.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) id: RequestId,
    pub(crate) traces: Traces,
    /// Its span in the trace.
    pub(crate) trace: Context,
    /// What the lines of the log that are written meanwhile carry.
    pub(super) log: Span,
    caller: OnceLock<Caller>,
}

impl Current {
    pub(super) fn new(id: RequestId, traces: Traces, trace: Context, log: Span) -> Arc<Self> {
        Arc::new(Self { id, traces, trace, log, caller: OnceLock::new() })
    }

    /// That of this task, if it answers one.
    pub(crate) fn get() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Runs `answer` as what answers this request.
    pub(super) fn scope<F: Future>(self: &Arc<Self>, answer: F) -> Scoped<F> {
        CURRENT.scope(Arc::clone(self), answer.instrument(self.log.clone()))
    }

    pub(super) fn caller(&self) -> Caller {
        self.caller.get().copied().unwrap_or(Caller::Anonymous)
    }

    /// Whether its trace goes to a collector.
    pub(crate) fn is_recorded(&self) -> bool {
        self.trace.span().is_recording()
    }
}

/// Notes who asks, for the metrics and the log of the request that this task answers, if it does.
pub fn note_caller(caller: Caller, name: &str) {
    let _ = CURRENT.try_with(|current| {
        if current.caller.set(caller).is_ok() {
            current.log.record("user", name);
        }
    });
}

/// Notes a step of the answer to the request that this task answers, which has just been taken, for its trace.
pub fn note_step(name: &'static str, began: Instant, took: Duration) {
    let _ = CURRENT.try_with(|current| {
        if current.is_recorded() {
            current.traces.record(name, (began, took), &current.trace);
        }
    });
}
