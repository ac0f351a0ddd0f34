//! The workload: sentences, and requests that are encoded before the measurements.

use bytes::Bytes;
use muse_model::tokenizer::Tokenizer;
use muse_proto::v1::{EmbedRequest, EmbedStreamRequest};
use muse_tests::golden_sentences;
use prost::Message;
use serde_json::json;

/// A request of `/embed` or of `Embed`.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Number of sentences.
    pub(crate) sentences: usize,
    /// An encoded `EmbedRequest`.
    pub(crate) message: Bytes,
    /// A body of `/embed`.
    pub(crate) json: Bytes,
}

impl Call {
    /// A request of these sentences.
    pub(crate) fn new(sentences: &[String]) -> Self {
        let message = EmbedRequest { sentences: sentences.to_vec(), ..EmbedRequest::default() };
        Self {
            sentences: sentences.len(),
            message: message.encode_to_vec().into(),
            json: json!({ "sentence": sentences }).to_string().into(),
        }
    }
}

/// Sentences and their token ids.
#[derive(Debug, Clone, Default)]
pub(crate) struct Texts {
    /// The sentences.
    pub(crate) sentences: Vec<String>,
    /// The token ids of each sentence.
    pub(crate) ids: Vec<Vec<i64>>,
}

impl Texts {
    /// Tokenizes sentences.
    pub(crate) fn new(sentences: Vec<String>, tokenizer: &Tokenizer) -> Self {
        let ids = |sentence: &String| tokenizer.encode(sentence).into_iter().map(i64::from).collect();
        Self { ids: sentences.iter().map(ids).collect(), sentences }
    }

    /// Mean number of tokens per sentence.
    pub(crate) fn mean_tokens(&self) -> f64 {
        self.ids.iter().map(Vec::len).sum::<usize>() as f64 / self.ids.len() as f64
    }

    /// Requests of `sentences` sentences each, which contain all sentences.
    pub(crate) fn calls(&self, sentences: usize) -> Vec<Call> {
        let whole = self.sentences.len().next_multiple_of(sentences);
        let cycled: Vec<String> = self.sentences.iter().cycle().take(whole).cloned().collect();
        cycled.chunks(sentences).map(Call::new).collect()
    }

    /// Each sentence as an encoded item of `EmbedStream`.
    pub(crate) fn items(&self) -> Vec<Bytes> {
        let item = |sentence: &String| EmbedStreamRequest { id: String::new(), sentence: sentence.clone() };
        self.sentences.iter().map(|sentence| item(sentence).encode_to_vec().into()).collect()
    }
}

/// The sentences of all measurements.
#[derive(Debug)]
pub(crate) struct Workload {
    /// Pairs of sentences of one language, with about as many tokens as a sentence of the corpus in
    /// other benchmarks.
    pub(crate) texts: Texts,
    /// Sentences of about 21 tokens, as in the measurement of the original service.
    pub(crate) of_21_tokens: Texts,
    /// One short sentence.
    pub(crate) short: Texts,
}

impl Workload {
    /// The golden sentences without the hard ones, which are not representative.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Self {
        let natural: Vec<_> =
            golden_sentences().into_iter().filter(|line| !line.kind.starts_with("hard:")).collect();
        let same_language = natural.windows(2).filter(|pair| pair[0].kind == pair[1].kind);
        let joined = same_language.map(|pair| format!("{} {}", pair[0].text, pair[1].text)).collect();
        let mut by_length = natural.clone();
        by_length.sort_by_key(|line| std::cmp::Reverse(line.ids.len()));
        let mut tokens = 0;
        let long_enough = by_length.iter().enumerate().take_while(|(before, line)| {
            tokens += line.ids.len();
            tokens >= 21 * (before + 1)
        });
        let of_21_tokens = long_enough.map(|(_, line)| line.text.clone()).collect();
        let short = natural.iter().find(|line| line.ids.len() == 12).expect("some have 12 tokens");
        Self {
            texts: Texts::new(joined, tokenizer),
            of_21_tokens: Texts::new(of_21_tokens, tokenizer),
            short: Texts::new(vec![short.text.clone()], tokenizer),
        }
    }

    /// Requests of 1 to `most` sentences of 1 to 20 times the usual length, the same in each run.
    pub(crate) fn random_calls(&self, count: usize, most: usize) -> Vec<Call> {
        let sentences = &self.texts.sentences;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let sentence = |random: &mut Random| {
            // Short sentences are frequent, long ones rare.
            let parts = 1 + 19 * random.below(100).pow(4) / 100_usize.pow(4);
            let parts = (0..parts).map(|_| sentences[random.below(sentences.len())].as_str());
            parts.collect::<Vec<_>>().join(" ")
        };
        let mut call = || {
            let count = 1 + random.below(most);
            Call::new(&(0..count).map(|_| sentence(&mut random)).collect::<Vec<_>>())
        };
        (0..count).map(|_| call()).collect()
    }
}

/// Marsaglia's xorshift64 with a fixed seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
