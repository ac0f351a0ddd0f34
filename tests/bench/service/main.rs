//! `make bench`: compares the service with the bare forward pass, with other implementations and
//! with targets.
//!
//! The programs run as separate processes, started by the launcher of `make run`. This process
//! generates the load and runs the bare forward pass, alternately in the same run, because absolute
//! values of different runs depend on the state of the machine; the report compares ratios.
//! `sections` defines the measurements; `docs/internals/benchmarks.md` is a report.

mod client;
mod figures;
mod forward;
mod gemm;
mod load;
mod machine;
mod options;
mod peer;
mod plot;
mod programs;
mod report;
mod sections;
mod workload;

use std::{fs, path::Path, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use forward::Forward;
use muse_model::{model_dir::ModelDir, precision::Precision, tokenizer::Tokenizer};
use options::{Options, Section};
use peer::Peer;
use plot::Curve;
use programs::Programs;
use report::Report;
use sections::{
    Bench, abandonment, command, crowd, curves, fairness, gemm as gemm_section, latency, memory, overload,
    polls, precisions, retrieval, soak, startup, throughput,
};
use workload::Workload;

/// Sections of the running programs, without a forward pass in this process.
const SERVICE_SECTIONS: [Section; 9] = [
    Section::Curves,
    Section::Memory,
    Section::Overload,
    Section::Fairness,
    Section::Crowd,
    Section::Command,
    Section::Abandonment,
    Section::Polls,
    Section::Soak,
];
/// Sections of forward passes in this process, without the programs.
const FORWARD_SECTIONS: [Section; 2] = [Section::Precisions, Section::Retrieval];
/// Sections that run both alternately.
const COMPARED_SECTIONS: [Section; 3] = [Section::Gemm, Section::Latency, Section::Throughput];
/// The most PSS of all services.
const MAX_PSS_MB: f64 = 400.0;

// One thread: the load shares the processors with the service.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut terminated = signal(SignalKind::terminate()).expect("signals can be listened to");
    // On exit the launcher's handle is dropped, which ends the programs.
    tokio::select! {
        status = run(Options::parse()) => status,
        _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
        _ = terminated.recv() => ExitCode::FAILURE,
    }
}

/// Runs all sections. Fails if a target is missed.
async fn run(options: Options) -> ExitCode {
    let (mut report, mut curves) = (Report::default(), Vec::new());
    if let Some(folder) = options.report.as_deref().and_then(Path::parent) {
        // Before the measurements, which take an hour.
        fs::create_dir_all(folder).expect("the report's folder can be made");
    }
    // Measurements without a forward pass in this process come first: after one, libtorch's pages
    // are shared with this process, which would reduce the PSS of the services.
    let (directory, tokenizer) = forward::open(&options.model);
    let workload = Workload::new(&tokenizer);
    let mut memory_of_f32 = None;
    for &precision in &options.precisions {
        report.precision = precision.to_string();
        if options.has(Section::Startup) {
            startup::measure(&options, precision, &mut report).await;
        }
        if SERVICE_SECTIONS.into_iter().any(|section| options.has(section)) {
            let programs = Programs::start(&options, precision).await;
            let bench =
                Bench { options: &options, programs, precision, workload: &workload, report: &mut report };
            run_service_sections(bench, &mut curves, &mut memory_of_f32).await;
        }
    }
    run_forward_sections(&options, &directory, &tokenizer, &workload, &mut report);
    for &precision in &options.precisions {
        run_compared_sections(&options, &directory, precision, &workload, &mut report).await;
    }
    report.report_stops();
    let machine = machine::description(&directory.manifest().versions.libtorch);
    println!("\n{machine}\n{}", report.table());
    if let Some(path) = &options.report {
        write(path, &machine, &report, &curves);
    }
    let missed = report.missed();
    if missed == 0 {
        return ExitCode::SUCCESS;
    }
    println!("{missed} measures miss their target");
    ExitCode::FAILURE
}

