//! `make bench`: the service as its users meet it, beside the bare forward pass, its peers and its targets.
//!
//! The programs run as processes of their own, as `make run` starts them; load and the bare forward pass come from this
//! one, by turns in the same run, because figures of different runs tell of the machine more than of the service. What is
//! compared is ratios. See `sections` for what is measured, and `docs/benchmarks.md` for what came out.

mod client;
mod figures;
mod forward;
mod gemm;
mod load;
mod machine;
mod options;
mod peer;
mod plot;
mod procfs;
mod programs;
mod report;
mod sections;
mod workload;

use std::{fs, path::Path, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use forward::Forward;
use options::{Options, Section};
use peer::Peer;
use plot::Curve;
use programs::Programs;
use report::Report;
use sections::{
    Bench, abandonment, curves, fairness, gemm as gemm_section, latency, memory, overload, soak, startup,
    throughput,
};
use workload::Workload;

/// The name of the plot, which lies beside the report.
const PLOT: &str = "benchmarks.svg";

// One thread: the load has to be cheap, as it shares the processors with the service.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut terminated = signal(SignalKind::terminate()).expect("signals can be listened to");
    // Whatever ends this program drops the launcher's handle, which ends the programs.
    tokio::select! {
        () = run(Options::parse()) => ExitCode::SUCCESS,
        _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
        _ = terminated.recv() => ExitCode::FAILURE,
    }
}

async fn run(options: Options) {
    let (mut report, mut curves, mut libtorch) = (Report::default(), Vec::new(), String::new());
    for model in &options.models {
        libtorch = measure(&options, model, &mut report, &mut curves).await;
    }
    let machine = machine::description(&libtorch);
    println!("\n{machine}\n{}", report.table());
    if let Some(path) = &options.report {
        write(path, &machine, &report, &curves);
    }
    let missed = report.missed();
    if missed > 0 {
        println!("{missed} measures miss their target");
    }
}

/// Measures all sections that were asked for with one model. Returns the version of libtorch.
async fn measure(options: &Options, model: &Path, report: &mut Report, plotted: &mut Vec<Curve>) -> String {
    let (directory, tokenizer) = forward::open(model);
    let manifest = directory.manifest();
    report.precision = manifest.precision.to_string();
    if options.has(Section::Startup) {
        startup::measure(options, model, report).await;
    }
    let workload = Workload::new(&tokenizer);
    let peer = options.peer_python.as_deref().zip(options.onnx.as_deref());
    let peer = peer.filter(|_| options.has(Section::Throughput));
    let mut bench = Bench {
        options,
        programs: Programs::start(&options.programs, model).await,
        precision: manifest.precision,
        forward: Forward::load(&directory),
        peer: peer.map(|(python, onnx)| Peer::start(python, onnx, &workload.texts.sentences)),
        workload: &workload,
        report,
    };
    // In this order: memory is looked at after the load of the sections before it.
    if options.has(Section::Gemm) {
        gemm_section::measure(&mut bench);
    }
    if options.has(Section::Latency) {
        latency::measure(&mut bench).await;
    }
    if options.has(Section::Throughput) {
        throughput::measure(&mut bench).await;
    }
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
    if options.has(Section::Abandonment) {
        abandonment::measure(&mut bench).await;
    }
    if options.has(Section::Soak) {
        soak::measure(&mut bench).await;
    }
    bench.programs.stop().await;
    manifest.versions.libtorch.clone()
}

fn write(path: &Path, machine: &str, report: &Report, curves: &[Curve]) {
    let plot = path.with_file_name(PLOT);
    let shown = if curves.is_empty() {
        String::new()
    } else {
        fs::write(&plot, plot::svg(curves)).expect("the report's folder can be written to");
        format!("![Throughput and p99 by clients]({PLOT})\n\n")
    };
    let text = format!(
        "# Benchmarks\n\nWritten by `make bench`, which measures again. The programs run as processes of their own on \
         the machine that the load comes from; each round takes the bare forward pass and what is compared with it by \
         turns. Latencies of open loops count from the time at which a call was to begin.\n\n{machine}\n## \
         Measures\n\n{}\n{shown}## Details\n\n{}\n",
        report.table(),
        report.details().trim_end(),
    );
    fs::write(path, text).expect("the report can be written");
}
