//! The tokenizer: `make bench-parts`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use muse_model::{model_dir::ModelDir, tokenizer::Tokenizer};
use muse_tests::{golden_sentences, model_dir};

fn tokenizer(criterion: &mut Criterion) {
    let directory = ModelDir::open(model_dir()).expect("make model has run");
    let tokenizer = Tokenizer::from_bytes(directory.tokenizer_bytes()).expect("its tokenizer");
    let golden = golden_sentences();
    let mut group = criterion.benchmark_group("tokenizer");
    for kind in ["en", "ru", "ja", "th"] {
        let texts: Vec<&str> =
            golden.iter().filter(|line| line.kind == kind).map(|line| line.text.as_str()).collect();
        group.throughput(Throughput::Bytes(texts.iter().map(|text| text.len() as u64).sum()));
        group.bench_function(BenchmarkId::new("encode", kind), |bencher| {
            bencher.iter(|| texts.iter().map(|text| tokenizer.encode(black_box(text)).len()).sum::<usize>());
        });
        group.bench_function(BenchmarkId::new("tokenize with offsets", kind), |bencher| {
            bencher
                .iter(|| texts.iter().map(|text| tokenizer.tokenize(black_box(text)).len()).sum::<usize>());
        });
    }
    group.finish();
}

criterion_group!(benches, tokenizer);
criterion_main!(benches);
