//! Notifies the supervisor of the program's state, by the protocol of systemd's `sd_notify(3)`:
//! datagrams to the Unix socket in `NOTIFY_SOCKET`. Without that variable nothing is sent.
//!
//! A notice never blocks: it is dropped if the supervisor does not read.

use std::{
    env,
    ffi::OsStr,
    io,
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
/// An own field, which systemd ignores: a launcher that sets port 0 reads the port from it.
pub fn listening(address: SocketAddr) {
    send(&format!("X_MUSE_LISTENING={address}"));
}

/// The admin port is bound to `address`. An own field, which systemd ignores.
pub fn admin(address: SocketAddr) {
    send(&format!("X_MUSE_PRIVATE={address}"));
}

/// The program has begun to shut down.
pub fn stopping() {
    send("STOPPING=1");
}

fn send(message: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    match send_to(&path, message) {
        Ok(()) => (),
        Err(failure) if failure.kind() == io::ErrorKind::WouldBlock => {
            warn!(notice = message, "a notice was dropped: the supervisor does not read");
        }
        Err(failure) => warn!(%failure, "cannot notify the supervisor"),
    }
}

/// Sends without blocking: the queue of the receiver's socket is short (`net.unix.max_dgram_qlen`),
/// and this runs on async threads. The crate `sd-notify` blocks.
fn send_to(path: &OsStr, message: &str) -> io::Result<()> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => net::SocketAddr::from_abstract_name(name)?,
        None => net::SocketAddr::from_pathname(path)?,
    };
    let socket = net::UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    #[test]
    fn full_notify_socket_drops_notices() {
        let name = format!("muse-notify-{}", std::process::id());
        let address = net::SocketAddr::from_abstract_name(&name).unwrap();
        let supervisor = net::UnixDatagram::bind_addr(&address).unwrap();
        let (sent, outcomes) = mpsc::channel();
        thread::spawn(move || {
            let path = format!("@{name}");
            // More than any system's queue, so a blocking send would never return.
            let outcome = (0..100_000).try_for_each(|_| send_to(path.as_ref(), "READY=1"));
            let _ = sent.send((outcome, path));
        });
        let (outcome, path) = outcomes.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::WouldBlock);

        let mut notice = [0; 64];
        let length = supervisor.recv(&mut notice).unwrap();
        assert_eq!(&notice[..length], b"READY=1");
        send_to(path.as_ref(), "READY=1").unwrap();
    }
}
