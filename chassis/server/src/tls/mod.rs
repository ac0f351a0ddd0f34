//! TLS for the connections of users to the gateway, and mutual TLS between the services, with a CA
//! of the operator.
//!
//! The files are reloaded when their contents change, and apply to new connections. If they are
//! invalid, the error is logged, and the previous contents remain in use.

mod accept;
mod coalesced_writes;
mod config;
mod connect;
mod explain;
mod io_throttle;
mod options;
mod pem;
mod reload;
mod socket;

pub use accept::{Acceptor, incoming};
pub use connect::Connector;
pub(crate) use options::check_scheme;
pub use options::{PeerArgs, UserArgs};
pub use reload::{ClientTls, ServerTls};
pub use socket::Socket;
