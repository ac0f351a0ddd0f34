//! `muse.v1.EmbedderService`.

use std::sync::Arc;

use muse_proto::{
    Error, Reason,
    v1::{
        self, EmbedRequest, EmbedResponse, Embedding, GetModelRequest, GetModelResponse, Span,
        TokenizeRequest, TokenizeResponse, TokenizedSentence, embedder_service_server::EmbedderService,
    },
};
use tonic::{Request, Response, Status};

use crate::{
    batcher::Batcher,
    limits::Limits,
    model::DIMENSION,
    model_dir::Manifest,
    tokenizer::{Token, Tokenizer},
};

/// The service's state: all of it is shared and immutable but for the batcher's queue.
#[derive(Debug)]
pub struct Embedder {
    tokenizer: Arc<Tokenizer>,
    batcher: Batcher,
    manifest: Manifest,
    limits: Limits,
}

impl Embedder {
    /// A service over a running model.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>, batcher: Batcher, manifest: Manifest, limits: Limits) -> Self {
        Self { tokenizer, batcher, manifest, limits }
    }

    /// What a request may hold.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Checks the sentences and turns each into something on a thread where that may take its time.
    async fn with_tokenizer<T: Send + 'static>(
        &self,
        sentences: Vec<String>,
        each: impl Fn(&Tokenizer, &str) -> T + Send + 'static,
    ) -> Result<Vec<T>, Error> {
        self.limits.check_sentences(&sentences)?;
        let tokenizer = Arc::clone(&self.tokenizer);
        tokio::task::spawn_blocking(move || {
            sentences.iter().map(|sentence| each(&tokenizer, sentence)).collect()
        })
        .await
        .map_err(|_| Error::new(Reason::Internal, "tokenizing failed"))
    }
}

#[tonic::async_trait]
impl EmbedderService for Embedder {
    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        let sentences = request.into_inner().sentences;
        let ids = self.with_tokenizer(sentences, Tokenizer::encode).await?;
        self.limits.check_tokens(ids.iter().map(Vec::len))?;
        let vectors = self.batcher.embed(&ids).await?;
        let embeddings = vectors.into_iter().map(|values| Embedding { values }).collect();
        Ok(Response::new(EmbedResponse { embeddings }))
    }

    async fn tokenize(
        &self,
        request: Request<TokenizeRequest>,
    ) -> Result<Response<TokenizeResponse>, Status> {
        let sentences = request.into_inner().sentences;
        let sentences = self
            .with_tokenizer(sentences, |tokenizer, sentence| {
                message(tokenizer, &tokenizer.tokenize(sentence))
            })
            .await?;
        Ok(Response::new(TokenizeResponse { sentences }))
    }

    async fn get_model(&self, _: Request<GetModelRequest>) -> Result<Response<GetModelResponse>, Status> {
        let manifest = &self.manifest;
        Ok(Response::new(GetModelResponse {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            dimension: DIMENSION as u32,
            languages: manifest.languages.clone(),
            precision: manifest.precision.to_string(),
            device: "cpu".to_owned(),
            limits: Some(v1::Limits {
                max_sentences: self.limits.max_sentences,
                max_sentence_bytes: self.limits.max_sentence_bytes,
                max_sentence_tokens: self.limits.max_sentence_tokens,
                max_request_tokens: self.limits.max_request_tokens,
                max_request_bytes: self.limits.max_request_bytes,
            }),
            source_sha256: manifest.source.sha256.clone(),
            source_precision: manifest.source.precision.to_string(),
            license: manifest.license.clone(),
        }))
    }
}

fn message(tokenizer: &Tokenizer, tokens: &[Token]) -> TokenizedSentence {
    // A sentence is far shorter than 4 GiB: Limits::max_sentence_bytes is itself a u32.
    let span = |(start, end): (usize, usize)| Span { start: start as u32, end: end as u32 };
    TokenizedSentence {
        tokens: tokens.iter().map(|token| tokenizer.piece(token.id).unwrap_or_default().to_owned()).collect(),
        ids: tokens.iter().map(|token| token.id).collect(),
        bytes: tokens.iter().map(|token| span(token.bytes)).collect(),
        chars: tokens.iter().map(|token| span(token.chars)).collect(),
    }
}
