//! `muse-models`: converts the model and verifies a conversion.

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::{self, ExitCode},
};

use clap::{Parser, Subcommand, ValueEnum};
use muse_model::{
    device::{self, DeviceChoice, DeviceError},
    model_dir::Precision,
};
use muse_models::{
    convert::{Outcome, convert},
    precision::{self, Picked},
    verify::verify,
};
use tch::Device;

/// The exit status after an invalid option or environment variable (`EX_USAGE` of `sysexits.h`).
const EXIT_USAGE: i32 = 64;

/// Prepares the model that muse-embedder serves.
#[derive(Debug, Parser)]
#[command(name = "muse-models", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Convert an ONNX export of the model into a model directory.
    Convert {
        /// The ONNX file; its weights may be int8 or float32.
        onnx: PathBuf,
        /// The directory to make.
        out_dir: PathBuf,
        /// What the converted model computes in. `auto` is bf16 where the device computes in it, else f32.
        #[arg(long, value_enum, env = "MUSE_PRECISION", default_value = "f32")]
        precision: PrecisionArgument,
        /// The device that the precision `auto` is picked for: `auto`, `cpu`, `cuda` or `cuda:N`, as for muse-embedder.
        #[arg(long, env = "MUSE_DEVICE", default_value_t)]
        device: DeviceChoice,
    },
    /// Check a model directory: its checksums, its tokens and its vectors.
    Verify {
        /// The directory.
        dir: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PrecisionArgument {
    F32,
    Bf16,
    F16,
    Auto,
}

impl PrecisionArgument {
    /// The precision to convert to. What `auto` picked is printed, and so is that another one were faster.
    fn resolve(self, choice: DeviceChoice) -> Result<Precision, DeviceError> {
        let asked = match self {
            PrecisionArgument::F32 => return Ok(Precision::F32),
            PrecisionArgument::Bf16 => Precision::Bf16,
            PrecisionArgument::F16 => Precision::F16,
            PrecisionArgument::Auto => {
                let Picked { precision, because } = precision::pick(device::resolve(choice)?);
                print(io::stdout(), format_args!("precision auto: {precision}, since {because}"));
                return Ok(precision);
            }
        };
        if let Ok(Device::Cpu) = device::resolve(choice) {
            let Picked { precision, because } = precision::pick(Device::Cpu);
            if asked != precision {
                print(
                    io::stderr(),
                    format_args!(
                        "muse-models: note: {asked} is slower than {precision} here, since {because}"
                    ),
                );
            }
        }
        Ok(asked)
    }
}

/// Writes a line. If nobody reads it, what was done is done all the same.
fn print(mut to: impl Write, line: fmt::Arguments<'_>) {
    let _ = writeln!(to, "{line}");
}

/// Prints the help or the error of an option, and ends the program as the services do.
fn end(usage: &clap::Error) -> ! {
    let _ = usage.print();
    process::exit(if usage.use_stderr() { EXIT_USAGE } else { 0 })
}

fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|usage| end(&usage));
    match run(arguments.command) {
        Ok(status) => status,
        Err(error) => {
            print(io::stderr(), format_args!("muse-models: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match command {
        Command::Convert { onnx, out_dir, precision, device } => {
            let precision =
                precision.resolve(device).map_err(|error| format!("--device {device}: {error}"))?;
            match convert(&onnx, &out_dir, precision)? {
                Outcome::Converted => print(
                    io::stdout(),
                    format_args!("converted {} into {}", onnx.display(), out_dir.display()),
                ),
                Outcome::UpToDate => print(io::stdout(), format_args!("{} is up to date", out_dir.display())),
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { dir } => {
            let report = verify(&dir)?;
            print(io::stdout(), format_args!("{report}"));
            let failures = report.failures();
            if failures.is_empty() {
                print(io::stdout(), format_args!("passed"));
                return Ok(ExitCode::SUCCESS);
            }
            Err(format!("{} does not pass: {}", dir.display(), failures.join("; ")).into())
        }
    }
}
