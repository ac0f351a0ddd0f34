//! `muse::encode`, the operator of which the TorchScript module consists.
//!
//! A custom operator of libtorch, written in C++ in `cpp/`: with AVX2 or AVX-512 (float32) and AMX (bfloat16) by kernels that read
//! each value once, everywhere else (other processors, GPUs, float16) by libtorch's own operators. A module that calls it
//! loads only in a program that this crate is linked into and that has called [`register`].

use std::ffi::{CStr, c_char, c_int};

use tch::{Kind, TchError, Tensor};
use torch_sys::C_tensor;

/// Columns of a panel of [`packed`] weights.
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

/// What the operator is called with besides the sentences.
#[derive(Debug)]
pub struct Weights {
    /// The embeddings in token order, (vocabulary, 512): bytes, and the scale and the zero point of each shard (token `i` is of
    /// shard `i` modulo their number), or one tensor in the precision of the weights.
    pub table: Vec<Tensor>,
    /// Weight and bias of the projection (512 to 3 x 256); for the n-gram orders 2, 3 and 5 gamma and beta of the LayerNorm,
    /// and of both layers weight (256, order x 256) and bias. Then, in float32, gamma and beta (1280) of the last LayerNorm,
    /// weight and bias of the dense layer (1280 to 512), and the weights of four hidden layers: what the dense layer gives is
    /// y, what they give s0 to s3, and they read y, [s0, y], s1 and [s1, s2].
    pub weights: Vec<Tensor>,
    /// The same as the kernels have them, or none: each weight [`packed`], all else in float32.
    pub packed: Vec<Tensor>,
}

/// Makes the operator known to libtorch. It is, as soon as this crate is linked; a call of this sees to that.
pub fn register() {
    let _ = kernel(Kind::Float);
}

/// The kernel that computes in this precision on this machine's CPU, by name; `None` if it is libtorch's own operators.
#[must_use]
pub fn kernel(kind: Kind) -> Option<&'static str> {
    let scalar_type = match kind {
        Kind::Float => 6,
        Kind::BFloat16 => 15,
        _ => return None,
    };
    // SAFETY: it takes a scalar type of libtorch, and gives null or a string that is never freed.
    let name = unsafe {
        let name = muse_kernel(scalar_type);
        (!name.is_null()).then(|| CStr::from_ptr(name))
    };
    name.and_then(|name| name.to_str().ok())
}

/// The vectors of sentences, float32 (N, 512), of length 1. `ids` is int64 (T), `lengths` int64 (N), with sum T and none
/// below 1.
///
/// # Errors
///
/// If libtorch fails.
pub fn encode(ids: &Tensor, lengths: &Tensor, weights: &Weights) -> Result<Tensor, TchError> {
    let pointers = |tensors: &[Tensor]| tensors.iter().map(Tensor::as_ptr).collect::<Vec<_>>();
    let [table, natural, packed] =
        [&weights.table, &weights.weights, &weights.packed].map(|tensors| pointers(tensors));
    let mut vectors = std::ptr::null_mut();
    // SAFETY: the pointers are those of tensors that live until after the call, and the sizes those of the lists. The error is
    // one of malloc's, and without one the vectors are a tensor of which nobody else knows.
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

/// A weight (outputs, inputs) of float32 or bfloat16 as the kernels read it: panels of 32 outputs, in each of them for each
/// four bytes of inputs the outputs side by side; (outputs / 32, inputs / G, 32, G), where G is one float32 or two bfloat16.
///
/// # Errors
///
/// If the outputs or the inputs do not divide so, or libtorch fails.
pub fn packed(weight: &Tensor) -> Result<Tensor, TchError> {
    let group = 4 / weight.kind().elt_size_in_bytes() as i64;
    let (outputs, inputs) = weight.size2()?;
    weight.f_reshape([outputs / PANEL, PANEL, inputs / group, group])?.f_permute([0, 2, 1, 3])?.f_contiguous()
}
