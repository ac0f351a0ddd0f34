//! `make bench`: the service as its users meet it, beside the bare forward pass, its peers and its targets.
//!
//! The programs run as processes of their own, as `make run` starts them; load and the bare forward pass come from this
//! one, by turns in the same run, because figures of different runs tell of the machine more than of the service. What is
//! compared is ratios. See `sections` for what is measured, and `docs/internals/benchmarks.md` for what came out.

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
    Bench, abandonment, crowd, curves, fairness, gemm as gemm_section, latency, memory, overload, polls,
    soak, startup, throughput,
};
use workload::Workload;

// One thread: the load has to be cheap, as it shares the processors with the service.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut terminated = signal(SignalKind::terminate()).expect("signals can be listened to");
    // Whatever ends this program drops the launcher's handle, which ends the programs.
    tokio::select! {
        status = run(Options::parse()) => status,
        _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
        _ = terminated.recv() => ExitCode::FAILURE,
    }
}

/// Fails if a target is missed.
async fn run(options: Options) -> ExitCode {
    let (mut report, mut curves) = (Report::default(), Vec::new());
    if let Some(folder) = options.report.as_deref().and_then(Path::parent) {
        // Now, not after an hour.
        fs::create_dir_all(folder).expect("the report's folder can be made");
    }
    // All that the service does by itself comes first: once this process has run a forward pass, too, the kernel counts
    // libtorch's pages as shared with it, and the services' memory would look smaller than it is.
    for model in &options.models {
        alone(&options, model, &mut report, &mut curves).await;
    }
    let mut libtorch = String::new();
    for model in &options.models {
        libtorch = beside_the_forward(&options, model, &mut report).await;
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

/// Measures what needs no forward pass in this process.
async fn alone(options: &Options, model: &Path, report: &mut Report, plotted: &mut Vec<Curve>) {
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

/// Measures what is compared with the forward pass, by turns with it. Returns the version of libtorch.
async fn beside_the_forward(options: &Options, model: &Path, report: &mut Report) -> String {
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
        format!("![Throughput and p99 by clients]({})\n\n", plot.file_name().unwrap_or_default().display())
    };
    let text = format!(
        "# Benchmarks\n\nWritten by `make bench` or a part of it, which measure again. The programs run as processes of their own on \
         the machine that the load comes from; each round takes the bare forward pass and what is compared with it by \
         turns. Latencies of open loops count from the time at which a call was to begin.\n\n{machine}\n## \
         Measures\n\n{}\n{shown}## Details\n\n{}\n",
        report.table(),
        report.details().trim_end(),
    );
    fs::write(path, text).expect("the report can be written");
}
