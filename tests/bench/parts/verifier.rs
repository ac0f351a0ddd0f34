//! The verification of an API key, and the check of its quota: `make bench-parts`. Each must take
//! less than 2 µs.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use muse_proto::v1::{QuotaState, VerifiableKey};
use muse_verifier::{
    Principal, Verifier,
    api_keys::{KeyId, SECRET_BYTES, VerifiedKey, compose},
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

/// Of a key that has a quota, as its owner does, with so many other quotas; none without quotas.
fn quotas(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("quota");
    for count in [0, 10, 1_000_000] {
        let verifier = Verifier::with_keys(&[]);
        for number in 0..count {
            let state = QuotaState {
                username: format!("user {number}"),
                limit: 1_000_000,
                used: number,
                resets_at: i64::MAX,
                ..QuotaState::default()
            };
            let of_key = QuotaState { key_id: Some(id(number).number()), ..state.clone() };
            verifier.apply_quotas(&[state, of_key]);
        }
        let principals: Vec<Principal> = (0..10)
            .map(|tenth| {
                let number = tenth * count / 10;
                let owner = format!("user {number}").into();
                Principal::Key(VerifiedKey { id: id(number), owner, bulk: false })
            })
            .collect();
        let mut next = principals.iter().cycle();
        group.bench_function(BenchmarkId::new("check", count), |bencher| {
            bencher.iter(|| verifier.check_quota(black_box(next.next().expect("there are ten"))).is_ok());
        });
    }
    group.finish();
}

criterion_group!(benches, api_keys, quotas);
criterion_main!(benches);
