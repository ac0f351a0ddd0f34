//! The time to load the model, and the bare forward pass on one core, by batch size: `make
//! bench-parts`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use muse_model::{inference::Model, model_dir::ModelDir, precision::Precision};
use muse_tests::{golden_sentences, model_dir};
use tch::Device;

/// Batch sizes in tokens.
const SIZES: [usize; 8] = [16, 32, 64, 128, 256, 512, 1024, 2048];

fn forward(criterion: &mut Criterion) {
    // As in the service, where each core runs its own pass.
    tch::set_num_threads(1);
    let ids: Vec<i64> = golden_sentences().iter().flat_map(|line| line.ids.clone()).map(i64::from).collect();
    let directory = ModelDir::open(model_dir()).expect("a converted model");
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let load = || Model::load(black_box(&directory), Device::Cpu, precision).expect("it loads");
        let model = load();
        criterion.bench_function(&format!("load, {precision}"), |bencher| bencher.iter(load));
        let mut group = criterion.benchmark_group(format!("forward, {precision}"));
        for tokens in SIZES {
            // Sentences of 16 tokens.
            let lengths = vec![16; tokens / 16];
            group.throughput(Throughput::Elements(tokens as u64));
            group.bench_function(BenchmarkId::new("tokens", tokens), |bencher| {
                bencher.iter(|| model.embed(black_box(&ids[..tokens]), &lengths).expect("it runs"));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, forward);
criterion_main!(benches);
