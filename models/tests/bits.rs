//! The float32 kernels return the same bits on every processor.

mod common;

use std::{collections::HashMap, fmt::Write};

use muse_kernels::{Kernel, PackedWeights};
use muse_model::model_dir::{ModelDir, Precision};
use muse_models::convert::convert;
use muse_test_support::{Requirement, skip};
use sha2::{Digest, Sha256};
use tch::{CModule, Device, Kind, Tensor};

use common::{golden_ids, onnx_path};

/// The sha256 of the vectors of the golden sentences, in order, as little-endian float32. A change
/// of a kernel that changes it changes the vectors of all users: think twice.
const GOLDEN_BITS: &str = "e618bb7de7befd7ff09080d0f56bd9df4d95dcc049b1496b6b740db6e7d7cc56";

fn bytes(vectors: &Tensor) -> Vec<u8> {
    let mut bytes = vec![0; vectors.numel() * 4];
    vectors.view_dtype(Kind::Uint8).copy_data_u8(&mut bytes, vectors.numel() * 4);
    bytes
}

#[test]
fn golden_vectors_have_the_same_bits_with_each_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    convert(&onnx_path(), &out, Precision::F32).unwrap();
    let module = CModule::load_on_device(ModelDir::open(&out).unwrap().model_path(), Device::Cpu).unwrap();
    let parameters: HashMap<String, Tensor> = module.named_parameters().unwrap().into_iter().collect();
    let kernels: Vec<Kernel> =
        Kernel::supported().into_iter().filter(|kernel| kernel.kind() == Kind::Float).collect();
    if kernels.is_empty() {
        skip(Requirement::Avx2, "there is no kernel for float32 on this processor");
        return;
    }
    for (kernel, batch) in kernels.iter().flat_map(|kernel| [1, 50, 899].map(|batch| (*kernel, batch))) {
        let packed = PackedWeights::pack(&parameters, kernel).unwrap();
        let mut digest = Sha256::new();
        for sentences in golden_ids().chunks(batch) {
            let lengths: Vec<i64> = sentences.iter().map(|ids| ids.len() as i64).collect();
            let (ids, lengths) = (Tensor::from_slice(&sentences.concat()), Tensor::from_slice(&lengths));
            digest.update(bytes(&packed.encode(&ids, &lengths).unwrap()));
        }
        let found = digest.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        assert_eq!(found, GOLDEN_BITS, "{}, batches of {batch}", kernel.name());
    }
}
