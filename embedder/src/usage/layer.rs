//! A layer on the methods of the embedder that enforces quotas and counts calls.
//!
//! A call is counted when its response is ready; a call that was cancelled before counts nothing.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{Request, Response};
use muse_proto::{Error, Reason, v1::embedder_service_server};
use muse_verifier::{Principal, Verifier};
use pin_project_lite::pin_project;
use tonic::{Code, Status, body::Body, codegen::Service, server::NamedService};

use super::{account::UsageAccount, pending::PendingUsage};
use crate::{activity::Activity, batcher::FlowKey};

/// The end of the path of the method whose durations count in the activity of the embedder.
const TIMED: &str = "/Embed";

/// Counts the calls of authenticated callers, and rejects those that need vectors while a quota of
/// the caller is exhausted.
#[derive(Debug, Clone)]
pub(crate) struct UsageLayer<S> {
    inner: S,
    pending: PendingUsage,
    activity: Activity,
    verifier: Verifier,
}

/// How the calls of a method are accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallAccounting {
    /// Quotas limit its calls, which are counted.
    Limited,
    /// Its calls are counted.
    Counted,
    None,
}

impl CallAccounting {
    /// The accounting of the method with this path.
    fn of(path: &str) -> Self {
        match path.rsplit('/').next() {
            Some("Embed" | "EmbedStream") => Self::Limited,
            Some("Tokenize") => Self::Counted,
            _ => Self::None,
        }
    }
}

impl<S> UsageLayer<S> {
    /// A layer that counts in `pending` and `activity`; `verifier` knows the quotas.
    pub(crate) fn new(inner: S, pending: PendingUsage, activity: Activity, verifier: Verifier) -> Self {
        Self { inner, pending, activity, verifier }
    }

    /// The account of an authenticated call.
    fn account(&self, request: &Request<Body>) -> Result<UsageAccount, Error> {
        let principal = request.extensions().get::<Principal>().cloned();
        let principal = principal.ok_or_else(|| Error::new(Reason::Internal, "the call has no caller"))?;
        Ok(UsageAccount::new(
            self.pending.clone(),
            self.activity.clone(),
            self.verifier.clone(),
            principal,
            FlowKey::of(request.extensions())?.user,
        ))
    }
}

impl<S> NamedService for UsageLayer<S> {
    const NAME: &'static str = embedder_service_server::SERVICE_NAME;
}

impl<S> Service<Request<Body>> for UsageLayer<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = CountedCall<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let accounting = CallAccounting::of(request.uri().path());
        if accounting == CallAccounting::None {
            return CountedCall::Served { response: self.inner.call(request), account: None, timed: None };
        }
        let timed = request.uri().path().ends_with(TIMED).then(Instant::now);
        let account = match self.account(&request) {
            Ok(account) => account,
            Err(error) => return rejected(error),
        };
        if accounting == CallAccounting::Limited
            && let Err(error) = account.check_quota()
        {
            account.record_refusal();
            return rejected(error);
        }
        request.extensions_mut().insert(account.clone());
        CountedCall::Served { response: self.inner.call(request), account: Some(account), timed }
    }
}

fn rejected<F>(error: Error) -> CountedCall<F> {
    CountedCall::Rejected { response: Some(Status::from(error).into_http()) }
}

/// Counts a call whose response is ready, and that began at `timed` if its duration counts. Errors are responses without a message,
/// with the status in the headers.
fn count(account: &UsageAccount, timed: Option<Instant>, response: &Response<Body>) {
    match response.headers().get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes())) {
        None | Some(Code::Ok) => {
            account.record_request();
            if let Some(began) = timed {
                account.record_duration(began.elapsed());
            }
        }
        Some(Code::ResourceExhausted) => account.record_refusal(),
        Some(_) => (),
    }
}

pin_project! {
    /// The future of a [`UsageLayer`].
    #[project = Projected]
    pub(crate) enum CountedCall<F> {
        Served {
            #[pin]
            response: F,
            account: Option<UsageAccount>,
            timed: Option<Instant>,
        },
        // Taken when it is polled.
        Rejected { response: Option<Response<Body>> },
    }
}

