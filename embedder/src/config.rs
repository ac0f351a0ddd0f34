//! The embedder's options.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use muse_model::device::{self, DeviceChoice};
use muse_server::{
    Addresses, ConfigError, ShutdownArgs, TraceArgs,
    tls::{ClientTls, PeerArgs, ServerTls},
};
use muse_telemetry::LogArgs;
use muse_verifier::AuthArgs;
use tch::Device;

use crate::{EmbedderError, batcher::Batching};

/// Serves sentence vectors and SentencePiece tokens of MUSE over gRPC (muse.v1.EmbedderService).
#[derive(Debug, Clone, Parser)]
#[command(name = "muse-embedder", version)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "EMBEDDER_LISTEN", default_value = "127.0.0.1:5002")]
    pub listen: SocketAddr,

    /// Address of the private port, for probes and Prometheus: /livez, /readyz and /metrics over plain HTTP.
    #[arg(long, env = "EMBEDDER_PRIVATE_LISTEN", default_value = "127.0.0.1:5012", global = true)]
    pub private_listen: SocketAddr,

    /// Whose tokens the callers need.
    #[command(flatten)]
    pub auth: AuthArgs,

    /// Directory made by `muse-models convert`.
    #[arg(long, env = "MUSE_MODEL_DIR")]
    pub model_dir: PathBuf,

    /// Where the model runs: `auto`, `cpu`, `cuda` or `cuda:N`. `auto` is the first CUDA device, or the CPU where there is
    /// none that can be used; `CUDA_VISIBLE_DEVICES` holds.
    #[arg(long, env = "MUSE_DEVICE", default_value_t)]
    pub device: DeviceChoice,

    /// Cores of the forward passes, all of them together.
    #[arg(long, env = "MUSE_THREADS", default_value_t = available_cores(), value_parser = positive)]
    pub threads: usize,

    /// Forward passes that run side by side and divide the cores among them [default: one for each core; 2 on CUDA].
    #[arg(long, env = "MUSE_PASSES", value_parser = positive)]
    pub passes: Option<usize>,

    /// Threads that tokenize.
    #[arg(long, env = "MUSE_TOKENIZER_THREADS", default_value_t = available_cores(), value_parser = positive)]
    pub tokenizer_threads: usize,

    /// Tokens that one forward pass takes at most; a longer sentence is a pass of its own [default: 640; 8192 on CUDA].
    #[arg(long, env = "MUSE_BATCH_TOKENS", value_parser = positive)]
    pub batch_tokens: Option<usize>,

    /// Tokens that may wait for a forward pass, half of them of one user; beyond that requests are rejected. They take 4 bytes
    /// each: 16 MiB.
    #[arg(long, env = "MUSE_QUEUE_TOKENS", default_value_t = 4 << 20, value_parser = positive)]
    pub queue_tokens: usize,

    /// Maximum queueing time, in seconds: a request without a deadline that would wait longer is rejected.
    #[arg(long, env = "MUSE_MAX_QUEUE_SECONDS", default_value_t = 60, value_parser = positive)]
    pub max_queue_seconds: usize,

    /// Seconds that answers of a stream may be unread before the stream is ended. Each answer that is read starts the time
    /// anew.
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

impl Config {
    /// Where the service listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses { public: self.listen, private: self.private_listen }
    }

    /// How others connect to this service, and this one to others.
    ///
    /// # Errors
    ///
    /// Names the option that cannot be.
    pub fn tls(&self) -> Result<(Option<ServerTls>, Option<ClientTls>), ConfigError> {
        let server = self.peers.server(self.listen)?;
        let client = self.peers.client([("--auth", self.auth.endpoint.uri())])?;
        self.traces.check(client.is_some())?;
        Ok((server, client))
    }

    /// The device that the model will run on.
    ///
    /// # Errors
    ///
    /// [`EmbedderError::Device`] if it was asked for and cannot be used.
    pub fn resolve_device(&self) -> Result<Device, EmbedderError> {
        device::resolve(self.device).map_err(|error| EmbedderError::Device(self.device, error))
    }

    /// How long answers of a stream may be unread.
    #[must_use]
    pub fn stream_read_timeout(&self) -> Duration {
        Duration::from_secs(self.stream_read_timeout as u64)
    }

    /// How the model is run on a device.
    #[must_use]
    pub fn batching(&self, device: Device) -> Batching {
        let batch_tokens = if device.is_cuda() { 8_192 } else { 640 };
        Batching {
            threads: self.threads,
            passes: self.passes.unwrap_or_else(|| device::passes_in_flight(device, self.threads)),
            batch_tokens: self.batch_tokens.unwrap_or(batch_tokens),
            queue_tokens: self.queue_tokens,
            max_wait: Duration::from_secs(self.max_queue_seconds as u64),
        }
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        // Semaphore::MAX_PERMITS is far above; this bound keeps every count in a u32.
        Ok(number @ 1..=0x7fff_ffff) => Ok(number),
        Ok(_) => Err("must lie between 1 and 2147483647".to_owned()),
        Err(refused) => Err(refused.to_string()),
    }
}

fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
