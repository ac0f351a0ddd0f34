//! The configuration of the embedder: [`Args`] are the options as given, [`Config`] is what they
//! mean on this machine. Options are resolved once, before the service binds its addresses.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use muse_model::{
    device::{self, DeviceChoice, DeviceError},
    precision::{Precision, PrecisionOption},
};
use muse_server::{
    Addresses, ConfigError, ShutdownArgs, TraceArgs,
    tls::{ClientTls, PeerArgs, ServerTls},
};
use muse_telemetry::LogArgs;
use muse_verifier::AuthArgs;
use tch::Device;

use crate::batcher::Batching;

/// The default of `--batch-tokens` on a CPU.
const CPU_BATCH_TOKENS: usize = 640;
/// The default of `--batch-tokens` on a CUDA device.
const CUDA_BATCH_TOKENS: usize = 8_192;

/// Serves sentence vectors and SentencePiece tokens of MUSE over gRPC (muse.v1.EmbedderService).
#[derive(Debug, Clone, Parser)]
#[command(name = "muse-embedder", version)]
pub struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "EMBEDDER_LISTEN", default_value = "127.0.0.1:5002")]
    pub listen: SocketAddr,

    /// Address of the admin port, for probes and Prometheus: /livez, /readyz and /metrics over
    /// plain HTTP.
    #[arg(long, env = "EMBEDDER_PRIVATE_LISTEN", default_value = "127.0.0.1:5012", global = true)]
    pub private_listen: SocketAddr,

    /// The auth service, whose tokens callers need.
    #[command(flatten)]
    pub auth: AuthArgs,

    /// Directory made by `muse-models convert`.
    #[arg(long, env = "MUSE_MODEL_DIR")]
    pub model_dir: PathBuf,

    /// Device that runs the model: `auto`, `cpu`, `cuda` or `cuda:N`. `auto` is the first CUDA
    /// device, or the CPU if none can be used. `CUDA_VISIBLE_DEVICES` applies.
    #[arg(long, env = "MUSE_DEVICE", default_value_t)]
    pub device: DeviceChoice,

    /// Precision of the forward pass: `f32`, `bf16`, `f16`, `int8` (on a CPU) or `auto`, the fastest
    /// of f32, bf16 and int8 by a measurement at the start.
    #[arg(long, env = "MUSE_PRECISION", default_value_t)]
    pub precision: PrecisionOption,

    /// Cores for all forward passes together.
    #[arg(long, env = "MUSE_THREADS", default_value_t = available_cores(), value_parser = positive)]
    pub threads: usize,

    /// Forward passes that run at the same time and share the cores [default: one for each core; 2
    /// on CUDA].
    #[arg(long, env = "MUSE_PASSES", value_parser = positive)]
    pub passes: Option<usize>,

    /// Threads of the tokenizer.
    #[arg(long, env = "MUSE_TOKENIZER_THREADS", default_value_t = available_cores(), value_parser = positive)]
    pub tokenizer_threads: usize,

    /// Maximum tokens of a forward pass; a longer sentence is a pass of its own [default: 640; 8192
    /// on CUDA].
    #[arg(long, env = "MUSE_BATCH_TOKENS", value_parser = positive)]
    pub batch_tokens: Option<usize>,

    /// Maximum tokens in the queue, at most half of them of one user; further requests are
    /// rejected. A token takes 4 bytes: 16 MiB by default.
    #[arg(long, env = "MUSE_QUEUE_TOKENS", default_value_t = 4 << 20, value_parser = positive)]
    pub queue_tokens: usize,

    /// Maximum queueing time, in seconds: a request without a deadline that would wait longer is
    /// rejected.
    #[arg(long, env = "MUSE_MAX_QUEUE_SECONDS", default_value_t = 60, value_parser = positive)]
    pub max_queue_seconds: usize,

    /// Seconds for which responses of a stream may be unread until the stream ends. Each response
    /// that is read resets the time.
    #[arg(long, env = "MUSE_STREAM_READ_TIMEOUT", default_value_t = 300, value_parser = positive)]
    pub stream_read_timeout: usize,

    /// Options of the shutdown.
    #[command(flatten)]
    pub shutdown: ShutdownArgs,

    /// How services connect with each other.
    #[command(flatten)]
    pub peers: PeerArgs,

    /// Options of traces.
    #[command(flatten)]
    pub traces: TraceArgs,

    /// Options of the log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// A valid configuration: files are read, the device is found.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the service listens.
    pub addresses: Addresses,
    /// The auth service.
    pub auth: AuthArgs,
    /// The model directory.
    pub model_dir: PathBuf,
    /// The device that runs the model.
    pub device: Device,
    /// The precision of the forward pass.
    pub precision: PrecisionOption,
    /// How the model runs on it.
    pub batching: Batching,
    /// Threads of the tokenizer.
    pub tokenizer_threads: usize,
    /// How long responses of a stream may be unread.
    pub stream_read_timeout: Duration,
    /// The phases of the shutdown.
    pub shutdown: ShutdownArgs,
    /// TLS for callers, if any.
    pub server_tls: Option<ServerTls>,
    /// TLS to other services, if any.
    pub client_tls: Option<ClientTls>,
    /// The collector of traces, if any.
    pub traces: TraceArgs,
}

