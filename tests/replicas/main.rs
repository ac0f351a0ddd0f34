//! Several processes of each program: what is lost when one of them goes. Nothing.

mod failover;
mod load;
mod rolling;
mod shutdown;

use std::net::SocketAddr;

use tokio::sync::{Mutex, MutexGuard};

/// A free port of the loopback interface.
const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// These tests want the machine for themselves, one after the other.
async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}
