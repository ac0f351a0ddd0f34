//! TLS: for users' connections to the gateway, and mutual TLS between the services, by the operator's CA.
//!
//! The files are reloaded when their contents change, and are used for new connections. If they are invalid, the log reports it, and
//! the previous ones remain in use.

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
