//! `muse-models`: converts the model and verifies a conversion.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use muse_embedder::model_dir::Precision;
use muse_models::{
    convert::{Outcome, convert},
    verify::verify,
};

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
        /// What the converted model computes in.
        #[arg(long, value_enum, default_value = "f32")]
        precision: PrecisionArgument,
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
}

impl From<PrecisionArgument> for Precision {
    fn from(argument: PrecisionArgument) -> Precision {
        match argument {
            PrecisionArgument::F32 => Precision::F32,
            PrecisionArgument::Bf16 => Precision::Bf16,
            PrecisionArgument::F16 => Precision::F16,
        }
    }
}

fn main() -> ExitCode {
    let arguments: Arguments = muse_chassis::parse_options();
    match run(arguments.command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("muse-models: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match command {
        Command::Convert { onnx, out_dir, precision } => {
            match convert(&onnx, &out_dir, precision.into())? {
                Outcome::Converted => println!("converted {} into {}", onnx.display(), out_dir.display()),
                Outcome::UpToDate => println!("{} is up to date", out_dir.display()),
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { dir } => {
            let report = verify(&dir)?;
            println!("{report}");
            let failures = report.failures();
            if failures.is_empty() {
                println!("passed");
                return Ok(ExitCode::SUCCESS);
            }
            Err(format!("{} does not pass: {}", dir.display(), failures.join("; ")).into())
        }
    }
}