impl<F> Future for CountedCall<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            Projected::Served { response, account, timed } => {
                let Ok(response) = ready!(response.poll(context));
                if let Some(account) = account {
                    count(account, *timed, &response);
                }
                Poll::Ready(Ok(response))
            }
            Projected::Rejected { response } => {
                Poll::Ready(Ok(response.take().expect("a future is not polled after its end")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use muse_proto::v1::{Embedding, QuotaState, UsageCount};
    use muse_telemetry::metrics::Metrics;
    use muse_verifier::api_keys::{KeyId, VerifiedKey};

    use super::*;
    use crate::batcher::FlowKey;

    /// Responds with `response` to a call of `method` with an API key, and returns the status and
    /// what was counted.
    async fn call(
        method: &str,
        quotas: &[QuotaState],
        response: impl Fn(&Request<Body>) -> Response<Body>,
    ) -> (Code, Vec<UsageCount>) {
        let (pending, verifier) = (PendingUsage::new(&Metrics::of("test")), Verifier::with_keys(&[]));
        verifier.apply_quotas(quotas);
        let inner = Inner(response);
        let mut request = Request::new(Body::default());
        *request.uri_mut() = format!("/muse.v1.EmbedderService/{method}").parse().unwrap();
        let key = VerifiedKey { id: KeyId::new(5), owner: "ann".into(), bulk: false };
        let principal = Principal::Key(key);
        request.extensions_mut().insert(FlowKey::from(&principal));
        request.extensions_mut().insert(principal);
        let layer = UsageLayer::new(inner, pending.clone(), Activity::new(), verifier);
        let response = { layer }.call(request).await.unwrap();
        let status = Status::from_header_map(response.headers());
        (status.map_or(Code::Ok, |status| status.code()), pending.take())
    }

    struct Inner<R>(R);

    impl<R: Fn(&Request<Body>) -> Response<Body>> Service<Request<Body>> for Inner<R> {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            std::future::ready(Ok((self.0)(&request)))
        }
    }

    fn sums(counts: &[UsageCount]) -> (u64, u64, u64, u64) {
        assert!(
            counts.iter().all(|count| (&*count.username, count.key_id) == ("ann", Some(5))),
            "{counts:?}"
        );
        let sum = |field: fn(&UsageCount) -> u64| counts.iter().map(field).sum();
        (
            sum(|count| count.requests),
            sum(|count| count.sentences),
            sum(|count| count.tokens),
            sum(|count| count.refused),
        )
    }

    fn status(reason: Reason) -> Response<Body> {
        Status::from(Error::new(reason, "x")).into_http()
    }

    #[tokio::test]
    async fn answered_and_refused_calls_are_counted() {
        let vectors = |request: &Request<Body>| {
            let account = UsageAccount::of(request.extensions()).unwrap();
            account.record_vectors(&[Embedding::new(&[1.0], 3), Embedding::new(&[1.0], 4)]);
            Response::new(Body::default())
        };
        let (code, counts) = call("Embed", &[], vectors).await;
        assert_eq!((code, sums(&counts)), (Code::Ok, (1, 2, 7, 0)));
        let (code, counts) = call("Tokenize", &[], |_| Response::new(Body::default())).await;
        assert_eq!((code, sums(&counts)), (Code::Ok, (1, 0, 0, 0)));
        let (_, counts) = call("EmbedStream", &[], |_| status(Reason::Overloaded)).await;
        assert_eq!(sums(&counts), (0, 0, 0, 1));
        let (_, counts) = call("Embed", &[], |_| status(Reason::InvalidArgument)).await;
        assert!(counts.is_empty());
        let (_, counts) = call("GetModel", &[], |_| Response::new(Body::default())).await;
        assert!(counts.is_empty());
    }

    #[tokio::test]
    async fn exhausted_quota_rejects_calls_for_vectors() {
        let quota = |key_id| QuotaState {
            username: "ann".to_owned(),
            key_id,
            limit: 10,
            used: 10,
            resets_at: i64::MAX / 2,
        };
        for quota in [quota(None), quota(Some(5))] {
            let quotas = std::slice::from_ref(&quota);
            for method in ["Embed", "EmbedStream"] {
                let unreachable = |_: &Request<Body>| panic!("{method} was called");
                let (code, counts) = call(method, quotas, unreachable).await;
                assert_eq!((code, sums(&counts)), (Code::ResourceExhausted, (0, 0, 0, 1)));
            }
            for method in ["Tokenize", "GetModel"] {
                let (code, _) = call(method, quotas, |_| Response::new(Body::default())).await;
                assert_eq!(code, Code::Ok);
            }
        }
        let (code, _) = call("Embed", &[quota(Some(6))], |_| Response::new(Body::default())).await;
        assert_eq!(code, Code::Ok, "the quota of another key");
    }

    #[tokio::test]
    async fn call_without_a_caller_is_rejected() {
        let (pending, verifier) = (PendingUsage::new(&Metrics::of("test")), Verifier::with_keys(&[]));
        let inner = Inner(|_: &Request<Body>| panic!("it was called"));
        let mut request = Request::new(Body::default());
        *request.uri_mut() = "/muse.v1.EmbedderService/Embed".parse().unwrap();
        let layer = UsageLayer::new(inner, pending, Activity::new(), verifier);
        let response = { layer }.call(request).await.unwrap();
        assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), Code::Internal);
    }
}
