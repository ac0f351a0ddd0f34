//! `make gpu-check`: exactness and speed of the model on a device, as tables. It runs on machines
//! that have torch and a GPU, but neither Rust nor this checkout, so it converts the model itself.

mod exactness;
mod model;
mod products;
mod speed;
mod stack;
mod table;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use muse_model::{
    device::{self, DeviceChoice},
    inference::Model,
    model_dir::ModelDir,
    precision::Precision,
};
use tch::Device;

use exactness::Exactness;
use stack::Load;
use table::Table;

/// Checks the model's exactness and speed on a device, and the whole stack on it.
#[derive(Debug, Parser)]
#[command(name = "muse-gpu-check", version)]
struct Options {
    /// The int8 ONNX export of the model, plain or compressed with gzip.
    onnx: PathBuf,
    /// Device of the model: `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long, env = "MUSE_DEVICE", default_value_t)]
    device: DeviceChoice,
    /// Take short measurements, and skip some.
    #[arg(long)]
    quick: bool,
    /// File for the tables, which are also printed.
    #[arg(long, default_value = "gpu-check.md")]
    report: PathBuf,
}

/// The extent of the measurements.
struct Extent {
    /// Each sentence with a multiple of this index also runs alone.
    single_stride: usize,
    /// Time limit for the golden sentences.
    exactness: Duration,
    /// Duration of each measurement of the forward pass or of a product.
    pass: Duration,
    /// Duration of each load of the whole stack.
    load: Duration,
    /// Batch sizes in sentences.
    batches: &'static [usize],
    /// Number of rows and columns of the matrices of the square product.
    square: i64,
    /// Precisions for the whole stack.
    stack: &'static [Precision],
}

impl Extent {
    fn of(device: Device, quick: bool) -> Self {
        let all = &PRECISIONS;
        let (pass, load) = (Duration::from_secs(1), Duration::from_secs(5));
        let exactness = Duration::from_secs(60);
        match (quick, device.is_cuda()) {
            (true, _) => Self {
                single_stride: 29,
                exactness: Duration::from_secs(4),
                pass: Duration::from_millis(200),
                load: Duration::from_millis(500),
                batches: &[1, 8, 32],
                square: 1024,
                stack: &all[..1],
            },
            (false, true) => {
                let batches = &[1, 8, 32, 128, 512, 2048, 8192];
                Self { single_stride: 7, exactness, pass, load, batches, square: 8192, stack: all }
            }
            (false, false) => {
                let batches = &[1, 8, 32, 128, 512];
                Self { single_stride: 7, exactness, pass, load, batches, square: 2048, stack: all }
            }
        }
    }
}

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::F16];

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match check(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("gpu-check: some vectors are not exact enough, see above");
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("gpu-check: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Prints and writes the tables. Returns whether the vectors are exact enough.
async fn check(options: &Options) -> Result<bool, Box<dyn Error>> {
    let device = device::resolve(options.device).map_err(|e| format!("--device {}: {e}", options.device))?;
    let extent = Extent::of(device, options.quick);
    let mut report = Report { path: &options.report, text: String::new() };
    report.add(&about(options.device, device))?;

    let folder = tempfile::tempdir()?;
    eprintln!("converting the model");
    let path = model::convert_in(folder.path(), &options.onnx)?;
    let directory = ModelDir::open(&path)?;
    let load = |precision| Ok::<_, Box<dyn Error>>(Model::load(&directory, device, precision)?);

    eprintln!("the golden sentences");
    let mut found = Vec::new();
    for precision in PRECISIONS {
        let tested = load(precision)
            .and_then(|model| Ok(Exactness::measure(&model, extent.single_stride, extent.exactness)?))
            .map_err(|failure| failure.to_string());
        found.push((precision, tested));
    }
    report.add(&exactness::table(device, &found).titled("Golden sentences"))?;
    let passed =
        found.iter().all(|(precision, tested)| exactness::passes(device, *precision, tested.as_ref()));

    eprintln!("matrix products");
    let mut forward = Table::new(&[
        "precision",
        "sentences",
        "tokens",
        "sentences/s",
        "tokens/s",
        "TFLOP/s",
        "relative to the layer's product",
        "relative to the square product",
    ]);
    let mut products = Table::new(&["precision", "product", "TFLOP/s"]);
    for precision in PRECISIONS {
        let [layer, square] = products::measure(device, precision.kind(), extent.square, extent.pass);
        for product in [&layer, &square] {
            products.row(&[precision.to_string(), product.shape(), product.figure()]);
        }
        eprintln!("forward pass in {precision}");
        match load(precision) {
            Ok(model) => {
                for line in speed::measure(&model, device, extent.batches, extent.pass) {
                    forward.row(&line.cells(precision, [&layer, &square]));
                }
            }
            Err(failure) => forward.row(&[precision.to_string(), failure.to_string()]),
        }
    }
    report.add(&products.titled("Matrix products of libtorch"))?;
    let title = format!("Forward pass, {} concurrent, copies included", speed::passes_in_flight(device));
    report.add(&forward.titled(&title))?;

    let mut loads = Table::new(&[
        "precision",
        "clients",
        "sentences per call",
        "calls",
        "sentences/s",
        "p50 ms",
        "p99 ms",
    ]);
    for &precision in extent.stack {
        eprintln!("the whole stack in {precision}");
        for (clients, sentences) in [(16, 32), (64, 1)] {
            let load = Load { clients, sentences, duration: extent.load };
            loads.row(&stack::measure(&path, device, precision, load).await.cells(precision, load));
        }
    }
    report.add(&loads.titled("Whole stack, gRPC through the gateway"))?;
    Ok(passed)
}

struct Report<'path> {
    path: &'path Path,
    text: String,
}

impl Report<'_> {
    /// Prints a part and rewrites the file, so that the parts before a failure remain.
    fn add(&mut self, part: &str) -> Result<(), String> {
        println!("{part}");
        self.text.push_str(part);
        self.text.push('\n');
        fs::write(self.path, &self.text)
            .map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}

/// The table of the device and the program.
fn about(choice: DeviceChoice, device: Device) -> String {
    let mut table = Table::new(&["", ""]);
    let mut line = |name: &str, value: String| table.row(&[name.to_owned(), value]);
    line("device", device::name(device));
    if let Some(card) = device::card(device) {
        line("card", card.name);
        line("compute capability", format!("{}.{}", card.capability.0, card.capability.1));
        line("driver", card.driver);
    }
    if let (DeviceChoice::Auto, Device::Cpu) = (choice, device)
        && let Err(lack) = device::resolve(DeviceChoice::Cuda(0))
    {
        line("CUDA unavailable", lack.to_string());
    }
    line("CPU cores", std::thread::available_parallelism().map_or(1, usize::from).to_string());
    line("this program", env!("CARGO_PKG_VERSION").to_owned());
    table.titled("MUSE as Service on this device")
}
