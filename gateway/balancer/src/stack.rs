//! The stack of layers that a call passes.

use std::{sync::Arc, time::Duration};

use tower::ServiceBuilder;

use super::{
    buffer::{BufferLayer, BufferResponse},
    classify::{Classify, ClassifyLayer},
    cluster::Cluster,
    connect::Connect,
    error_trailers::{ErrorTrailers, ErrorTrailersLayer},
    fingerprint::{FingerprintLayer, RecordFingerprint},
    model_check::{ModelCheck, ModelCheckLayer},
    outlier_ejection::{OutlierEjection, OutlierEjectionLayer},
    replay_memory::ReplayMemory,
    retry::{Retry, RetryLayer},
    select_model::{SelectModel, SelectModelLayer},
    track_load::{TrackLoad, TrackLoadLayer},
};

/// Bytes that all calls together buffer for retries: of replay bodies and of responses.
const REPLAY_BYTES: usize = 64 << 20;

/// The service of all calls.
pub(super) type Stack = RecordFingerprint<SelectModel<Retry<AttemptStack>>>;
/// The service of all attempts.
type AttemptStack = OutlierEjection<ErrorTrailers<Classify<BufferResponse<ModelCheck<TrackLoad<Connect>>>>>>;

/// All layers, from the outermost to the innermost.
pub(super) fn stack(cluster: &Arc<Cluster>, call_timeout: Duration) -> Stack {
    let memory = ReplayMemory::new(REPLAY_BYTES);
    ServiceBuilder::new()
        // For each call.
        //
        // Reports the fingerprint in the response to the sender of the call.
        .layer(FingerprintLayer)
        // Selects the model that may serve the call. Rejects the call if it requires another one.
        .layer(SelectModelLayer::new(cluster))
        // Picks the least loaded endpoint with the model, and another one if that fails: within the deadline, the retry budget
        // and the memory for replay bodies.
        .layer(RetryLayer::new(cluster, &memory, call_timeout))
        // For each attempt, at its endpoint.
        //
        // Ejects an endpoint that fails.
        .layer(OutlierEjectionLayer)
        // Replaces the error of a response that breaks off by a gRPC status: the call cannot be retried any more.
        .layer(ErrorTrailersLayer)
        // Turns a response or a failure into an outcome: final, rejected, or a failure of the endpoint.
        .layer(ClassifyLayer)
        // Buffers the response until it is complete, if the call may be retried.
        .layer(BufferLayer::new(&memory))
        // Drops the response of an endpoint that was restarted with another model.
        .layer(ModelCheckLayer)
        // Counts the attempt as load of the endpoint until the response is dropped.
        .layer(TrackLoadLayer)
        // The shared connection, or one for a stream alone.
        .service(Connect)
}
