//! The server parts that the services share: options, listeners, TLS, the admin port, health,
//! shutdown.
//!
//! Options are validated before a port is bound. SIGINT and SIGTERM cancel one cancellation token.

#![deny(unsafe_code)]

pub mod admin;
pub mod allocator;
pub mod backoff;
mod config;
mod connection_limits;
mod context;
pub mod deadline;
mod descriptors;
mod empty_variables;
pub mod error_mapping;
pub mod grpc;
pub mod health;
mod healthcheck;
pub mod lingering_close;
mod listeners;
mod loopback;
pub mod memory_budget;
pub mod notify;
pub mod resolver;
pub mod shutdown;
pub mod tls;
mod trace_options;

use std::{error::Error as StdError, io, net::SocketAddr, num::NonZero, process::ExitCode, time::Duration};

use muse_telemetry::{flush_log, with_causes};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub use config::ConfigError;
pub use connection_limits::{ConnectionLimits, ConnectionPermit, client_network};
pub use context::{ServiceContext, ServiceSettings};
pub use descriptors::connection_limit;
pub use healthcheck::parse_service_options;
pub use listeners::{Addresses, Listeners};
pub use loopback::{is_loopback, is_loopback_host};
pub use shutdown::{Shutdown, ShutdownArgs};
pub use trace_options::TraceArgs;

/// The exit status after a bad option or environment variable (`EX_USAGE` of `sysexits.h`).
pub const EXIT_USAGE: u8 = 64;
/// Cores per thread of the async runtime.
const CORES_PER_IO_THREAD: usize = 4;
/// The largest `TOKIO_WORKER_THREADS`.
const MAX_WORKER_THREADS: usize = 1024;

/// Time at the end of a service for running blocking calls, such as DNS lookups.
const BLOCKING_CALLS_WITHIN: Duration = Duration::from_secs(10);

/// Why a service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The signal handlers cannot be installed.
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
    /// The threads of the async runtime cannot be started.
    #[error("cannot start the async runtime: {0}")]
    Runtime(io::Error),
}

/// Prints the error, help or version of clap, and exits.
fn end(refused: &clap::Error) -> ! {
    let _ = refused.print();
    let status = if refused.use_stderr() { i32::from(EXIT_USAGE) } else { 0 };
    std::process::exit(status)
}

/// Runs the program of a service: binds its addresses, runs the service until a signal, and returns
/// the exit status.
///
/// `run` gets the listeners and the token of [`shutdown::on_signal`].
pub fn serve<F, E>(
    name: &'static str,
    addresses: Addresses,
    run: impl FnOnce(Listeners, CancellationToken) -> F,
) -> ExitCode
where
    F: Future<Output = Result<(), E>>,
    E: StdError + 'static,
{
    let worker_threads = match worker_threads() {
        Ok(threads) => threads,
        Err(invalid) => return invalid.usage(),
    };
    descriptors::raise_limit();
    allocator::return_unused_memory();
    let outcome = runtime(worker_threads).map_err(StartError::Runtime).map(|runtime| {
        let served = runtime.block_on(async {
            let shutdown = shutdown::on_signal()?;
            let listeners = Listeners::bind(addresses).await?;
            let Addresses { public, admin } = listeners.addresses();
            info!(%admin, address = %public, "{name} {} listens", env!("CARGO_PKG_VERSION"));
            notify::admin(admin);
            notify::listening(public);
            Ok::<_, StartError>(run(listeners, shutdown).await)
        });
        // A DNS lookup can take minutes if the server does not answer, and cannot be cancelled.
        runtime.shutdown_timeout(BLOCKING_CALLS_WITHIN);
        served
    });
    match outcome {
        Ok(Ok(served)) => report(served),
        Ok(Err(refused)) | Err(refused) => report(Err(refused)),
    }
}

/// The async runtime. It only moves messages; long work has threads of its own. On a small machine
/// one thread serves messages faster than several. `TOKIO_WORKER_THREADS` sets another number.
fn runtime(worker_threads: usize) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(worker_threads);
    #[cfg(tokio_unstable)]
    muse_telemetry::observe_polls(&mut builder);
    builder.enable_all().build()
}

/// The number of threads of the async runtime.
///
/// # Errors
///
/// If `TOKIO_WORKER_THREADS` is not a number of threads; tokio itself would panic.
fn worker_threads() -> Result<usize, ConfigError> {
    const VARIABLE: &str = "TOKIO_WORKER_THREADS";
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let value = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let Some(value) = value else { return Ok((cores / CORES_PER_IO_THREAD).max(1)) };
    match value.to_str().and_then(|text| text.parse().ok()) {
        Some(threads @ 1..=MAX_WORKER_THREADS) => Ok(threads),
        _ => Err(ConfigError::new(VARIABLE, format!("must lie between 1 and {MAX_WORKER_THREADS}"))),
    }
}

/// Returns the exit status of a program: 0, or 1 after it has logged the error with its causes in
/// one line.
pub fn report<E: StdError + 'static>(outcome: Result<(), E>) -> ExitCode {
    let status = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{}", with_causes(&failure));
            ExitCode::FAILURE
        }
    };
    flush_log();
    status
}
