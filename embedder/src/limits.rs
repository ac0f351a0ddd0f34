//! What a request may hold. `GetModel` states it, and a refusal names the number that was passed.

use muse_proto::{Error, Reason};

/// The limits of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sentences in a request.
    pub max_sentences: u32,
    /// Bytes of UTF-8 in a sentence.
    pub max_sentence_bytes: u32,
    /// Tokens in a sentence of Embed: the activations of one pass over it are about 20 kB a token.
    pub max_sentence_tokens: u32,
    /// Tokens in one Embed, so that a request ends in seconds.
    pub max_request_tokens: u32,
    /// Bytes of an encoded request.
    pub max_request_bytes: u32,
}

impl Limits {
    /// The limits for a queue of so many tokens: no request is larger than what the queue can ever hold.
    #[must_use]
    pub fn for_queue(queue_tokens: usize) -> Self {
        let queue = u32::try_from(queue_tokens).unwrap_or(u32::MAX);
        Self {
            max_sentences: 4_096,
            max_sentence_bytes: 262_144,
            max_sentence_tokens: queue.min(8_192),
            max_request_tokens: queue.min(262_144),
            max_request_bytes: 16 << 20,
        }
    }

    /// Checks what can be checked before tokenizing.
    ///
    /// # Errors
    ///
    /// Names the field, its index and the limit.
    pub fn check_sentences(&self, sentences: &[String]) -> Result<(), Error> {
        if sentences.is_empty() {
            return Err(Error::new(Reason::InvalidArgument, "sentences: at least one sentence is needed"));
        }
        let (count, most) = (sentences.len(), self.max_sentences);
        if count > most as usize {
            return Err(too_large(format!("sentences: {count} sentences; the limit is {most} a request")));
        }
        let most = self.max_sentence_bytes;
        match sentences.iter().position(|sentence| sentence.len() > most as usize) {
            Some(index) => {
                let size = sentences[index].len();
                Err(too_large(format!("sentences[{index}]: {size} bytes; the limit is {most} a sentence")))
            }
            None => Ok(()),
        }
    }

    /// Checks the lengths in tokens of the sentences of one Embed.
    ///
    /// # Errors
    ///
    /// Names the field, its index and the limit.
    pub fn check_tokens(&self, lengths: impl IntoIterator<Item = usize>) -> Result<(), Error> {
        let mut total = 0;
        for (index, length) in lengths.into_iter().enumerate() {
            let most = self.max_sentence_tokens;
            if length > most as usize {
                return Err(too_large(format!(
                    "sentences[{index}]: {length} tokens; the limit is {most} a sentence"
                )));
            }
            total += length;
        }
        let most = self.max_request_tokens;
        if total > most as usize {
            return Err(too_large(format!("sentences: {total} tokens; the limit is {most} a request")));
        }
        Ok(())
    }
}

fn too_large(text: String) -> Error {
    Error::new(Reason::TooLarge, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_named_with_its_number() {
        let limits = Limits::for_queue(1 << 20);
        let refused = |sentences: &[String]| limits.check_sentences(sentences).unwrap_err().to_string();
        assert!(refused(&[]).contains("at least one"));
        assert!(refused(&vec![String::new(); 10_000]).contains("10000 sentences; the limit is 4096"));
        assert!(refused(&[String::new(), "x".repeat(1_000_000)]).starts_with("sentences[1]: 1000000 bytes"));
        assert!(limits.check_sentences(&[String::new()]).is_ok());

        let refused =
            |lengths: &[usize]| limits.check_tokens(lengths.iter().copied()).unwrap_err().to_string();
        assert!(refused(&[3, 8_193]).contains("sentences[1]: 8193 tokens; the limit is 8192 a sentence"));
        assert!(refused(&[8_192; 33]).contains("270336 tokens; the limit is 262144 a request"));
    }

    #[test]
    fn no_request_can_outgrow_the_queue() {
        let limits = Limits::for_queue(100);
        assert_eq!((limits.max_sentence_tokens, limits.max_request_tokens), (100, 100));
    }
}
