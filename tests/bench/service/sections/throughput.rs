//! Sentences per second over each API, relative to the bare forward pass.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, channel::mpsc};
use muse_model::precision::Precision;
use serde_json::Value;

use super::{Bench, CLIENTS, SENTENCES};
use crate::{
    client::{Client, Form, GrpcClient, Version},
    figures::{Figures, Short},
    forward::Forward,
    load::{Window, closed_loop},
    peer::Peer,
    report::{Table, Target, progress},
    workload::{Call, Texts},
};

/// Number of clients that saturate the service with one sentence per call.
const SINGLE_CLIENTS: usize = 64;
/// Maximum number of unanswered items of a stream. Without it the flow-control windows would be
/// filled, and the queued items would delay the end of the measurement.
const UNANSWERED: usize = 64;
/// Measurements of the original service.
const ORIGINAL_SERVICE: &str = include_str!("../replaced_service.json");

/// An API and request size, with its clients.
struct ApiVariant {
    name: String,
    clients: Vec<Client>,
    calls: Vec<Call>,
    target: Target,
    rate: Figures,
    ratio: Figures,
    generator: Figures,
    services: Figures,
}

/// Each round measures: forward pass, each variant, onnxruntime, forward pass. Ratios are relative
/// to the mean of the two forward passes.
pub(crate) async fn measure(bench: &mut Bench<'_>, forward: &Forward, mut onnxruntime: Option<Peer>) {
    let (window, texts) = (bench.options.window(), &bench.workload.texts);
    let of_21_tokens = bench.workload.of_21_tokens.calls(SENTENCES);
    let mut variants = variants(bench).await;
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        streams.push(GrpcClient::connect(bench.programs.address, &bench.programs.token).await);
    }
    let items = texts.items();
    let original: Value = serde_json::from_str(ORIGINAL_SERVICE).expect("the file is JSON");
    let [as_shipped, at_best] =
        ["as_shipped", "at_best"].map(|form| original[form]["value"].as_f64().expect("there is a number"));
    let [mut bare, mut stream, mut stream_ratio, mut peer, mut over_peer, mut over_original] =
        <[Figures; 6]>::default();
    for _ in 0..bench.options.rounds {
        let before = forward.rate(texts, window.duration / 2).sentences;
        for variant in &mut variants {
            progress(&variant.name);
            variant.measure(bench, window).await;
        }
        progress("EmbedStream");
        let streamed = stream_rate(&mut streams, &items, window).await;
        progress("sentences of 21 tokens");
        // The second variant, because the original service supports only JSON.
        let measured = closed_loop(&mut variants[1].clients, &of_21_tokens, window).await;
        over_original.push(measured.sentences_per_second() / at_best);
        if let Some(onnxruntime) = &mut onnxruntime {
            progress("onnxruntime");
            let rate = onnxruntime.sentences_per_second(window.duration);
            peer.push(rate);
            over_peer.push(variants[0].rate.last() / rate);
        }
        let after = forward.rate(texts, window.duration / 2).sentences;
        bare.push(f64::midpoint(before, after));
        for variant in &mut variants {
            variant.ratio.push(variant.rate.last() / bare.last());
        }
        stream.push(streamed);
        stream_ratio.push(streamed / bare.last());
    }
    // The variants with one sentence per call.
    for variant in &mut variants[3..] {
        variant.measure_cpu_time(bench).await;
    }
    add_details(bench, &variants, (&bare, &stream), texts.mean_tokens());
    for variant in &variants {
        bench.report.row(
            format!("service over forward pass, {}", variant.name),
            "",
            variant.target,
            variant.ratio.clone(),
        );
    }
    bench.report.row(
        format!("service over forward pass, EmbedStream, {CLIENTS} clients"),
        "",
        Target::None,
        stream_ratio,
    );
    if let Some(onnxruntime) = &onnxruntime {
        let name = format!(
            "gRPC over onnxruntime {} in process (int8, all cores, batches of 32)",
            onnxruntime.version
        );
        let target =
            bench.at_least(&[(Precision::F32, 1.15), (Precision::Bf16, 3.5), (Precision::Int8, 3.5)]);
        bench.report.row(name, "times", target, over_peer);
        bench.report.row("onnxruntime in process", "sentences/s", Target::None, peer);
    }
    let target = |least| bench.at_least(&[(Precision::Bf16, least)]);
    let (of_shipped, of_best) = (target(1_000.0), target(4.0));
    let requests = variants[4].rate.iter().map(|rate| rate / as_shipped).collect();
    let machine = original["machine"].as_str().unwrap_or_default();
    bench.report.row(
        format!(
            "REST requests/s of one sentence, {SINGLE_CLIENTS} clients, over the original service as released ({as_shipped} on \
             another machine: {machine})"
        ),
        "times",
        of_shipped,
        requests,
    );
    bench.report.row(
        format!(
            "REST sentences/s of 21 tokens, 32 per request, over the original service in its best configuration ({at_best} on that machine)"
        ),
        "times",
        of_best,
        over_original,
    );
}

