//! What to measure, and for how long.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

use crate::load::Window;

/// Compares the service with the bare forward pass, with its peers and with its targets.
#[derive(Debug, Parser)]
#[command(name = "muse-bench")]
pub(crate) struct Options {
    /// Directories made by `muse-models convert`; all is measured with each of them.
    #[arg(required = true)]
    pub(crate) models: Vec<PathBuf>,

    /// Folder of the programs to measure.
    #[arg(long, default_value = "target/release")]
    pub(crate) programs: PathBuf,

    /// Python of an environment with tests/bench/requirements.txt; without it onnxruntime is left out.
    #[arg(long, requires = "onnx")]
    pub(crate) peer_python: Option<PathBuf>,

    /// The int8 ONNX export, for onnxruntime.
    #[arg(long)]
    pub(crate) onnx: Option<PathBuf>,

    /// Sections to measure, with commas between them; all by default.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Section::value_variants().to_vec(), hide_default_value = true)]
    pub(crate) only: Vec<Section>,

    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,

    /// Seconds of load before each measurement.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warm_up: f64,

    /// Rounds; medians are told, and the lowest and the highest.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,

    /// Starts of the programs, for the time until they are ready.
    #[arg(long, default_value_t = 5)]
    pub(crate) starts: usize,

    /// Seconds of the overload.
    #[arg(long, default_value_t = 60.0)]
    pub(crate) overload_seconds: f64,

    /// Seconds of each half of the measurement of fairness.
    #[arg(long, default_value_t = 30.0)]
    pub(crate) fairness_seconds: f64,

    /// Seconds at full load in which memory is watched.
    #[arg(long, default_value_t = 600.0)]
    pub(crate) soak_seconds: f64,

    /// Where to write the report, in Markdown, and the plot beside it; it is printed in any case.
    #[arg(long)]
    pub(crate) report: Option<PathBuf>,
}

impl Options {
    /// Whether a section is to be measured.
    pub(crate) fn has(&self, section: Section) -> bool {
        self.only.contains(&section)
    }

    /// When to measure.
    pub(crate) fn window(&self) -> Window {
        Window { warm_up: Duration::from_secs_f64(self.warm_up), duration: self.duration() }
    }

    /// How long to measure.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// From exec to ready.
    Startup,
    /// The forward pass over a plain matrix product.
    Gemm,
    /// One sentence, one client.
    Latency,
    /// The service over the forward pass, onnxruntime and the old service.
    Throughput,
    /// Throughput and latency by clients and by sentences a request.
    Curves,
    /// Memory after load.
    Memory,
    /// Ten times more than can be served.
    Overload,
    /// A user with few sentences beside one with many.
    Fairness,
    /// Many clients that keep calling.
    Crowd,
    /// Clients that hang up.
    Abandonment,
    /// How long async threads run between awaits, where the programs are built to tell.
    Polls,
    /// Memory over time.
    Soak,
}