/// Runs the [`SERVICE_SECTIONS`].
async fn run_service_sections(
    mut bench: Bench<'_>,
    plotted: &mut Vec<Curve>,
    memory_of_f32: &mut Option<f64>,
) {
    let options = bench.options;
    if options.has(Section::Curves) {
        plotted.extend(curves::measure(&mut bench).await);
    }
    if options.has(Section::Memory) {
        // int8 needs no more memory than f32.
        let most = if bench.precision == Precision::Int8 { *memory_of_f32 } else { None };
        let measured = memory::measure(&mut bench, most.unwrap_or(MAX_PSS_MB)).await;
        if bench.precision == Precision::F32 {
            *memory_of_f32 = Some(measured);
        }
    }
    if options.has(Section::Overload) {
        overload::measure(&mut bench).await;
    }
    if options.has(Section::Fairness) {
        fairness::measure(&mut bench).await;
    }
    if options.has(Section::Crowd) {
        crowd::measure(&mut bench).await;
    }
    if options.has(Section::Command) {
        command::measure(&mut bench).await;
    }
    if options.has(Section::Abandonment) {
        abandonment::measure(&mut bench).await;
    }
    if options.has(Section::Polls) {
        polls::measure(&mut bench).await;
    }
    if options.has(Section::Soak) {
        soak::measure(&mut bench).await;
    }
    let clean = bench.programs.stop().await;
    bench.report.clean_stop(clean);
}

/// Runs the [`FORWARD_SECTIONS`], which compare precisions with f32.
fn run_forward_sections(
    options: &Options,
    directory: &ModelDir,
    tokenizer: &Tokenizer,
    workload: &Workload,
    report: &mut Report,
) {
    if !FORWARD_SECTIONS.into_iter().any(|section| options.has(section)) {
        return;
    }
    let f32 = Forward::load(directory, Precision::F32);
    let others = options.precisions.iter().filter(|precision| **precision != Precision::F32);
    let others: Vec<_> = others.map(|precision| Forward::load(directory, *precision)).collect();
    if options.has(Section::Precisions) {
        precisions::measure(options, report, &workload.texts, &f32, &others);
    }
    if options.has(Section::Retrieval) {
        retrieval::measure(report, tokenizer, &f32, &others);
    }
}

/// Runs the [`COMPARED_SECTIONS`].
async fn run_compared_sections(
    options: &Options,
    directory: &ModelDir,
    precision: Precision,
    workload: &Workload,
    report: &mut Report,
) {
    if !COMPARED_SECTIONS.into_iter().any(|section| options.has(section)) {
        return;
    }
    report.precision = precision.to_string();
    let programs = Programs::start(options, precision).await;
    let forward = Forward::load(directory, precision);
    let mut bench = Bench { options, programs, precision, workload, report };
    if options.has(Section::Gemm) {
        gemm_section::measure(&mut bench, &forward);
    }
    if options.has(Section::Latency) {
        latency::measure(&mut bench, &forward).await;
    }
    if options.has(Section::Throughput) {
        let peer = options.peer_python.as_deref().zip(options.onnx.as_deref());
        let peer = peer.map(|(python, onnx)| Peer::start(python, onnx, &workload.texts.sentences));
        throughput::measure(&mut bench, &forward, peer).await;
    }
    let clean = bench.programs.stop().await;
    bench.report.clean_stop(clean);
}

fn write(path: &Path, machine: &str, report: &Report, curves: &[Curve]) {
    let plot = path.with_extension("svg");
    let shown = if curves.is_empty() {
        String::new()
    } else {
        fs::write(&plot, plot::svg(curves)).expect("the report's folder can be written to");
        format!(
            "![Throughput and p99 by number of clients]({})\n\n",
            plot.file_name().unwrap_or_default().display()
        )
    };
    let text = format!(
        "# Benchmarks\n\n`make bench`, or a part of it, generates this report. The programs run as separate processes on\n\
         the machine that generates the load. Each round alternates between the bare forward pass and the\n\
         measurements that are compared with it. Latencies of open loops count from the scheduled start of a\n\
         call.\n\n{machine}\n## Measures\n\n{}\n{shown}## Details\n\n{}\n",
        report.table(),
        report.details().trim_end(),
    );
    fs::write(path, text).expect("the report can be written");
}
