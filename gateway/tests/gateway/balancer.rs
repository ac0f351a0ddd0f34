//! Several embedders behind a gateway, which do what a test says.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use muse_gateway::{Resolver, SystemResolver};
use muse_proto::{
    Error, Reason,
    v1::{
        EmbedRequest, EmbedResponse, EmbedStreamRequest, EmbedStreamResponse, Embedding, GetModelRequest,
        GetModelResponse, TokenizeRequest, TokenizeResponse,
        embed_stream_response::Result as Outcome,
        embedder_service_server::{EmbedderService, EmbedderServiceServer},
    },
};
use tokio::{net::TcpListener, sync::watch};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

use crate::{
    bearing,
    harness::{Backend, Gateway, token},
};

#[derive(Debug, Clone)]
enum Says {
    Vectors,
    Refusal(Error),
    /// Vectors, but not before it is told to say something else.
    NothingYet,
}

/// An embedder whose vectors hold its number.
#[derive(Clone)]
struct Embedder {
    address: SocketAddr,
    number: f32,
    says: Arc<watch::Sender<Says>>,
    /// The deadlines of the calls that it has heard.
    heard: Arc<Mutex<Vec<Option<Duration>>>>,
}

impl Embedder {
    async fn start(address: &str, number: f32) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let embedder = Self {
            address: listener.local_addr().unwrap(),
            number,
            says: Arc::new(watch::Sender::new(Says::Vectors)),
            heard: Arc::default(),
        };
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status("muse.v1.EmbedderService", tonic_health::ServingStatus::Serving).await;
        let service = EmbedderServiceServer::new(embedder.clone());
        let router = Server::builder().add_service(health_service).add_service(service);
        tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
        embedder
    }

    fn say(&self, what: Says) {
        self.says.send_replace(what);
    }

    fn refuse(&self, reason: Reason, retry_after: Duration) {
        self.say(Says::Refusal(Error::new(reason, "no").with_retry_after(retry_after)));
    }

    /// The calls that have come since this was last asked.
    fn heard(&self) -> Vec<Option<Duration>> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }

    async fn answer<T>(&self, call: &Request<T>) -> Result<Embedding, Status> {
        self.heard.lock().unwrap().push(muse_server::deadline::of(call.metadata().as_ref()));
        let mut says = self.says.subscribe();
        let says = says.wait_for(|says| !matches!(says, Says::NothingYet)).await.unwrap().clone();
        match says {
            Says::Refusal(error) => Err(error.into()),
            Says::Vectors | Says::NothingYet => Ok(Embedding::new(&[self.number], 1)),
        }
    }
}

#[tonic::async_trait]
impl EmbedderService for Embedder {
    async fn embed(&self, call: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        let vector = self.answer(&call).await?;
        let embeddings = call.into_inner().sentences.iter().map(|_| vector.clone()).collect();
        Ok(Response::new(EmbedResponse { embeddings }))
    }

    type EmbedStreamStream = Pin<Box<dyn Stream<Item = Result<EmbedStreamResponse, Status>> + Send>>;

