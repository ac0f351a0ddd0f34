//! Throughput and memory of `muse embed`, relative to the service's own throughput.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use muse_tests::procfs;
use tokio::process::Command;

use super::{Bench, CLIENTS};
use crate::{
    client::{Form, Version},
    figures::{Figures, Short},
    load::closed_loop,
    report::{Table, Target, progress},
    workload::Call,
};

/// Sentences per request of the command (`muse_as_service._chunking`).
const CHUNK: usize = 512;
/// Number of different lines.
const DISTINCT: usize = 20_000;
/// Interval between samples of the memory.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// Measures the command with all lines, and with a tenth of them for its memory, which must not
/// depend on their number.
pub(crate) async fn measure(bench: &mut Bench<'_>) {
    let command = &bench.options.client;
    if !command.exists() {
        println!("muse embed: skipped, there is no {}: run `make client`", command.display());
        return;
    }
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let lines = lines(bench);
    let calls: Vec<Call> = lines.chunks(CHUNK).map(Call::new).collect();
    let mut clients = bench.rest_clients(CLIENTS, Form::Npy, Version::Http1);
    let mut service = async || {
        progress("requests of short lines");
        closed_loop(&mut clients, &calls, bench.options.window()).await.sentences_per_second()
    };
    let all = bench.options.lines;
    let mut growth = Figures::default();
    let mut ratios = Vec::new();
    let mut table = Table::new(&["format of the output", "lines", "lines/s", "peak memory (RSS), MB"]);
    for (extension, target) in
        [("npy", Target::AtLeast(0.9)), ("parquet", Target::None), ("jsonl", Target::None)]
    {
        progress(&format!("muse embed, .{extension}"));
        let small = run(bench, folder.path(), &lines, all / 10, extension).await;
        let before = service().await;
        let large = run(bench, folder.path(), &lines, all, extension).await;
        let own = f64::midpoint(before, service().await);
        for ran in [&small, &large] {
            table.line(&[
                format!(".{extension}"),
                ran.lines.to_string(),
                Short(ran.rate()).to_string(),
                format!("{:.0}", ran.peak_mb),
            ]);
        }
        ratios.push((extension, target, large.rate() / own));
        growth.push(large.peak_mb / small.peak_mb);
    }
    for (extension, target, ratio) in ratios {
        bench.report.row(
            format!("muse embed to .{extension} over the service, REST .npy, {all} short lines"),
            "",
            target,
            Figures::from_iter([ratio]),
        );
    }
    bench.report.row(
        "muse embed: peak memory over that of a tenth of the lines",
        "",
        Target::AtMost(1.25),
        growth,
    );
    bench.report.detail("muse embed", table.text());
}

/// Short sentences with a number, which makes them distinct.
fn lines(bench: &Bench<'_>) -> Vec<String> {
    let short: Vec<&String> = {
        let texts = &bench.workload.of_21_tokens;
        texts.sentences.iter().filter(|sentence| sentence.chars().count() <= 40).collect()
    };
    assert!(!short.is_empty(), "some golden sentences are short");
    (0..DISTINCT).map(|number| format!("{} {number}", short[number % short.len()])).collect()
}

struct Ran {
    lines: usize,
    took: Duration,
    peak_mb: f64,
}

impl Ran {
    fn rate(&self) -> f64 {
        self.lines as f64 / self.took.as_secs_f64()
    }
}

/// Runs the command on a file with the first `count` of the repeated lines.
async fn run(bench: &Bench<'_>, folder: &Path, lines: &[String], count: usize, extension: &str) -> Ran {
    let (input, output) = (folder.join("lines.txt"), folder.join(format!("vectors.{extension}")));
    let mut file = BufWriter::new(File::create(&input).expect("the folder is ours"));
    for line in lines.iter().cycle().take(count) {
        writeln!(file, "{line}").expect("there is room");
    }
    file.into_inner().expect("there is room");
    let started = Instant::now();
    let mut command = Command::new(&bench.options.client)
        .arg("embed")
        .args([&input, &output])
        .args(["--overwrite", "--url", &format!("http://{}", bench.programs.address)])
        .env("MUSE_API_KEY", bench.programs.add_key().await)
        .env("XDG_STATE_HOME", folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the command starts");
    let process = command.id().expect("it runs");
    let mut peak_mb = 0.0;
    let status = loop {
        tokio::select! {
            status = command.wait() => break status.expect("it was started here"),
            () = tokio::time::sleep(SAMPLE_EVERY) => {
                peak_mb = procfs::peak_rss_mb(process).unwrap_or(peak_mb);
            }
        }
    };
    let took = started.elapsed();
    assert!(status.success(), "muse embed ends with {status}");
    fs::remove_file(&output).expect("the command wrote it");
    Ran { lines: count, took, peak_mb }
}
