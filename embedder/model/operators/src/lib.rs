//! `muse::encode`, the custom operator of the TorchScript module.
//!
//! The operator is written in C++ in `cpp/`. It runs fused kernels with AVX2 or AVX-512 (float32)
//! and AMX (bfloat16), and libtorch's operators everywhere else (other processors, GPUs, float16).
//! A module that calls it loads only in a program that links this crate and has called
//! [`register`].

use std::ffi::{CStr, c_char, c_int};

use tch::{Kind, TchError, Tensor};
use torch_sys::C_tensor;

/// Number of columns of a panel of [`packed`] weights.
const PANEL: i64 = 32;

unsafe extern "C" {
    fn muse_encode(
        ids: *const C_tensor,
        lengths: *const C_tensor,
        table: *const *const C_tensor,
        table_size: usize,
        weights: *const *const C_tensor,
        weights_size: usize,
        packed: *const *const C_tensor,
        packed_size: usize,
        vectors: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn muse_kernel(scalar_type: c_int) -> *const c_char;
    fn free(memory: *mut c_char);
}

/// The arguments of the operator besides the sentences.
#[derive(Debug)]
pub struct Weights {
    /// The embeddings in token order, (vocabulary, 512): bytes with the scale and the zero point of
    /// each shard (token `i` belongs to shard `i` modulo the number of shards), or one tensor in
    /// the precision of the weights.
    pub table: Vec<Tensor>,
    /// Weight and bias of the projection (512 to 3 x 256); for each n-gram order (2, 3 and 5) gamma
    /// and beta of the LayerNorm, then weight (256, order x 256) and bias of both layers. Then, in
    /// float32, gamma and beta (1280) of the last LayerNorm, weight and bias of the dense layer
    /// (1280 to 512), and the weights of four hidden layers. The output of the dense layer is y,
    /// those of the hidden layers are s0 to s3; their inputs are y, [s0, y], s1 and [s1, s2].
    pub weights: Vec<Tensor>,
    /// The weights in the kernels' layout, or none: each weight [`packed`], all other tensors in
    /// float32.
    pub packed: Vec<Tensor>,
}

/// Registers the operator with libtorch. The registration is a static initialiser; a call of this
/// function makes the linker include it.
pub fn register() {
    let _ = kernel(Kind::Float);
}

/// The name of the kernel for this precision on this machine's CPU; `None` if libtorch's operators
/// are used.
#[must_use]
pub fn kernel(kind: Kind) -> Option<&'static str> {
    let scalar_type = match kind {
        Kind::Float => 6,
        Kind::BFloat16 => 15,
        _ => return None,
    };
    // SAFETY: the argument is a scalar type of libtorch. The result is null or a string that is
    // never freed.
    let name = unsafe {
        let name = muse_kernel(scalar_type);
        (!name.is_null()).then(|| CStr::from_ptr(name))
    };
    name.and_then(|name| name.to_str().ok())
}

/// Computes the unit vectors of sentences, float32 (N, 512). `ids` is int64 (T), `lengths` int64
/// (N), each at least 1, with sum T.
///
/// # Errors
///
/// If libtorch fails.
pub fn encode(ids: &Tensor, lengths: &Tensor, weights: &Weights) -> Result<Tensor, TchError> {
    let pointers = |tensors: &[Tensor]| tensors.iter().map(Tensor::as_ptr).collect::<Vec<_>>();
    let [table, natural, packed] =
        [&weights.table, &weights.weights, &weights.packed].map(|tensors| pointers(tensors));
    let mut vectors = std::ptr::null_mut();
    // SAFETY: the pointers are those of tensors that outlive the call, and the sizes are those of
    // the lists. An error is memory of malloc, which this function frees. Without an error
    // `vectors` is a tensor that this function owns.
    unsafe {
        let error = muse_encode(
            ids.as_ptr(),
            lengths.as_ptr(),
            table.as_ptr(),
            table.len(),
            natural.as_ptr(),
            natural.len(),
            packed.as_ptr(),
            packed.len(),
            &raw mut vectors,
        );
        if error.is_null() {
            return Ok(Tensor::from_ptr(vectors));
        }
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        free(error);
        Err(TchError::Torch(text))
    }
}

/// Packs a weight (outputs, inputs) of float32 or bfloat16 for the kernels, in panels of 32
/// outputs: (outputs / 32, inputs / G, 32, G), where G is 1 for float32 and 2 for bfloat16.
///
/// # Errors
///
/// If the outputs are not a multiple of 32, the inputs are not a multiple of G, or libtorch fails.
pub fn packed(weight: &Tensor) -> Result<Tensor, TchError> {
    let group = 4 / weight.kind().elt_size_in_bytes() as i64;
    let (outputs, inputs) = weight.size2()?;
    weight.f_reshape([outputs / PANEL, PANEL, inputs / group, group])?.f_permute([0, 2, 1, 3])?.f_contiguous()
}
