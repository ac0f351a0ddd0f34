//! Graceful shutdown in three phases: delay (the service reports not ready but still serves, so
//! that load balancers can detect the change), drain (it closes the listener) and grace (calls in
//! flight finish).

use std::time::Duration;

use clap::Args;
use rustix::process::{Signal as Kill, getpid, kill_process};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use muse_telemetry::flush_brief;

use crate::{StartError, notify};

/// Options of the shutdown.
#[derive(Debug, Clone, Copy, Args)]
pub struct ShutdownArgs {
    /// Time for calls in flight to finish after the listener is closed, in seconds.
    #[arg(long = "shutdown-grace", env = "SHUTDOWN_GRACE", default_value = "10", value_parser = seconds, global = true)]
    pub grace: Duration,

    /// Time between the signal and the close of the listener, in seconds. The service reports not
    /// ready but still serves, so that load balancers can detect the change.
    #[arg(long = "shutdown-delay", env = "SHUTDOWN_DELAY", default_value = "0", value_parser = seconds, global = true)]
    pub delay: Duration,
}

impl Default for ShutdownArgs {
    fn default() -> Self {
        Self { grace: Duration::from_secs(10), delay: Duration::ZERO }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 0..=86_400) => Ok(Duration::from_secs(seconds)),
        Ok(_) => Err("must lie between 0 and 86400".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl ShutdownArgs {
    /// The shutdown that begins when `signal` is cancelled.
    #[must_use]
    pub fn after(self, signal: CancellationToken) -> Shutdown {
        if self.delay.is_zero() {
            return Shutdown { announced: signal.clone(), closing: signal, grace: self.grace };
        }
        let shutdown = Shutdown { announced: signal, closing: CancellationToken::new(), grace: self.grace };
        let (announced, closing) = (shutdown.announced.clone(), shutdown.closing.clone());
        tokio::spawn(async move {
            announced.cancelled().await;
            tokio::time::sleep(self.delay).await;
            info!("closing the listener");
            closing.cancel();
        });
        shutdown
    }
}

/// The progress of a shutdown.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// Cancelled when the service is no longer ready. It still accepts connections and serves.
    pub announced: CancellationToken,
    /// Cancelled when the listener is closed.
    pub closing: CancellationToken,
    grace: Duration,
}

impl Shutdown {
    /// Waits for the end of the grace period, and logs a warning.
    pub async fn grace_expired(self) {
        self.closing.cancelled().await;
        tokio::time::sleep(self.grace).await;
        warn!("the grace period is over: calls in flight are aborted");
    }
}

/// A token that is cancelled at the first SIGINT or SIGTERM. A second signal ends the program
/// immediately.
///
/// # Errors
///
/// [`StartError::Signals`] if the handlers cannot be installed.
pub fn on_signal() -> Result<CancellationToken, StartError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        let name = either(&mut interrupt, &mut terminate).await;
        info!(signal = name, "shutting down");
        notify::stopping();
        token.cancel();
        let name = either(&mut interrupt, &mut terminate).await;
        warn!(signal = name, "second signal: the program ends immediately");
        // The thread that writes the line ends with the process.
        flush_brief();
        // An exit would run destructors of data that libtorch's threads still use.
        let _ = kill_process(getpid(), Kill::KILL);
    });
    Ok(shutdown)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn shutdown_has_a_delay_and_a_grace_period() {
        let (grace, delay) = (Duration::from_millis(50), Duration::from_millis(100));
        let signal = CancellationToken::new();
        let shutdown = ShutdownArgs { grace, delay }.after(signal.clone());
        assert!(!shutdown.announced.is_cancelled());
        let started = Instant::now();
        signal.cancel();
        assert!(shutdown.announced.is_cancelled() && !shutdown.closing.is_cancelled());
        shutdown.closing.cancelled().await;
        assert!(started.elapsed() >= delay);
        shutdown.grace_expired().await;
        assert!(started.elapsed() >= delay + grace);
    }

    #[test]
    fn durations_are_whole_seconds_up_to_a_day() {
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("86400"), Ok(Duration::from_secs(86_400)));
        for invalid in ["86401", "-1", "1.5", "", "x"] {
            assert!(seconds(invalid).is_err(), "{invalid}");
        }
    }
}
