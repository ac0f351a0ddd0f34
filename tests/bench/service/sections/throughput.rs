//! Sentences a second through each door, over those of the forward pass alone.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, channel::mpsc};
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

/// Clients that keep the service busy with one sentence a call.
const LONE_CLIENTS: usize = 64;
/// Items that a stream has under way: without a bound all that the windows of flow control let through would be sent ahead,
/// and would have to be waited for.
const UNANSWERED: usize = 64;
/// What the service did that this one replaces.
const REPLACED_SERVICE: &str = include_str!("../replaced_service.json");

/// A way in, with its clients.
struct Door {
    name: String,
    clients: Vec<Client>,
    calls: Vec<Call>,
    target: Target,
    rate: Figures,
    ratio: Figures,
    generator: Figures,
    services: Figures,
}

/// Rounds of: forward pass, each door, onnxruntime, forward pass. A round's ratios are to the mean of its two forwards.
pub(crate) async fn measure(bench: &mut Bench<'_>, forward: &Forward, mut onnxruntime: Option<Peer>) {
    let (window, texts) = (bench.options.window(), &bench.workload.texts);
    let of_21_tokens = bench.workload.of_21_tokens.calls(SENTENCES);
    let mut doors = doors(bench).await;
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        streams.push(GrpcClient::connect(bench.programs.address, &bench.programs.token).await);
    }
    let items = texts.items();
    let replaced: Value = serde_json::from_str(REPLACED_SERVICE).expect("the file is JSON");
    let [as_shipped, at_best] =
        ["as_shipped", "at_best"].map(|form| replaced[form]["value"].as_f64().expect("there is a number"));
    let [mut bare, mut stream, mut stream_ratio, mut peer, mut over_peer, mut old] =
        <[Figures; 6]>::default();
    for _ in 0..bench.options.rounds {
        let before = forward.rate(texts, window.duration / 2).sentences;
        for door in &mut doors {
            progress(&door.name);
            door.measure(bench, window).await;
        }
        progress("EmbedStream");
        let streamed = stream_rate(&mut streams, &items, window).await;
        progress("sentences of 21 tokens");
        // The second door, as the old service has no form but JSON.
        let measured = closed_loop(&mut doors[1].clients, &of_21_tokens, window).await;
        old.push(measured.sentences_per_second() / at_best);
        if let Some(onnxruntime) = &mut onnxruntime {
            progress("onnxruntime");
            let rate = onnxruntime.sentences_per_second(window.duration);
            peer.push(rate);
            over_peer.push(doors[0].rate.last() / rate);
        }
        let after = forward.rate(texts, window.duration / 2).sentences;
        bare.push(f64::midpoint(before, after));
        for door in &mut doors {
            door.ratio.push(door.rate.last() / bare.last());
        }
        stream.push(streamed);
        stream_ratio.push(streamed / bare.last());
    }
    // Of one sentence a call: gRPC and REST.
    for door in &mut doors[3..] {
        door.measure_cpu_time(bench).await;
    }
    tell(bench, &doors, (&bare, &stream), texts.mean_tokens());
    for door in &doors {
        bench.report.row(format!("service over forward, {}", door.name), "", door.target, door.ratio.clone());
    }
    bench.report.row(
        format!("service over forward, EmbedStream, {CLIENTS} clients"),
        "",
        Target::None,
        stream_ratio,
    );
    if let Some(onnxruntime) = &onnxruntime {
        let name = format!(
            "gRPC over onnxruntime {} in process (int8, all cores, batches of 32)",
            onnxruntime.version
        );
        let target = bench.by_precision(1.15, 3.5).map_or(Target::None, Target::AtLeast);
        bench.report.row(name, "times", target, over_peer);
        bench.report.row("onnxruntime in process", "sentences/s", Target::None, peer);
    }
    let target = |least| bench.by_precision(Target::None, Target::AtLeast(least)).unwrap_or(Target::None);
    let (of_shipped, of_best) = (target(1_000.0), target(4.0));
    let requests = doors[4].rate.iter().map(|rate| rate / as_shipped).collect();
    let machine = replaced["machine"].as_str().unwrap_or_default();
    bench.report.row(
        format!(
            "REST requests/s of one sentence, {LONE_CLIENTS} clients, over the replaced service as shipped ({as_shipped} on \
             another machine: {machine})"
        ),
        "times",
        of_shipped,
        requests,
    );
    bench.report.row(
        format!(
            "REST sentences/s of 21 tokens, 32 a request, over the replaced service at its best ({at_best} on that machine)"
        ),
        "times",
        of_best,
        old,
    );
}

