//! The verification of an API key: `make bench-parts`. A check must take less than 2 µs.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use muse_proto::v1::VerifiableKey;
use muse_verifier::{
    Verifier,
    api_keys::{KeyId, SECRET_BYTES, compose},
};

/// Spreads ids as random ones are.
fn id(number: u64) -> KeyId {
    KeyId::new(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn api_keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("API key");
    for keys in [10, 1_000_000] {
        let verifier = Verifier::with_keys(&[]);
        let mut presented = Vec::new();
        for number in 0..keys {
            let secret: [u8; SECRET_BYTES] = std::array::from_fn(|at| (number >> (8 * (at % 8))) as u8);
            let (text, digest) = compose(id(number), &secret);
            let owner = format!("user {}", number % 100);
            let key = VerifiableKey {
                id: id(number).number(),
                digest: digest.to_vec(),
                owner,
                ..Default::default()
            };
            verifier.apply_keys(&[key]);
            if number % (keys / 10) == 0 {
                presented.push(text);
            }
        }
        let mut next = presented.iter().cycle();
        group.bench_function(BenchmarkId::new("verify", keys), |bencher| {
            bencher.iter(|| verifier.verify_key(black_box(next.next().expect("there are ten"))).is_ok());
        });
        let unknown = compose(id(keys + 1), &[1; SECRET_BYTES]).0;
        group.bench_function(BenchmarkId::new("reject unknown", keys), |bencher| {
            bencher.iter(|| verifier.verify_key(black_box(&unknown)).is_err());
        });
        let typo = format!("{}!", &presented[0][..presented[0].len() - 1]);
        group.bench_function(BenchmarkId::new("reject typo", keys), |bencher| {
            bencher.iter(|| verifier.verify_key(black_box(&typo)).is_err());
        });
    }
    group.finish();
}

criterion_group!(benches, api_keys);
criterion_main!(benches);
