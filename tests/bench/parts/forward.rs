//! The time to load the model, and the bare forward pass on one core, by batch size: `make
//! bench-parts`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use muse_model::{inference::Model, model_dir::ModelDir};
use muse_tests::{golden_sentences, root};
use tch::Device;

/// Batch sizes in tokens.
const SIZES: [usize; 8] = [16, 32, 64, 128, 256, 512, 1024, 2048];

fn forward(criterion: &mut Criterion) {
    // As in the service, where each core runs its own pass.
    tch::set_num_threads(1);
    let ids: Vec<i64> = golden_sentences().iter().flat_map(|line| line.ids.clone()).map(i64::from).collect();
    for precision in ["f32", "bf16", "int8"] {
        let directory = root().join("var/model").join(precision);
        if !directory.exists() {
            println!("{precision}: SKIPPED, there is no {}", directory.display());
            continue;
        }
        let directory = ModelDir::open(directory).expect("a converted model");
        let model = Model::load(&directory, Device::Cpu).expect("it loads");
        criterion.bench_function(&format!("load, {precision}"), |bencher| {
            bencher.iter(|| Model::load(black_box(&directory), Device::Cpu).expect("it loads"));
        });
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
