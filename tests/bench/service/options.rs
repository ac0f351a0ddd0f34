//! Options of the benchmark.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use muse_model::precision::Precision;

use crate::load::Window;

/// Compares the service with the bare forward pass, with its peers and with its targets.
#[derive(Debug, Parser)]
#[command(name = "muse-bench")]
pub(crate) struct Options {
    /// Model directory of `muse-models convert`.
    pub(crate) model: PathBuf,

    /// Precisions, separated by commas; the sections run with each of them.
    #[arg(long = "precision", value_delimiter = ',', default_values_t = [Precision::F32, Precision::Bf16, Precision::Int8])]
    pub(crate) precisions: Vec<Precision>,

    /// Folder of the programs to measure.
    #[arg(long, default_value = "target/release")]
    pub(crate) programs: PathBuf,

    /// Python of an environment with tests/bench/requirements.txt; without it onnxruntime is
    /// skipped.
    #[arg(long, requires = "onnx")]
    pub(crate) peer_python: Option<PathBuf>,

    /// The int8 ONNX export, for onnxruntime.
    #[arg(long)]
    pub(crate) onnx: Option<PathBuf>,

    /// Sections to run, separated by commas; all by default.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Section::value_variants().to_vec(), hide_default_value = true)]
    pub(crate) only: Vec<Section>,

    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,

    /// Seconds of load before each measurement.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warm_up: f64,

    /// Number of rounds; the report contains median, minimum and maximum.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,

    /// Number of starts of the programs in the section startup.
    #[arg(long, default_value_t = 5)]
    pub(crate) starts: usize,

    /// Seconds of each overload.
    #[arg(long, default_value_t = 60.0)]
    pub(crate) overload_seconds: f64,

    /// Seconds of each half of the measurement of fairness.
    #[arg(long, default_value_t = 30.0)]
    pub(crate) fairness_seconds: f64,

    /// Seconds at full load in the section soak.
    #[arg(long, default_value_t = 600.0)]
    pub(crate) soak_seconds: f64,

    /// The command `muse` of `make client`, for the section command.
    #[arg(long, default_value = "target/client/bin/muse")]
    pub(crate) client: PathBuf,

    /// Number of lines that the command embeds.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) lines: usize,

    /// File for the report in Markdown, with the plot in the same folder; the report is always
    /// printed.
    #[arg(long)]
    pub(crate) report: Option<PathBuf>,
}

impl Options {
    /// Whether a section runs.
    pub(crate) fn has(&self, section: Section) -> bool {
        self.only.contains(&section)
    }

    /// The window of a measurement.
    pub(crate) fn window(&self) -> Window {
        Window { warm_up: Duration::from_secs_f64(self.warm_up), duration: self.duration() }
    }

    /// The duration of a measurement.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// Time from exec until all services are ready.
    Startup,
    /// The forward pass in each precision, over that in f32.
    Precisions,
    /// Translations found in each precision.
    Retrieval,
    /// The forward pass over a plain matrix product.
    Gemm,
    /// One sentence, one client.
    Latency,
    /// Throughput over that of the forward pass, onnxruntime and the original service.
    Throughput,
    /// Throughput and latency by number of clients and of sentences per request.
    Curves,
    /// Memory after load.
    Memory,
    /// Ten times the capacity.
    Overload,
    /// A user with few sentences during the load of another user.
    Fairness,
    /// Up to 256 closed-loop clients without retries.
    Crowd,
    /// `muse embed` over the service.
    Command,
    /// Cancelled calls.
    Abandonment,
    /// Durations of async polls, if the programs record them.
    Polls,
    /// Memory over time.
    Soak,
}