/// Why options do not make a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// An option is invalid, or contradicts another one.
    #[error(transparent)]
    Invalid(#[from] ConfigError),
    /// The requested device cannot be used.
    #[error("--device {0}: {1}")]
    Device(DeviceChoice, #[source] DeviceError),
}

impl ArgsError {
    /// Reports the error, and returns the exit status: 64 for an invalid option, 1 for a device
    /// that cannot be used.
    #[must_use]
    pub fn report(self) -> ExitCode {
        match self {
            Self::Invalid(error) => error.usage(),
            device @ Self::Device(..) => muse_server::report(Err(device)),
        }
    }
}

impl TryFrom<Args> for Config {
    type Error = ArgsError;

    fn try_from(args: Args) -> Result<Self, ArgsError> {
        let server_tls = args.peers.server(args.listen)?;
        let client_tls = args.peers.client([("--auth", args.auth.endpoint.uri())])?;
        args.traces.check(client_tls.is_some())?;
        let device = device::resolve(args.device).map_err(|error| ArgsError::Device(args.device, error))?;
        if device.is_cuda() && args.precision == PrecisionOption::Fixed(Precision::Int8) {
            let text = format!("int8 runs on CPUs, and the device is {}", device::name(device));
            return Err(ConfigError::new("--precision", text).into());
        }
        Ok(Self {
            addresses: Addresses { public: args.listen, admin: args.private_listen },
            device,
            precision: args.precision,
            batching: args.batching(device),
            tokenizer_threads: args.tokenizer_threads,
            stream_read_timeout: seconds(args.stream_read_timeout),
            shutdown: args.shutdown,
            server_tls,
            client_tls,
            auth: args.auth,
            model_dir: args.model_dir,
            traces: args.traces,
        })
    }
}

impl Args {
    fn batching(&self, device: Device) -> Batching {
        let batch_tokens = if device.is_cuda() { CUDA_BATCH_TOKENS } else { CPU_BATCH_TOKENS };
        Batching {
            threads: self.threads,
            passes: self.passes.unwrap_or_else(|| device::passes_in_flight(device, self.threads)),
            batch_tokens: self.batch_tokens.unwrap_or(batch_tokens),
            queue_tokens: self.queue_tokens,
            max_wait: seconds(self.max_queue_seconds),
        }
    }
}

fn seconds(count: usize) -> Duration {
    Duration::from_secs(count as u64)
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        // Semaphore::MAX_PERMITS is far above; this bound keeps every count in a u32.
        Ok(number @ 1..=0x7fff_ffff) => Ok(number),
        Ok(_) => Err("must lie between 1 and 2147483647".to_owned()),
        Err(invalid) => Err(invalid.to_string()),
    }
}

fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
