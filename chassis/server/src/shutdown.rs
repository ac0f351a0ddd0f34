//! The end of a service, in three steps: it says that it is not ready but goes on, so that load balancers notice; it
//! accepts nothing new; and what has begun may end, for a while.

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
        Err(refused) => Err(refused.to_string()),
    }
}

impl ShutdownArgs {
    /// The shutdown that begins when `asked` is cancelled.
    #[must_use]
    pub fn after(self, asked: CancellationToken) -> Shutdown {
        if self.delay.is_zero() {
            return Shutdown { announced: asked.clone(), closing: asked, grace: self.grace };
        }
        let shutdown = Shutdown { announced: asked, closing: CancellationToken::new(), grace: self.grace };
        let (announced, closing) = (shutdown.announced.clone(), shutdown.closing.clone());
        tokio::spawn(async move {
            announced.cancelled().await;
            tokio::time::sleep(self.delay).await;
            info!("nothing new is accepted any more");
            closing.cancel();
        });
        shutdown
    }
}

/// How far a shutdown is.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// Cancelled when the service is no longer ready. It accepts and serves all the same.
    pub announced: CancellationToken,
    /// Cancelled when nothing new is accepted.
    pub closing: CancellationToken,
    grace: Duration,
}

impl Shutdown {
    /// Ends when the time for work that had begun is over, with a warning.
    pub async fn out_of_grace(self) {
        self.closing.cancelled().await;
        tokio::time::sleep(self.grace).await;
        warn!("some calls were still going on when the time for them was over");
    }
}

/// A token that is cancelled at the first SIGINT or SIGTERM. A second one ends the program at once.
///
/// # Errors
///
/// [`StartError::Signals`] if the handlers cannot be installed.
pub fn on_signal() -> Result<CancellationToken, StartError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let shutdown = CancellationToken::new();
    let asked = shutdown.clone();
    tokio::spawn(async move {
        let name = either(&mut interrupt, &mut terminate).await;
        info!(signal = name, "shutting down");
        notify::stopping();
        asked.cancel();
        let name = either(&mut interrupt, &mut terminate).await;
        warn!(signal = name, "asked once more, ending at once");
        // That line is still to be written, by a thread that the signal ends, too.
        flush_brief();
        // An exit would take down what libtorch's threads are working with before them.
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
    async fn it_serves_on_for_the_delay_and_ends_after_the_grace() {
        let (grace, delay) = (Duration::from_millis(50), Duration::from_millis(100));
        let asked = CancellationToken::new();
        let shutdown = ShutdownArgs { grace, delay }.after(asked.clone());
        assert!(!shutdown.announced.is_cancelled());
        let begun = Instant::now();
        asked.cancel();
        assert!(shutdown.announced.is_cancelled() && !shutdown.closing.is_cancelled());
        shutdown.closing.cancelled().await;
        assert!(begun.elapsed() >= delay);
        shutdown.out_of_grace().await;
        assert!(begun.elapsed() >= delay + grace);
    }

    #[test]
    fn times_are_whole_seconds_up_to_a_day() {
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("86400"), Ok(Duration::from_secs(86_400)));
        for odd in ["86401", "-1", "1.5", "", "x"] {
            assert!(seconds(odd).is_err(), "{odd}");
        }
    }
}
