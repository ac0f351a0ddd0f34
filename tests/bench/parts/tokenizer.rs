//! The tokenizer: `make bench-parts`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use muse_model::{model_dir::ModelDir, tokenizer::Tokenizer};
use muse_tests::{golden_sentences, model_dir};

/// The sentences of all languages.
const ALL: &str = "all";

fn tokenizer(criterion: &mut Criterion) {
    let directory = ModelDir::open(model_dir()).expect("make model has run");
    let tokenizer = Tokenizer::from_bytes(directory.tokenizer_bytes()).expect("its tokenizer");
    let golden = golden_sentences();
    let mut group = criterion.benchmark_group("tokenizer");
    for kind in ["en", "ru", "ja", "th", ALL] {
        let lines = golden.iter().filter(|line| match kind {
            ALL => !line.kind.starts_with("hard:"),
            kind => line.kind == kind,
        });
        let texts: Vec<&str> = lines.map(|line| line.text.as_str()).collect();
        let bytes = texts.iter().map(|text| text.len() as u64).sum();
        group.throughput(Throughput::ElementsAndBytes { elements: texts.len() as u64, bytes });
        group.bench_function(BenchmarkId::new("encode", kind), |bencher| {
            bencher.iter(|| texts.iter().map(|text| tokenizer.encode(black_box(text)).len()).sum::<usize>());
        });
        group.bench_function(BenchmarkId::new("TokenizerImpl with <s> and </s>", kind), |bencher| {
            let encode = |text: &&str| tokenizer.pipeline().encode(black_box(*text), true);
            bencher
                .iter(|| texts.iter().map(|text| encode(text).expect("no part fails").len()).sum::<usize>());
        });
        group.bench_function(BenchmarkId::new("tokenize with offsets", kind), |bencher| {
            let last_end = |text: &&str| {
                let tokens = tokenizer.tokenize(usize::MAX, black_box(text)).expect("there is no limit");
                tokens.map(|token| token.bytes.1).last().unwrap_or_default()
            };
            bencher.iter(|| texts.iter().map(last_end).sum::<usize>());
        });
    }
    group.finish();
}

criterion_group!(benches, tokenizer);
criterion_main!(benches);
