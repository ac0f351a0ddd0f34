//! Isolation: no caller degrades the service for others. Against the real programs; see docs/internals/isolation.md.

mod cancellation;
mod heads;
mod idle;
mod limits;
mod memory;
mod random;
mod shapes;
mod streams;

use tokio::sync::{Mutex, MutexGuard};

/// These tests measure the machine that they run on, so they run one after the other.
async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}
