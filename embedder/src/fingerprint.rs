//! The fingerprint of the model: each response reports it, and a request may require it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response};
use muse_model::inference::Model;
use muse_proto::{Error, FINGERPRINT, Fingerprint};
use pin_project_lite::pin_project;
use tonic::{codegen::Service, metadata::MetadataMap, server::NamedService};

/// The fingerprint of a model.
pub(crate) fn of(model: &Model) -> Fingerprint {
    model.fingerprint().parse().expect("a precision, '-' and the digits of a digest are a fingerprint")
}

/// Checks the precondition in the metadata of a call to a model with this fingerprint.
///
/// # Errors
///
/// [`Reason::FingerprintMismatch`](muse_proto::Reason) if the call requires another fingerprint, and
/// [`Reason::InvalidArgument`](muse_proto::Reason) if the metadata is malformed.
pub(crate) fn check(metadata: &MetadataMap, fingerprint: &Fingerprint) -> Result<(), Error> {
    Fingerprint::required(metadata.as_ref())?.map_or(Ok(()), |required| required.check(Some(fingerprint)))
}

/// A layer that adds the fingerprint to the metadata of each response, also of errors.
#[derive(Debug, Clone)]
pub(crate) struct ReportFingerprint<S> {
    inner: S,
    fingerprint: HeaderValue,
}

impl<S> ReportFingerprint<S> {
    /// A layer on `inner`.
    pub(crate) fn new(inner: S, fingerprint: &Fingerprint) -> Self {
        Self { inner, fingerprint: fingerprint.into() }
    }
}

impl<S: NamedService> NamedService for ReportFingerprint<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, Req, Res> Service<Request<Req>> for ReportFingerprint<S>
where
    S: Service<Request<Req>, Response = Response<Res>>,
{
    type Response = Response<Res>;
    type Error = S::Error;
    type Future = ReportFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        ReportFuture { response: self.inner.call(request), fingerprint: self.fingerprint.clone() }
    }
}

pin_project! {
    /// The future of [`ReportFingerprint`].
    pub(crate) struct ReportFuture<F> {
        #[pin]
        response: F,
        fingerprint: HeaderValue,
    }
}

impl<F, Res, E> Future for ReportFuture<F>
where
    F: Future<Output = Result<Response<Res>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.response.poll(context))?;
        response.headers_mut().insert(FINGERPRINT, this.fingerprint.clone());
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use muse_proto::Reason;
    use tonic::Status;

    use super::*;

    const ONE: &str = "f32-3fa9c07b12de";

    /// A service that responds with an error.
    #[derive(Debug, Clone)]
    struct Fails;

    impl Service<Request<()>> for Fails {
        type Response = Response<()>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<()>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            std::future::ready(Ok(Status::internal("x").into_http()))
        }
    }

    #[tokio::test]
    async fn response_with_an_error_reports_the_fingerprint() {
        let mut service = ReportFingerprint::new(Fails, &ONE.parse().unwrap());
        let response = service.call(Request::new(())).await.unwrap();
        assert_eq!(response.headers()[FINGERPRINT], ONE);
        assert!(Status::from_header_map(response.headers()).is_some());
    }

    #[test]
    fn only_another_fingerprint_is_rejected() {
        let fingerprint = ONE.parse().unwrap();
        let checked = |value: Option<&str>| {
            let mut metadata = MetadataMap::new();
            if let Some(value) = value {
                metadata.insert("muse-fingerprint", value.parse().unwrap());
            }
            check(&metadata, &fingerprint).map_err(|error| error.reason())
        };
        assert_eq!(checked(None), Ok(()));
        assert_eq!(checked(Some(ONE)), Ok(()));
        assert_eq!(checked(Some("bf16-3fa9c07b12de")), Err(Reason::FingerprintMismatch));
        assert_eq!(checked(Some("f32")), Err(Reason::InvalidArgument));
    }
}
