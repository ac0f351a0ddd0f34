//! `make bench`: the service beside the bare forward pass, on the same sentences in the same run.
//!
//! Ratios are what counts; figures of single runs depend on the machine and on what else it does.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Parser;
use futures::StreamExt;
use muse_embedder::{model::Model, model_dir::ModelDir, tokenizer::Tokenizer};
use muse_proto::v1::{EmbedRequest, EmbedStreamRequest};
use muse_tests::{Stack, bearing, golden_sentences, http_client::HttpClient};
use serde_json::json;
use tch::Device;

/// Compares sentences per second of the service with those of the bare forward pass.
#[derive(Debug, Parser)]
struct Options {
    /// Directory made by `muse-models convert`.
    model_dir: PathBuf,
    /// Sentences in a call.
    #[arg(long, default_value_t = 32)]
    sentences: usize,
    /// Clients that call one after the other.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds; the median of each figure is printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Tokens of a batch of the bare forward pass.
const BATCH_TOKENS: usize = 1024;

#[tokio::main]
async fn main() {
    let options = Options::parse();
    // Natural sentences alone: the hard ones are there to be exact on, not to be fast on.
    let texts: Vec<String> = golden_sentences()
        .into_iter()
        .filter(|line| !line.kind.starts_with("hard:"))
        .map(|line| line.text)
        .collect();
    let bare = Bare::load(&options.model_dir, &texts);
    let stack = Stack::start_with(&options.model_dir, |_| ()).await;
    let token = stack.login().await.access_token;
    let calls: Vec<Vec<String>> = texts
        .iter()
        .cycle()
        .take(texts.len().next_multiple_of(options.sentences))
        .cloned()
        .collect::<Vec<_>>()
        .chunks(options.sentences)
        .map(<[String]>::to_vec)
        .collect();
    println!(
        "{} sentences of {:.1} tokens; {} clients, {} sentences a call; {} rounds of {} s, medians",
        texts.len(),
        bare.tokens_per_sentence,
        options.clients,
        options.sentences,
        options.rounds,
        options.seconds
    );

    let duration = Duration::from_secs(options.seconds);
    let (mut forward, mut grpc, mut stream, mut rest) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        forward.push(bare.sentences_per_second(duration));
        let measured = clients(&options, duration, async |client| {
            let mut stub = stack.embedder_client();
            let sentences = calls[client % calls.len()].clone();
            let mut done = 0;
            let end = Instant::now() + duration;
            while Instant::now() < end {
                let request =
                    bearing(&token, EmbedRequest { sentences: sentences.clone(), ..EmbedRequest::default() });
                done += stub.embed(request).await.expect("it is served").into_inner().embeddings.len();
            }
            done
        });
        grpc.push(measured.await);
        let measured = clients(&options, duration, async |client| {
            let end = Instant::now() + duration;
            let sentences = calls[client % calls.len()].clone().into_iter().cycle();
            let items = sentences.take_while(move |_| Instant::now() < end);
            let items = items.map(|sentence| EmbedStreamRequest { id: String::new(), sentence });
            let call = bearing(&token, futures::stream::iter(items));
            let answers = stack.embedder_client().embed_stream(call).await.expect("it is served");
            let in_time = |_: &_| std::future::ready(Instant::now() < end);
            answers.into_inner().take_while(in_time).count().await
        });
        stream.push(measured.await);
        let measured = clients(&options, duration, async |client| {
            let http = HttpClient::new(stack.gateway.address);
            let body = json!({ "sentence": calls[client % calls.len()] });
            let mut done = 0;
            let end = Instant::now() + duration;
            while Instant::now() < end {
                let answer = http.json("GET", "/embed", &token, &body).await;
                assert_eq!(answer.status, 200);
                done += options.sentences;
            }
            done
        });
        rest.push(measured.await);
    }
    let [forward, grpc, stream, rest] = [forward, grpc, stream, rest].map(median);
    println!("{:<32}{:>14}{:>10}", "", "sentences/s", "ratio");
    for (name, figure) in [
        ("bare forward", forward),
        ("gRPC through the gateway", grpc),
        ("gRPC, EmbedStream", stream),
        ("REST, JSON", rest),
    ] {
        println!("{name:<32}{figure:>14.0}{:>10.2}", figure / forward);
    }
    stack.stop().await;
}

/// The forward pass alone, on sentences that were tokenized before.
struct Bare {
    model: Model,
    batches: Vec<(Vec<i64>, Vec<i64>)>,
    tokens_per_sentence: f64,
}

impl Bare {
    fn load(directory: &std::path::Path, texts: &[String]) -> Self {
        let directory = ModelDir::open(directory).expect("a converted model");
        let tokenizer = Tokenizer::from_bytes(directory.tokenizer_bytes()).expect("its tokenizer");
        let model = Model::load(&directory, Device::Cpu).expect("it loads");
        let mut batches = vec![(Vec::new(), Vec::new())];
        let mut tokens = 0;
        for text in texts {
            let ids = tokenizer.encode(text);
            tokens += ids.len();
            if batches.last().is_some_and(|(all, _): &(Vec<i64>, _)| all.len() + ids.len() > BATCH_TOKENS) {
                batches.push((Vec::new(), Vec::new()));
            }
            if let Some((all, lengths)) = batches.last_mut() {
                all.extend(ids.iter().map(|&id| i64::from(id)));
                lengths.push(ids.len() as i64);
            }
        }
        Self { model, batches, tokens_per_sentence: tokens as f64 / texts.len() as f64 }
    }

    fn sentences_per_second(&self, duration: Duration) -> f64 {
        let (start, mut done) = (Instant::now(), 0);
        while start.elapsed() < duration {
            for (ids, lengths) in &self.batches {
                self.model.embed(ids, lengths).expect("it runs");
                done += lengths.len();
            }
        }
        done as f64 / start.elapsed().as_secs_f64()
    }
}

/// Sentences per second of all clients together.
async fn clients(options: &Options, duration: Duration, one: impl AsyncFn(usize) -> usize) -> f64 {
    let done = futures::future::join_all((0..options.clients).map(|client| one(client))).await;
    done.into_iter().sum::<usize>() as f64 / duration.as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
