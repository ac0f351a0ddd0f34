//! TLS: of the users' connections to the gateway, and of the services' to each other, where both sides show a certificate
//! of the operator's CA.
//!
//! The files are read again when their contents change. What comes is used for the connections that are made from then
//! on, unless it cannot be; then the log says so, and what was there stays.

mod accept;
mod coalesced_writes;
mod config;
mod connect;
mod explain;
mod options;
mod pace;
mod pem;
mod reload;
mod socket;

pub use accept::{Acceptor, accept, incoming};
pub use connect::Connector;
pub(crate) use options::check_scheme;
pub use options::{PeerArgs, UserArgs};
pub use reload::{ClientTls, ServerTls};
pub use socket::Socket;
