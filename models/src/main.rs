//! `muse-models`: converts the model and verifies a conversion.

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::{self, ExitCode},
};

use clap::{Parser, Subcommand};
use muse_model::precision::Precision;
use muse_models::{
    convert::{ConversionOutcome, convert_source},
    source::ModelSource,
    verify::verify,
};

/// The exit status after an invalid option or environment variable (`EX_USAGE` of `sysexits.h`).
const EXIT_USAGE: i32 = 64;

/// Prepares the model that muse-embedder serves.
#[derive(Debug, Parser)]
#[command(name = "muse-models", version, about)]
struct Cli {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Convert the model into a model directory.
    Convert {
        /// TF Hub's tarball, its unpacked folder, a folder of TF Hub's cache, or an ONNX file.
        source: PathBuf,
        /// The directory to write.
        out_dir: PathBuf,
    },
    /// Verify a model directory: its checksums, tokens and vectors.
    Verify {
        /// The directory.
        dir: PathBuf,
        /// The precision of the forward pass: f32, bf16, f16 or int8.
        #[arg(long, default_value_t = Precision::F32)]
        precision: Precision,
        /// Print the published similarities of the original beside those of the model, as a table in
        /// Markdown, instead of the report.
        #[arg(long)]
        table: bool,
    },
}

/// The text with control characters escaped: a path or a damaged file may contain them.
fn printable(text: &str) -> String {
    let escape = |char: char| {
        if char.is_control() { char.escape_default().to_string() } else { char.to_string() }
    };
    text.chars().map(escape).collect()
}

/// Writes a line. Errors, such as of a closed pipe, do not affect the result.
fn print(mut to: impl Write, line: fmt::Arguments<'_>) {
    let _ = writeln!(to, "{line}");
}

/// Prints the help or the error of an option, and ends the program as the services do.
fn end(usage: &clap::Error) -> ! {
    let _ = usage.print();
    process::exit(if usage.use_stderr() { EXIT_USAGE } else { 0 })
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|usage| end(&usage));
    match run(cli.command) {
        Ok(status) => status,
        Err(error) => {
            print(io::stderr(), format_args!("muse-models: {}", printable(&error.to_string())));
            ExitCode::FAILURE
        }
    }
}

fn run(command: ModelsCommand) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match command {
        ModelsCommand::Convert { source, out_dir } => {
            let source = ModelSource::detect(&source)?;
            let (path, kind, out) = (source.path().display(), source.kind(), out_dir.display());
            match convert_source(&source, &out_dir)? {
                ConversionOutcome::Converted => {
                    print(io::stdout(), format_args!("converted {path}, {kind}, into {out}"));
                }
                ConversionOutcome::ConvertedAgain(reason) => {
                    print(io::stdout(), format_args!("converted {path}, {kind}, into {out} again: {reason}"));
                }
                ConversionOutcome::UpToDate => print(io::stdout(), format_args!("{out} is up to date")),
            }
            Ok(ExitCode::SUCCESS)
        }
        ModelsCommand::Verify { dir, precision, table } => {
            let report = verify(&dir, precision)?;
            if table {
                print(io::stdout(), format_args!("{}", report.original.table().trim_end()));
            } else {
                print(io::stdout(), format_args!("{report}"));
            }
            let failures = report.failures();
            if failures.is_empty() {
                if !table {
                    print(io::stdout(), format_args!("passed"));
                }
                return Ok(ExitCode::SUCCESS);
            }
            Err(format!("{} does not pass: {}", dir.display(), failures.join("; ")).into())
        }
    }
}
