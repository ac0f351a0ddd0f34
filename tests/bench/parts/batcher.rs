//! The batcher without a model: from the queue to a batch, and from its vectors to the pending
//! requests: `make bench-parts`.

use std::{
    collections::VecDeque,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::FutureExt;
use muse_embedder::{
    batcher::{
        FlowKey, ServiceClass, UserName,
        queue::{BatchResult, PendingRequest, Queue},
    },
    metrics::RejectionCounters,
};
use muse_model::{batch::Batch, inference::VECTOR_BYTES, sentences::TokenizedSentences};
use muse_telemetry::metrics::Metrics;

/// Tokens per sentence.
const LENGTH: usize = 32;
/// Tokens per forward pass.
const PASS: usize = 640;

/// A queue with a constant number of requests: each completed request is pushed again.
struct Cycle {
    queue: Arc<Queue>,
    request: Arc<TokenizedSentences>,
    waiting: VecDeque<(FlowKey, PendingRequest)>,
    vectors: Bytes,
}

impl Cycle {
    fn new(users: usize, requests: usize, sentences: usize) -> Self {
        let rejections = RejectionCounters::new(&Metrics::of("bench"));
        let queue = Arc::new(Queue::new(1 << 30, Duration::from_secs(3600), 1, rejections));
        let request: Arc<TokenizedSentences> =
            Arc::new((0..sentences).map(|_| [7; LENGTH].as_slice()).collect());
        let push = |index: usize| {
            let user = UserName::from(format!("user {}", index % users));
            let flow = FlowKey { user, service_class: ServiceClass::Interactive };
            let pending =
                queue.push(&flow, Arc::clone(&request), request.tokens(), None).expect("there is room");
            (flow, pending)
        };
        let waiting = (0..requests).map(push).collect();
        let vectors = Bytes::from(vec![0; PASS / LENGTH * VECTOR_BYTES]);
        Self { queue, request, waiting, vectors }
    }

    fn pass(&mut self) {
        let slices = self.queue.take(PASS).expect("it is open");
        let mut batch = Batch::default();
        for slice in &slices {
            batch.append(&slice.sentences, slice.range.clone());
        }
        batch.round_up_shape();
        black_box(&batch.ids);
        let now = Instant::now();
        self.queue.record_pass(PASS, Duration::from_millis(1));
        let mut vectors = self.vectors.clone();
        for slice in slices {
            let vectors = vectors.split_to(slice.range.len() * VECTOR_BYTES);
            let _ = slice.results.unbounded_send(Ok(BatchResult {
                range: slice.range,
                vectors,
                began: now,
                ended: now,
            }));
        }
        self.receive_results();
    }

    /// Receives results; pushes each completed request again.
    fn receive_results(&mut self) {
        for _ in 0..self.waiting.len().min(2 * PASS / LENGTH) {
            let Some((flow, mut pending)) = self.waiting.pop_front() else { return };
            let done = loop {
                match pending.next().now_or_never() {
                    Some(Some(result)) => drop(black_box(result.expect("the pass succeeds"))),
                    Some(None) => break true,
                    None => break false,
                }
            };
            if done {
                let again = self
                    .queue
                    .push(&flow, Arc::clone(&self.request), self.request.tokens(), None)
                    .expect("there is room");
                self.waiting.push_back((flow, again));
            } else {
                self.waiting.push_back((flow, pending));
            }
        }
    }
}

fn batcher(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batcher");
    group.throughput(Throughput::Elements((PASS / LENGTH) as u64));
    for (users, requests, sentences) in
        [(1, 64, 1), (64, 64, 1), (1, 4_096, 1), (256, 4_096, 1), (16, 64, 32)]
    {
        let mut cycle = Cycle::new(users, requests, sentences);
        let name = format!("{requests} requests of {sentences}");
        group.bench_function(BenchmarkId::new(name, format!("{users} users")), |bencher| {
            bencher.iter(|| cycle.pass());
        });
    }
    group.finish();
}

criterion_group!(benches, batcher);
criterion_main!(benches);
