//! Isolation: clients that cancel, stall and send excessive requests, and their effects on other
//! users and the services.
//!
//! Shared by the drill (`make drill`) and the test target `isolation`. The load is sent to loopback
//! addresses only.

pub mod attack;
pub mod calls;
pub mod canary;
pub mod cgroup;
pub mod frames;
pub mod stack;

use std::time::Duration;

/// The password of every user of a drill.
pub const PASSWORD: &str = "a long enough passphrase";

/// The quantile `q` of durations in milliseconds, or NaN for none.
#[must_use]
pub fn quantile_ms(durations: &[Duration], q: f64) -> f64 {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted[rank.saturating_sub(1).min(last)].as_secs_f64() * 1e3
}
