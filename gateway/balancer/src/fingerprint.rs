//! Reports the fingerprint in the response to the sender of the call.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use muse_proto::Fingerprint;
use tower::{Layer, Service};

use super::map_result::{MapResult, MapResultFuture};

/// An extension of a call that receives the fingerprint in its response. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ResponseFingerprint(Arc<Mutex<Option<Fingerprint>>>);

impl ResponseFingerprint {
    /// The fingerprint in the last response, if there was a response with one.
    #[must_use]
    pub fn get(&self) -> Option<Fingerprint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, response: &HeaderMap) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Fingerprint::reported(response);
    }
}

/// Stores the fingerprint in each response in the [`ResponseFingerprint`] of its call, if the call has one.
#[derive(Debug, Clone)]
pub(super) struct FingerprintLayer;

impl<S> Layer<S> for FingerprintLayer {
    type Service = RecordFingerprint<S>;

    fn layer(&self, inner: S) -> RecordFingerprint<S> {
        RecordFingerprint { inner }
    }
}

/// The service of a [`FingerprintLayer`].
#[derive(Debug, Clone)]
pub(super) struct RecordFingerprint<S> {
    inner: S,
}

impl<S, A, B> Service<Request<A>> for RecordFingerprint<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = MapResultFuture<S::Future, Recorder>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, call: Request<A>) -> Self::Future {
        let recorder = Recorder(call.extensions().get().cloned());
        MapResultFuture::new(self.inner.call(call), recorder)
    }
}

/// The extension of one call.
#[derive(Debug)]
pub(super) struct Recorder(Option<ResponseFingerprint>);

impl<B, E> MapResult<Result<Response<B>, E>> for Recorder {
    type Output = Result<Response<B>, E>;

    fn map_result(self, result: Result<Response<B>, E>) -> Self::Output {
        if let (Some(fingerprint), Ok(response)) = (self.0, &result) {
            fingerprint.set(response.headers());
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::ready};

    use muse_proto::FINGERPRINT;
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn sender_of_a_call_gets_the_fingerprint_of_its_response() {
        for fingerprint in [Some("f32-000000000001"), None] {
            let embedder = service_fn(|_: Request<()>| {
                let mut response = Response::new(());
                response.headers_mut().extend(fingerprint.map(|text| (FINGERPRINT, text.parse().unwrap())));
                ready(Ok::<_, Infallible>(response))
            });
            let responded = ResponseFingerprint::default();
            let mut call = Request::new(());
            call.extensions_mut().insert(responded.clone());
            FingerprintLayer.layer(embedder).oneshot(call).await.unwrap();
            assert_eq!(responded.get(), fingerprint.map(|text| text.parse().unwrap()));
        }
    }
}