async fn variants(bench: &Bench<'_>) -> Vec<ApiVariant> {
    let texts = &bench.workload.texts;
    let full = format!("{SENTENCES} sentences per call, {CLIENTS} clients");
    let single = format!("one sentence per call, {SINGLE_CLIENTS} clients");
    let rest = |count, form| bench.rest_clients(count, form, Version::Http1);
    let grpc = bench.grpc_clients(CLIENTS).await;
    let grpc_single = bench.grpc_clients(SINGLE_CLIENTS).await;
    let at_least = Target::AtLeast;
    vec![
        ApiVariant::new(format!("gRPC, {full}"), grpc, texts, SENTENCES, at_least(0.85)),
        ApiVariant::new(
            format!("REST JSON, {full}"),
            rest(CLIENTS, Form::Json),
            texts,
            SENTENCES,
            at_least(0.6),
        ),
        ApiVariant::new(
            format!("REST .npy, {full}"),
            rest(CLIENTS, Form::Npy),
            texts,
            SENTENCES,
            at_least(0.8),
        ),
        ApiVariant::new(format!("gRPC, {single}"), grpc_single, texts, 1, at_least(0.6)),
        ApiVariant::new(
            format!("REST JSON, {single}"),
            rest(SINGLE_CLIENTS, Form::Json),
            texts,
            1,
            Target::None,
        ),
    ]
}

impl ApiVariant {
    fn new(name: String, clients: Vec<Client>, texts: &Texts, sentences: usize, target: Target) -> Self {
        let none = Figures::default;
        let (rate, ratio, generator, services) = (none(), none(), none(), none());
        Self { name, clients, calls: texts.calls(sentences), target, rate, ratio, generator, services }
    }

    async fn measure(&mut self, bench: &Bench<'_>, window: Window) {
        let (started, before) = (Instant::now(), bench.programs.cpu_time());
        let measured = closed_loop(&mut self.clients, &self.calls, window).await;
        let (took, used) = (started.elapsed(), bench.programs.cpu_time().saturating_sub(before));
        if !measured.failures_by_outcome().is_empty() {
            println!("{}: {}", self.name, measured.failures_by_outcome());
        }
        self.rate.push(measured.sentences_per_second());
        self.generator.push(measured.generator_share());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.services.push(used.as_secs_f64() / (took.as_secs_f64() * cores as f64));
    }
}

impl ApiVariant {
    /// CPU time of each service per call, without forward passes.
    async fn measure_cpu_time(&mut self, bench: &mut Bench<'_>) {
        let before = bench.programs.cpu_time_besides_model();
        let window = Window { warm_up: Duration::ZERO, ..bench.options.window() };
        let measured = closed_loop(&mut self.clients, &self.calls, window).await;
        for ((service, after), (_, before)) in bench.programs.cpu_time_besides_model().into_iter().zip(before)
        {
            let micros = after.saturating_sub(before).as_secs_f64() * 1e6 / measured.calls as f64;
            let name = format!("CPU time per call without forward passes, {}: {service}", self.name);
            bench.report.row(name, "µs", Target::None, Figures::from_iter([micros]));
        }
    }
}

/// Sentences per second of all streams.
async fn stream_rate(clients: &mut [GrpcClient], items: &[Bytes], window: Window) -> f64 {
    let answered = Cell::new(0_usize);
    let from = Instant::now() + window.warm_up;
    let until = from + window.duration;
    let offset = items.len() / clients.len();
    let each = clients.iter_mut().enumerate().map(|(number, client)| {
        let answered = &answered;
        async move {
            let mut items = items.iter().cycle().skip(number * offset).cloned();
            let (sender, stream_items) = mpsc::unbounded();
            for item in items.by_ref().take(UNANSWERED) {
                sender.unbounded_send(item).expect("the stream is open");
            }
            let mut answers = client.embed_stream(stream_items).await.expect("a stream is served");
            let mut sender = Some(sender);
            // After the last item the service answers all items and ends the stream.
            while let Some(answer) = answers.next().await {
                answer.expect("a stream is served to its end");
                let now = Instant::now();
                if (from..until).contains(&now) {
                    answered.set(answered.get() + 1);
                }
                sender = sender.filter(|_| now < until);
                if let (Some(sender), Some(item)) = (&sender, items.next()) {
                    sender.unbounded_send(item).expect("the stream is open");
                }
            }
        }
    });
    futures::future::join_all(each).await;
    answered.get() as f64 / window.duration.as_secs_f64()
}

fn add_details(
    bench: &mut Bench<'_>,
    variants: &[ApiVariant],
    (bare, stream): (&Figures, &Figures),
    tokens: f64,
) {
    let percent = |share: &Figures| format!("{:.0} %", share.median() * 100.0);
    let mut table =
        Table::new(&["", "sentences/s", "spread", "CPU share of the services", "CPU share of the generator"]);
    let mut line = |name: &str, rate: &Figures, services: String, generator: String| {
        let spread = format!("{}..{}", Short(rate.min()), Short(rate.max()));
        table.line(&[name.to_owned(), Short(rate.median()).to_string(), spread, services, generator]);
    };
    line("bare forward pass, full batches", bare, String::new(), String::new());
    for variant in variants {
        line(&variant.name, &variant.rate, percent(&variant.services), percent(&variant.generator));
    }
    line("EmbedStream", stream, String::new(), String::new());
    let text = format!("Mean number of tokens per sentence: {tokens:.1}.\n\n{}", table.text());
    bench.report.detail("Throughput", &text);
}
