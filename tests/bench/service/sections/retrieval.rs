//! Retrieval of translations: whether a precision finds what f32 finds.
//!
//! `tests/bench/retrieval` contains pairs of an English sentence and its translation for each
//! language. P@1 is the share of sentences whose nearest sentence of the other language, by cosine,
//! is their translation.

use std::{fs, path::PathBuf};

use muse_model::tokenizer::Tokenizer;
use muse_tests::root;
use tch::{Kind, Tensor};

use crate::{
    figures::Figures,
    forward::Forward,
    report::{Report, Table, Target, progress},
    workload::Texts,
};

/// The most that P@1 may be below that of f32, in percentage points.
const MAX_LOSS: f64 = 0.1;

/// The pairs of one language.
struct Pairs {
    language: String,
    translated: Texts,
    english: Texts,
}

/// P@1 in percent.
#[derive(Clone, Copy)]
struct Precisions {
    from_english: f64,
    to_english: f64,
}

/// Measures f32 and the other precisions.
pub(crate) fn measure(report: &mut Report, tokenizer: &Tokenizer, f32: &Forward, others: &[Forward]) {
    progress("retrieval of translations");
    let languages = read(tokenizer);
    let found: Vec<Vec<Precisions>> = [f32]
        .into_iter()
        .chain(others)
        .map(|forward| languages.iter().map(|pairs| pairs.precision(forward)).collect())
        .collect();
    let mean = |of: &[Precisions]| {
        let sum = of.iter().map(|one| f64::midpoint(one.from_english, one.to_english)).sum::<f64>();
        sum / of.len() as f64
    };
    let base = mean(&found[0]);
    for (forward, found) in others.iter().zip(&found[1..]) {
        report.precision = forward.precision().to_string();
        report.row(
            "retrieval of translations: P@1 minus that of f32",
            "percentage points",
            Target::AtLeast(-MAX_LOSS),
            Figures::from_iter([mean(found) - base]),
        );
    }
    report.precision = "all".to_owned();
    let names: Vec<String> =
        [f32].into_iter().chain(others).map(|forward| forward.precision().to_string()).collect();
    let mut head = vec!["language".to_owned(), "pairs".to_owned()];
    head.extend(names.iter().map(|name| format!("{name}: from English, to English")));
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    let cell = |one: &Precisions| format!("{:.1}, {:.1}", one.from_english, one.to_english);
    for (index, pairs) in languages.iter().enumerate() {
        let mut line = vec![pairs.language.clone(), pairs.english.sentences.len().to_string()];
        line.extend(found.iter().map(|of_precision| cell(&of_precision[index])));
        table.line(&line);
    }
    let all: usize = languages.iter().map(|pairs| pairs.english.sentences.len()).sum();
    let mut line = vec!["mean".to_owned(), all.to_string()];
    line.extend(found.iter().map(|of_precision| format!("{:.2}", mean(of_precision))));
    table.line(&line);
    report.detail("Retrieval of translations, P@1 in percent", table.text());
}

/// Reads `LANGUAGE.tsv`: a line is an English sentence, a tab and its translation.
fn read(tokenizer: &Tokenizer) -> Vec<Pairs> {
    let folder = root().join("tests/bench/retrieval");
    let files = fs::read_dir(&folder).expect("the folder is part of the checkout");
    let mut files: Vec<_> = files.map(|file| file.expect("the folder is readable").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "tsv"));
    files.sort();
    let pairs = |file: &PathBuf| {
        let text = fs::read_to_string(file).expect("the file is readable");
        let split = |line: &str| {
            let (english, translated) = line.split_once('\t').expect("a line has a tab");
            (english.to_owned(), translated.to_owned())
        };
        let (english, translated) = text.lines().map(split).unzip();
        Pairs {
            language: file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            english: Texts::new(english, tokenizer),
            translated: Texts::new(translated, tokenizer),
        }
    };
    files.iter().map(pairs).collect()
}

impl Pairs {
    fn precision(&self, forward: &Forward) -> Precisions {
        let (english, translated) = (forward.embed(&self.english), forward.embed(&self.translated));
        let similarity = english.matmul(&translated.transpose(0, 1));
        Precisions {
            from_english: precision_at_1(&similarity),
            to_english: precision_at_1(&similarity.transpose(0, 1)),
        }
    }
}

/// The percentage of rows whose largest element is on the diagonal.
fn precision_at_1(similarity: &Tensor) -> f64 {
    let own = Tensor::arange(similarity.size()[0], (Kind::Int64, similarity.device()));
    let found = similarity.argmax(1, false).eq_tensor(&own);
    100.0 * found.to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
}
