//! The forward pass in float64, one sentence at a time: slow, and as simple as its definition in
//! "Multilingual Universal Sentence Encoder for Semantic Retrieval" (arXiv 1907.04307) permits.

use std::collections::HashMap;

use muse_kernels::{SCALE, TABLE, ZERO_POINT};
use tch::{Device, Kind, Tensor};

/// The unit vectors of sentences: float64 (N, 512).
pub(crate) fn encode(ids: &[i64], lengths: &[i64], parameters: &HashMap<String, Tensor>) -> Tensor {
    let parameters: HashMap<&str, Tensor> =
        parameters.iter().map(|(name, values)| (name.as_str(), values.to_kind(Kind::Double))).collect();
    let mut rest = ids;
    let vectors: Vec<Tensor> = lengths
        .iter()
        .map(|length| {
            let (sentence, others) = rest.split_at(usize::try_from(*length).expect("it is positive"));
            rest = others;
            encode_one(&Tensor::from_slice(sentence), &parameters)
        })
        .collect();
    Tensor::stack(&vectors, 0)
}

fn encode_one(ids: &Tensor, parameters: &HashMap<&str, Tensor>) -> Tensor {
    let get = |name: &str| &parameters[name];
    let mut embedded = get(TABLE).index_select(0, ids);
    if let (Some(scale), Some(zero_point)) = (parameters.get(SCALE), parameters.get(ZERO_POINT)) {
        let shard = ids.remainder(scale.size()[0]);
        embedded = (embedded - zero_point.index_select(0, &shard)) * scale.index_select(0, &shard);
    }
    let projected = embedded.linear(get("cnn.projection.weight"), Some(get("cnn.projection.bias")));
    let mut features = vec![embedded];
    for (order, input) in [2, 3, 5].into_iter().zip(projected.chunk(3, 1)) {
        let get = |name: &str| get(&format!("cnn.{order}.{name}")).shallow_clone();
        let mut hidden =
            input.layer_norm([256], Some(get("norm.weight")), Some(get("norm.bias")), 1e-12, false);
        for layer in 0..2 {
            let (weight, bias) = (get(&format!("conv.{layer}.weight")), get(&format!("conv.{layer}.bias")));
            hidden = windows(&hidden, order).linear(&weight, Some(&bias)).relu() + hidden;
        }
        features.push(hidden);
    }
    let features = Tensor::cat(&features, 1);
    let normed = features.layer_norm([1280], Some(get("norm.weight")), Some(get("norm.bias")), 1e-12, false);
    let dense = normed.linear(get("dense.weight"), Some(get("dense.bias")));
    let y = dense.sum_dim_intlist([0].as_slice(), true, Kind::Double) / (ids.size()[0] as f64).sqrt();

    let layer =
        |index: usize, input: &Tensor| input.linear(get(&format!("dnn.{index}.weight")), None::<Tensor>);
    let s0 = layer(0, &y).relu();
    let s1 = layer(1, &Tensor::cat(&[&s0, &y], 1)).relu();
    let s2 = layer(2, &s1).relu();
    let vector = layer(3, &Tensor::cat(&[&s1, &s2], 1)).tanh().squeeze();
    &vector / vector.norm()
}

/// The concatenated rows of the `order` neighbours of each token: (n, order * 256). Rows outside the
/// sentence are zero.
fn windows(rows: &Tensor, order: i64) -> Tensor {
    let (length, left) = (rows.size()[0], (order - 1) / 2);
    let zeros = |count: i64| Tensor::zeros([count, 256], (Kind::Double, Device::Cpu));
    let padded = Tensor::cat(&[&zeros(left), rows, &zeros(order - 1 - left)], 0);
    let shifted: Vec<Tensor> = (0..order).map(|offset| padded.narrow(0, offset, length)).collect();
    Tensor::cat(&shifted, 1)
}
