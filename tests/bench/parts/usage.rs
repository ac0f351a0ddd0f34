//! The addition of a call to the usage that is not reported yet: `make bench-parts`. Each call
//! makes two, each item of a stream one.

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use muse_embedder::{
    batcher::UserName,
    usage::{PendingUsage, UsageCounts},
};
use muse_telemetry::metrics::Metrics;
use muse_verifier::api_keys::KeyId;

const COUNTS: UsageCounts = UsageCounts { requests: 0, sentences: 1, tokens: 20, refused: 0 };

/// Ends the other thread, also if the measurement panics.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn usage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("usage");
    for users in [1, 1_000, 100_000] {
        let pending = PendingUsage::new(&Metrics::of("bench"));
        let users: Vec<UserName> =
            (0..users).map(|number| UserName::from(format!("user {number}"))).collect();
        let key = Some(KeyId::new(7));
        let mut next = users.iter().cycle();
        let mut add = || pending.add(black_box(next.next().expect("there is one")), key, COUNTS);
        users.iter().for_each(|_| add());
        group.bench_function(BenchmarkId::new("add", users.len()), |bencher| bencher.iter(&mut add));
        // Another thread uses the lock all the time, far more often than calls do.
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for user in users.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    pending.add(user, None, COUNTS);
                }
            });
            let _stop = StopOnDrop(&stop);
            group.bench_function(BenchmarkId::new("add, contended", users.len()), |bencher| {
                bencher.iter(&mut add);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, usage);
criterion_main!(benches);