async fn doors(bench: &Bench<'_>) -> Vec<Door> {
    let texts = &bench.workload.texts;
    let full = format!("{SENTENCES} sentences a call, {CLIENTS} clients");
    let lone = format!("one sentence a call, {LONE_CLIENTS} clients");
    let rest = |count, form| bench.rest_clients(count, form, Version::Http1);
    let grpc = bench.grpc_clients(CLIENTS).await;
    let grpc_lone = bench.grpc_clients(LONE_CLIENTS).await;
    let at_least = Target::AtLeast;
    vec![
        Door::new(format!("gRPC, {full}"), grpc, texts, SENTENCES, at_least(0.85)),
        Door::new(format!("REST JSON, {full}"), rest(CLIENTS, Form::Json), texts, SENTENCES, at_least(0.6)),
        Door::new(format!("REST .npy, {full}"), rest(CLIENTS, Form::Npy), texts, SENTENCES, at_least(0.8)),
        Door::new(format!("gRPC, {lone}"), grpc_lone, texts, 1, at_least(0.6)),
        Door::new(format!("REST JSON, {lone}"), rest(LONE_CLIENTS, Form::Json), texts, 1, Target::None),
    ]
}

impl Door {
    fn new(name: String, clients: Vec<Client>, texts: &Texts, sentences: usize, target: Target) -> Self {
        let none = Figures::default;
        let (rate, ratio, generator, services) = (none(), none(), none(), none());
        Self { name, clients, calls: texts.calls(sentences), target, rate, ratio, generator, services }
    }

    async fn measure(&mut self, bench: &Bench<'_>, window: Window) {
        let (started, before) = (Instant::now(), bench.programs.cpu_time());
        let measured = closed_loop(&mut self.clients, &self.calls, window).await;
        let (took, used) = (started.elapsed(), bench.programs.cpu_time().saturating_sub(before));
        if !measured.refusals().is_empty() {
            println!("{}: {}", self.name, measured.refusals());
        }
        self.rate.push(measured.sentences_per_second());
        self.generator.push(measured.generator_share());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.services.push(used.as_secs_f64() / (took.as_secs_f64() * cores as f64));
    }
}

impl Door {
    /// Time on processors of each service for a call, without that of forward passes.
    async fn measure_cpu_time(&mut self, bench: &mut Bench<'_>) {
        let before = bench.programs.cpu_time_besides_model();
        let window = Window { warm_up: Duration::ZERO, ..bench.options.window() };
        let measured = closed_loop(&mut self.clients, &self.calls, window).await;
        for ((service, after), (_, before)) in bench.programs.cpu_time_besides_model().into_iter().zip(before)
        {
            let micros = after.saturating_sub(before).as_secs_f64() * 1e6 / measured.calls as f64;
            let name = format!("CPU time of a call besides forward passes, {}: {service}", self.name);
            bench.report.row(name, "µs", Target::None, Figures::from_iter([micros]));
        }
    }
}

/// Sentences a second of all streams together.
async fn stream_rate(clients: &mut [GrpcClient], items: &[Bytes], window: Window) -> f64 {
    let answered = Cell::new(0_usize);
    let from = Instant::now() + window.warm_up;
    let until = from + window.duration;
    let apart = items.len() / clients.len();
    let each = clients.iter_mut().enumerate().map(|(number, client)| {
        let answered = &answered;
        async move {
            let mut items = items.iter().cycle().skip(number * apart).cloned();
            let (sender, asked) = mpsc::unbounded();
            for item in items.by_ref().take(UNANSWERED) {
                sender.unbounded_send(item).expect("the stream is open");
            }
            let mut answers = client.embed_stream(asked).await.expect("a stream is served");
            let mut sender = Some(sender);
            // Once nothing more is sent the stream ends, with all that was sent answered.
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

fn tell(bench: &mut Bench<'_>, doors: &[Door], (bare, stream): (&Figures, &Figures), tokens: f64) {
    let percent = |share: &Figures| format!("{:.0} %", share.median() * 100.0);
    let mut table =
        Table::new(&["", "sentences/s", "spread", "processors: services", "processors: generator"]);
    let mut line = |name: &str, rate: &Figures, services: String, generator: String| {
        let spread = format!("{}..{}", Short(rate.min()), Short(rate.max()));
        table.line(&[name.to_owned(), Short(rate.median()).to_string(), spread, services, generator]);
    };
    line("bare forward, full batches", bare, String::new(), String::new());
    for door in doors {
        line(&door.name, &door.rate, percent(&door.services), percent(&door.generator));
    }
    line("EmbedStream", stream, String::new(), String::new());
    let text = format!("Sentences of {tokens:.1} tokens.\n\n{}", table.text());
    bench.report.detail("Throughput", &text);
}