    async fn embed_stream(
        &self,
        call: Request<Streaming<EmbedStreamRequest>>,
    ) -> Result<Response<Self::EmbedStreamStream>, Status> {
        let vector = self.answer(&call).await?;
        let answers = call.into_inner().map(move |item| {
            Ok(EmbedStreamResponse { id: item?.id, result: Some(Outcome::Embedding(vector.clone())) })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn tokenize(&self, _: Request<TokenizeRequest>) -> Result<Response<TokenizeResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn get_model(&self, _: Request<GetModelRequest>) -> Result<Response<GetModelResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

struct Fleet {
    gateway: Gateway,
    embedders: [Embedder; 2],
}

impl Fleet {
    async fn start() -> Self {
        let embedders =
            [Embedder::start("127.0.0.1:0", 1.0).await, Embedder::start("127.0.0.1:0", 2.0).await];
        let urls = embedders.each_ref().map(|embedder| format!("http://{}", embedder.address)).join(",");
        let backend = Backend::start().await;
        let gateway = Gateway::start_before(&backend, &urls, Box::new(SystemResolver::default()), &[]).await;
        gateway.wait_until_ready().await;
        let fleet = Self { gateway, embedders };
        let both = async || fleet.heard();
        fleet.until(async || both().await.iter().all(|&heard| heard > 0)).await;
        fleet
    }

    /// Makes calls until something holds.
    async fn until(&self, mut holds: impl AsyncFnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            for _ in 0..4 {
                let _ = embed(&self.gateway, None).await;
            }
            if holds().await {
                return;
            }
            assert!(Instant::now() < end, "it does not come to that");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many calls each has heard.
    fn heard(&self) -> [usize; 2] {
        self.embedders.each_ref().map(|embedder| embedder.heard().len())
    }
}

/// The number of the embedder that has answered.
async fn embed(gateway: &Gateway, timeout: Option<Duration>) -> Result<f32, Error> {
    let request = EmbedRequest { sentences: vec!["a".to_owned()], ..EmbedRequest::default() };
    let mut call = bearing(&token("access", "a", None), request);
    if let Some(timeout) = timeout {
        call.set_timeout(timeout);
    }
    match gateway.embedder().embed(call).await {
        Ok(answer) => Ok(answer.into_inner().embeddings[0].to_vec()[0]),
        Err(status) => Err(Error::from(&status)),
    }
}

#[tokio::test]
async fn calls_go_to_who_has_the_least_to_do() {
    let fleet = Fleet::start().await;
    for _ in 0..10 {
        embed(&fleet.gateway, None).await.unwrap();
    }
    assert_eq!(fleet.heard(), [5, 5]);
    let [first, second] = &fleet.embedders;
    first.say(Says::NothingYet);
    let calls = stream::iter(0..20).map(|_| embed(&fleet.gateway, None)).buffer_unordered(4);
    let waits = async {
        while second.heard.lock().unwrap().len() < 15 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        first.say(Says::Vectors);
    };
    let (answers, ()) = tokio::join!(calls.collect::<Vec<_>>(), waits);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(first.heard().len() <= 5);
}

#[tokio::test]
async fn unavailable_endpoint_is_retried_elsewhere_and_then_avoided() {
    let fleet = Fleet::start().await;
    let [first, second] = &fleet.embedders;
    first.refuse(Reason::Unavailable, Duration::from_secs(1));
    let second_in_command = Duration::from_secs(5);
    for _ in 0..2 {
        assert_eq!(embed(&fleet.gateway, Some(second_in_command)).await, Ok(2.0));
    }
    assert_eq!(first.heard().len(), 1);
    for deadline in second.heard() {
        assert!(deadline.is_some_and(|left| left <= second_in_command), "{deadline:?}");
    }
    // It serves by its health, so it is asked again, and when it answers it gets its share.
    first.say(Says::Vectors);
    fleet.until(async || !first.heard().is_empty()).await;

    first.refuse(Reason::Unavailable, Duration::from_secs(1));
    second.refuse(Reason::Unavailable, Duration::from_secs(1));
    let refused = embed(&fleet.gateway, None).await.unwrap_err();
    assert_eq!((refused.reason(), refused.message()), (Reason::Unavailable, "no"));
}

#[tokio::test]
async fn rejected_call_is_sent_to_one_other_replica() {
    let fleet = Fleet::start().await;
    let [first, second] = &fleet.embedders;
    first.refuse(Reason::Overloaded, Duration::from_millis(200));
    for _ in 0..4 {
        assert_eq!(embed(&fleet.gateway, None).await, Ok(2.0));
    }
    assert_eq!(fleet.heard()[1], 4);

    second.refuse(Reason::Overloaded, Duration::from_secs(5));
    for _ in 0..3 {
        let refused = embed(&fleet.gateway, None).await.unwrap_err();
        assert_eq!((refused.reason(), refused.message()), (Reason::Overloaded, "no"));
        assert!(refused.retry_after().is_some());
        assert_eq!(fleet.heard(), [1, 1]);
    }
    // A rejection concerns one call. The next one is served as soon as it can be.
    first.say(Says::Vectors);
    second.say(Says::Vectors);
    assert!(embed(&fleet.gateway, None).await.is_ok());
    fleet.heard();

    for reason in [Reason::InvalidArgument, Reason::Internal, Reason::TooManyAttempts] {
        tokio::time::sleep(Duration::from_millis(250)).await;
        for embedder in &fleet.embedders {
            embedder.refuse(reason, Duration::from_secs(1));
        }
        assert_eq!(embed(&fleet.gateway, None).await.unwrap_err().reason(), reason);
        assert_eq!(fleet.heard().iter().sum::<usize>(), 1, "{reason:?}");
    }
}

#[tokio::test]
async fn a_stream_that_nobody_has_begun_to_answer_goes_elsewhere() {
    let fleet = Fleet::start().await;
    for embedder in &fleet.embedders {
        fleet.heard();
        embedder.refuse(Reason::Unavailable, Duration::from_secs(1));
        for _ in 0..2 {
            let items =
                ["a", "b"].map(|id| EmbedStreamRequest { id: id.to_owned(), sentence: id.to_owned() });
            let call = bearing(&token("access", "a", None), stream::iter(items));
            let answers = fleet.gateway.embedder().embed_stream(call).await.unwrap().into_inner();
            let ids: Vec<String> = answers.map(|answer| answer.unwrap().id).collect().await;
            assert_eq!(ids, ["a", "b"]);
        }
        assert_eq!(embedder.heard().len(), 1);
        embedder.say(Says::Vectors);
        fleet.until(async || fleet.heard().iter().all(|&heard| heard > 0)).await;
    }
}

/// Names that a test gives addresses to.
#[derive(Debug, Clone, Default)]
struct Names(Arc<Mutex<Vec<SocketAddr>>>);

impl Resolver for Names {
    fn resolve(&self, host: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        assert_eq!(host, "embedders.example");
        let found = self.0.lock().unwrap().clone();
        async move { Ok(found) }.boxed()
    }
}

#[tokio::test]
async fn a_name_may_stand_for_several_and_for_others_later() {
    let names = Names::default();
    let [first, second] =
        [Embedder::start("127.0.0.2:0", 1.0).await, Embedder::start("127.0.0.3:0", 2.0).await];
    names.0.lock().unwrap().push(first.address);
    let backend = Backend::start().await;
    let resolver = Box::new(names.clone());
    let gateway =
        Gateway::start_before(&backend, "http://embedders.example:1", resolver, &["--plaintext"]).await;
    gateway.wait_until_ready().await;
    assert_eq!(embed(&gateway, None).await, Ok(1.0));

    names.0.lock().unwrap().push(second.address);
    let end = Instant::now() + Duration::from_secs(10);
    while embed(&gateway, None).await != Ok(2.0) {
        assert!(Instant::now() < end, "the second one gets nothing");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    // The first one vanishes while it is at work on a call.
    first.say(Says::NothingYet);
    first.heard();
    let slow = async {
        let calls = [embed(&gateway, None), embed(&gateway, None)];
        futures::future::join_all(calls).await
    };
    let vanishes = async {
        while first.heard.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        *names.0.lock().unwrap() = vec![second.address];
        tokio::time::sleep(Duration::from_secs(3)).await;
        first.say(Says::Vectors);
    };
    let (answers, ()) = tokio::join!(slow, vanishes);
    assert!(answers.contains(&Ok(1.0)) && answers.iter().all(Result::is_ok), "{answers:?}");
    for _ in 0..10 {
        assert_eq!(embed(&gateway, None).await, Ok(2.0));
    }
}
