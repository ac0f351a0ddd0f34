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

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static TURN: RwLock<()> = RwLock::const_new(());

/// Begins a test that uses the whole machine, as one with a flood of requests does. `tests/run.py` runs these when no
/// other program runs.
async fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().await
}

/// Begins a test that others do not disturb: it measures the memory of its own processes, or waits.
async fn beside_others() -> RwLockReadGuard<'static, ()> {
    TURN.read().await
}
