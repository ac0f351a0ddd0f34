//! Isolation: no caller degrades the service for others. Runs the real programs; see
//! docs/internals/isolation.md.

mod cancellation;
mod heads;
mod idle;
mod limits;
mod memory;
mod random;
mod shapes;
mod streams;

use tokio::sync::{Mutex, MutexGuard};

/// Runs these tests serially, because they measure latency and memory.
async fn serial() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::const_new(());
    LOCK.lock().await
}
