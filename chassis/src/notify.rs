//! Tells whoever started this program how far it is, by the protocol of systemd's `sd_notify(3)`: datagrams to the
//! Unix socket that `NOTIFY_SOCKET` names. Without that variable nothing happens.

use std::{
    env,
    net::SocketAddr,
    os::{
        linux::net::SocketAddrExt,
        unix::{ffi::OsStrExt, net},
    },
};

use tracing::warn;

/// The program serves.
pub fn ready() {
    send("READY=1");
}

/// The program is bound to `address` but may not serve yet.
///
/// Not a field that systemd knows; a launcher that let the program choose its port learns it here.
pub fn listening(address: SocketAddr) {
    send(&format!("X_MUSE_LISTENING={address}"));
}

/// The program's private port is bound to `address`; not known to systemd either.
pub fn private(address: SocketAddr) {
    send(&format!("X_MUSE_PRIVATE={address}"));
}

/// The program has begun to shut down.
pub fn stopping() {
    send("STOPPING=1");
}

fn send(message: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => net::SocketAddr::from_abstract_name(name),
        None => net::SocketAddr::from_pathname(&path),
    };
    let sent =
        address.and_then(|address| net::UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address));
    if let Err(failure) = sent {
        warn!(%failure, "cannot notify the supervisor");
    }
}
