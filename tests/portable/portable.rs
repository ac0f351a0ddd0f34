//! Stock libtorch loads `model.pt`, and reproduces the golden vectors.

use std::{env, fs, path::PathBuf};

use serde_json::Value;
use tch::{CModule, Device, Kind, Tensor};

const DIMENSION: i64 = 512;
const BATCH_TOKENS: usize = 2048;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn module() -> CModule {
    let directory =
        env::var_os("MUSE_MODEL_DIR").map_or_else(|| root().join("var/model/muse-3"), PathBuf::from);
    let path = directory.join("model.pt");
    CModule::load_on_device(&path, Device::Cpu)
        .unwrap_or_else(|error| panic!("{}: {error}; run `make model`", path.display()))
}

/// The ids of the golden sentences.
fn golden_ids() -> Vec<Vec<i64>> {
    let lines = fs::read_to_string(root().join("models/golden/sentences.jsonl")).expect("the golden data");
    let ids = |line: &str| serde_json::from_str::<Value>(line).expect("a sentence")["ids"].clone();
    lines.lines().map(|line| serde_json::from_value(ids(line)).expect("ids")).collect()
}

/// Their vectors, (N, 512).
fn golden_vectors() -> Tensor {
    Tensor::read_npy(root().join("models/golden/embeddings.npy")).expect("the golden data")
}

fn embed(module: &CModule, sentences: &[Vec<i64>]) -> Tensor {
    let lengths: Vec<i64> = sentences.iter().map(|ids| ids.len() as i64).collect();
    let inputs = [Tensor::from_slice(&sentences.concat()), Tensor::from_slice(&lengths)];
    tch::no_grad(|| module.forward_ts(&inputs)).expect("it runs")
}

fn largest_difference(one: &Tensor, other: &Tensor) -> f64 {
    (one - other).abs().max().double_value(&[])
}

#[test]
fn stock_libtorch_reproduces_the_golden_vectors() {
    let (module, ids) = (module(), golden_ids());
    let mut vectors = Vec::new();
    let mut rest = ids.as_slice();
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = rest.iter().take_while(|ids| {
            tokens += ids.len();
            tokens <= BATCH_TOKENS
        });
        let (batch, others) = rest.split_at(fits.count().max(1));
        vectors.push(embed(&module, batch));
        rest = others;
    }
    let vectors = Tensor::cat(&vectors, 0);
    assert_eq!(vectors.size(), [ids.len() as i64, DIMENSION]);
    assert_eq!(vectors.kind(), Kind::Float);
    let difference = largest_difference(&vectors, &golden_vectors());
    println!("{} sentences, largest difference {difference:.1e}", ids.len());
    assert!(difference < 1e-5, "{difference}");
    // The other sentences of a batch do not matter.
    for index in (0..ids.len()).step_by(97) {
        let alone = embed(&module, &ids[index..=index]);
        let difference = largest_difference(&alone, &vectors.narrow(0, index as i64, 1));
        assert!(difference < 1e-5, "sentence {index}: {difference}");
    }
}

#[test]
fn module_has_named_parameters() {
    let parameters = module().named_parameters().unwrap();
    let shape = |name: &str| {
        let found = parameters.iter().find(|(found, _)| found == name);
        found.unwrap_or_else(|| panic!("there is no {name}")).1.size()
    };
    assert_eq!(shape("cnn.2.conv.0.weight"), [256, 512]);
    assert_eq!(shape("cnn.5.norm.bias"), [256]);
    assert_eq!(shape("dnn.3.weight"), [512, 832]);
    assert_eq!(shape("embedding.weight"), [128_010, 512]);
}
