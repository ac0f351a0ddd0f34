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
use muse_model::model_dir::Manifest;
use options::{Options, Section};
use peer::Peer;
use plot::Curve;
use programs::Programs;
use report::Report;
use sections::{
    Bench, abandonment, command, crowd, curves, fairness, gemm as gemm_section, latency, memory, overload,
    polls, soak, startup, throughput,
};
use workload::Workload;

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
    for model in &options.models {
        run_service_sections(&options, model, &mut report, &mut curves).await;
    }
    let mut libtorch = String::new();
    for model in &options.models {
        libtorch = run_compared_sections(&options, model, &mut report).await;
    }
    report.report_stops();
    let machine = machine::description(&libtorch);
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

/// Runs the sections without a forward pass in this process.
async fn run_service_sections(
    options: &Options,
    model: &Path,
    report: &mut Report,
    plotted: &mut Vec<Curve>,
) {
    let (directory, tokenizer) = forward::open(model);
    report.precision = directory.manifest().precision.to_string();
    if options.has(Section::Startup) {
        startup::measure(options, model, report).await;
    }
    let workload = Workload::new(&tokenizer);
    let programs = Programs::start(&options.programs, model).await;
    let precision = directory.manifest().precision;
    let mut bench = Bench { options, programs, precision, workload: &workload, report };
    if options.has(Section::Curves) {
        plotted.extend(curves::measure(&mut bench).await);
    }
    if options.has(Section::Memory) {
        memory::measure(&mut bench).await;
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

/// Runs the sections that compare with the forward pass, alternately with it. Returns the version
/// of libtorch.
async fn run_compared_sections(options: &Options, model: &Path, report: &mut Report) -> String {
    let (directory, tokenizer) = forward::open(model);
    let Manifest { precision, versions, .. } = directory.manifest().clone();
    report.precision = precision.to_string();
    let compared = [Section::Gemm, Section::Latency, Section::Throughput];
    if !compared.into_iter().any(|section| options.has(section)) {
        return versions.libtorch;
    }
    let workload = Workload::new(&tokenizer);
    let programs = Programs::start(&options.programs, model).await;
    let forward = Forward::load(&directory);
    let mut bench = Bench { options, programs, precision, workload: &workload, report };
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
    versions.libtorch
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
