//! The language model of the `tokenizers` crate's interface.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use tokenizers::{Model, Result, Token, models::unigram::UnigramTrainer};

use super::unigram::Unigram;

impl Model for Unigram {
    /// The trainer of the crate's own model: `TokenizerImpl::train` does not accept it for this one.
    type Trainer = UnigramTrainer;

    fn tokenize(&self, sequence: &str) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        let _ = self.segment(sequence.as_bytes(), |id, start, end| {
            tokens.push(Token::new(id, self.id_to_token(id).unwrap_or_default(), (start, end)));
            ControlFlow::Continue(())
        });
        Ok(tokens)
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.pieces().get(id as usize).map(|piece| piece.text.clone())
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.pieces().iter().map(|piece| piece.text.clone()).zip(0..).collect()
    }

    fn get_vocab_size(&self) -> usize {
        self.pieces().len()
    }

    fn save(&self, _: &Path, _: Option<&str>) -> Result<Vec<PathBuf>> {
        Err("this model has no format other than that of SentencePiece, which is not written".into())
    }

    fn get_trainer(&self) -> UnigramTrainer {
        UnigramTrainer::default()
    }
}
