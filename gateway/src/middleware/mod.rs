//! What holds for all requests of the public port, whatever their route: limits on connections and on open calls, deadlines,
//! and the time in which a response has to be read.

mod around;
mod call_limits;
mod connection_limits;
mod deadline;
mod detour;
mod send_timeout;

pub(crate) use around::{Around, AroundLayer, Rejection};
pub(crate) use call_limits::CallLimits;
pub(crate) use connection_limits::{ConnectionLimits, ConnectionPermit};
pub(crate) use deadline::{apply_deadline, with_deadline};
pub(crate) use detour::{Detour, DetourLayer};
pub(crate) use send_timeout::{ConnectionResponses, StreamExecutor, run_connection, track_response};
