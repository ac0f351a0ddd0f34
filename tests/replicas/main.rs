//! Several processes of each program: failures, restarts and shutdowns lose no call.

mod failover;
mod load;
mod model_change;
mod rolling;
mod shutdown;

use std::net::SocketAddr;

use tokio::sync::{Mutex, MutexGuard};

/// A free port of the loopback interface.
const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Runs these tests serially, because they use the whole machine.
async fn serial() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::const_new(());
    LOCK.lock().await
}
