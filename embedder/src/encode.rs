//! From what a caller sends to what the model is fed: sentences are tokenized, ids are checked.

use std::sync::Arc;

use muse_proto::{
    Error, Reason,
    v1::{EmbedRequest, TokenIds},
};

use crate::{
    limits::{Limits, at},
    tokenizer::{BEGIN, END, Tokenizer},
};

/// The tokenizer, and what may be given to it.
#[derive(Debug, Clone)]
pub(crate) struct Encoder {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) limits: Limits,
}

impl Encoder {
    /// The ids of each sentence of a request, [`BEGIN`] and [`END`] included.
    pub(crate) async fn request(&self, request: EmbedRequest) -> Result<Vec<Vec<u32>>, Error> {
        let EmbedRequest { sentences, token_ids, .. } = request;
        if !(sentences.is_empty() || token_ids.is_empty()) {
            let text = "either sentences or token_ids can be given, not both";
            return Err(at(Reason::InvalidArgument, "token_ids", text));
        }
        let (field, ids) = if token_ids.is_empty() {
            ("sentences", self.each(sentences, Tokenizer::encode).await?)
        } else {
            ("token_ids", self.given(token_ids)?)
        };
        self.limits.check_lengths(field, ids.iter().map(Vec::len))?;
        Ok(ids)
    }

    /// The ids of sentences that stand each for itself: one that is refused does not concern the others.
    pub(crate) async fn items(&self, sentences: Vec<String>) -> Result<Vec<Result<Vec<u32>, Error>>, Error> {
        let encoder = self.clone();
        let field = || "sentence".to_owned();
        let encode = move |sentence: &String| {
            encoder.limits.check_sentence(field, sentence)?;
            let ids = encoder.tokenizer.encode(sentence);
            encoder.limits.check_length(field, ids.len())?;
            Ok(ids)
        };
        blocking(move || sentences.iter().map(encode).collect()).await
    }

    /// Checks the sentences of a request and turns each into something, on a thread where that may take its time.
    pub(crate) async fn each<T: Send + 'static>(
        &self,
        sentences: Vec<String>,
        turn: impl Fn(&Tokenizer, &str) -> T + Send + 'static,
    ) -> Result<Vec<T>, Error> {
        self.limits.check_count("sentences", sentences.len())?;
        for (index, sentence) in sentences.iter().enumerate() {
            self.limits.check_sentence(|| format!("sentences[{index}]"), sentence)?;
        }
        let tokenizer = Arc::clone(&self.tokenizer);
        blocking(move || sentences.iter().map(|sentence| turn(&tokenizer, sentence)).collect()).await
    }

    fn given(&self, token_ids: Vec<TokenIds>) -> Result<Vec<Vec<u32>>, Error> {
        self.limits.check_count("token_ids", token_ids.len())?;
        (0..).zip(token_ids).map(|(index, TokenIds { ids })| self.marked(index, &ids)).collect()
    }

    /// Puts a sentence between its marks. An id that Tokenize never returns is refused: a mark in the middle would be
    /// another sentence than the caller thinks, and what is not in the vocabulary has no vector.
    fn marked(&self, index: usize, ids: &[u32]) -> Result<Vec<u32>, Error> {
        if let Some(place) = ids.iter().position(|&id| !self.tokenizer.is_token(id)) {
            let id = ids[place];
            let text = match self.tokenizer.piece(id) {
                Some(piece) => format!("{id} ({piece}) does not occur in a sentence"),
                None => {
                    format!("{id} is not in the vocabulary of {} tokens", self.tokenizer.vocabulary_size())
                }
            };
            return Err(at(Reason::InvalidArgument, &format!("token_ids[{index}].ids[{place}]"), &text));
        }
        let mut marked = Vec::with_capacity(ids.len() + 2);
        marked.push(BEGIN);
        marked.extend_from_slice(ids);
        marked.push(END);
        Ok(marked)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::new(Reason::Internal, "tokenizing failed"))
}
