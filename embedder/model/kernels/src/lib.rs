//! Kernels: fused forward passes of the encoder for one instruction set and precision each, written
//! in C++ in `cpp/`. There are kernels in float32 with AVX2, with AVX-512 and in portable C++; in
//! int8 with AVX2, AVX-VNNI, AVX512-VNNI, AMX and in portable C++; and in bfloat16 with AMX.
//!
//! [`PackedWeights::pack`] copies the named parameters of the encoder into the layout of the
//! kernels. Where there is no kernel, libtorch runs the TorchScript module that has these
//! parameters.

mod parameters;
mod quantization;

use std::{
    collections::HashMap,
    ffi::{CStr, c_char, c_int},
    fmt,
};

use quantization::column_sums;
use tch::{Kind, TchError, Tensor};
use torch_sys::C_tensor;

pub use parameters::{BOTTLENECK, DIMENSION, FEATURES, HIDDEN, PARAMETERS, SCALE, TABLE, ZERO_POINT};
pub use quantization::{QuantizedMatrix, quantize};

/// Number of columns of a panel of packed weights.
const PANEL: i64 = 32;
/// The parameters whose matrices are quantised in int8.
const QUANTIZED: &str = "cnn.";

unsafe extern "C" {
    fn muse_encode(
        kernel: usize,
        ids: *const C_tensor,
        lengths: *const C_tensor,
        table: *const *const C_tensor,
        table_size: usize,
        packed: *const *const C_tensor,
        packed_size: usize,
        vectors: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn muse_kernel_name(kernel: usize) -> *const c_char;
    fn muse_kernel_kind(kernel: usize) -> c_int;
    fn muse_kernel_element(kernel: usize) -> c_int;
    fn muse_kernel_supported(kernel: usize) -> bool;
    fn muse_kernel_automatic(kernel: usize) -> bool;
    fn free(memory: *mut c_char);
}

/// A kernel that this processor supports.
///
/// All float32 kernels return the same bits, for each sentence in any batch, with any number of
/// threads. So do all int8 kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(usize);

impl Kernel {
    /// The kernels that this processor supports, the fastest of each precision first.
    #[must_use]
    pub fn supported() -> Vec<Kernel> {
        // SAFETY: the numbers of kernels begin at 0, and the name of the number after the last
        // kernel is null.
        let all = (0..).take_while(|index| unsafe { !muse_kernel_name(*index).is_null() });
        // SAFETY: a kernel has this number.
        all.filter(|index| unsafe { muse_kernel_supported(*index) }).map(Kernel).collect()
    }

    /// The fastest kernel for weights of this type, or `None` if libtorch is faster.
    #[must_use]
    pub fn best(kind: Kind) -> Option<Kernel> {
        // SAFETY: the number is that of a kernel.
        let is_automatic = |kernel: &Kernel| unsafe { muse_kernel_automatic(kernel.0) };
        Kernel::supported().into_iter().find(|kernel| kernel.kind() == kind && is_automatic(kernel))
    }

    /// Its name, such as `AVX-512`.
    #[must_use]
    pub fn name(self) -> &'static str {
        // SAFETY: the number is that of a kernel, whose name is ASCII and never freed.
        unsafe { CStr::from_ptr(muse_kernel_name(self.0)) }.to_str().unwrap_or_default()
    }

    /// Its precision: float32, bfloat16 or int8.
    #[must_use]
    pub fn kind(self) -> Kind {
        // SAFETY: the number is that of a kernel.
        kind_of(unsafe { muse_kernel_kind(self.0) })
    }

    /// The type of its packed matrices: its precision, or int16 for int8.
    fn element(self) -> Kind {
        // SAFETY: the number is that of a kernel.
        kind_of(unsafe { muse_kernel_element(self.0) })
    }
}

/// The type with this number in `c10::ScalarType`.
fn kind_of(scalar_type: c_int) -> Kind {
    match scalar_type {
        1 => Kind::Int8,
        2 => Kind::Int16,
        15 => Kind::BFloat16,
        _ => Kind::Float,
    }
}

/// Why parameters cannot be packed.
#[derive(Debug)]
pub enum PackError {
    /// A parameter is missing.
    Missing(&'static str),
    /// A parameter has another shape or data type.
    Unexpected {
        /// The name of the parameter.
        name: &'static str,
        /// What it is.
        found: String,
    },
    /// libtorch failed.
    Torch(TchError),
}

impl fmt::Display for PackError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PackError::Missing(name) => write!(formatter, "there is no parameter {name}"),
            PackError::Unexpected { name, found } => write!(formatter, "parameter {name} is {found}"),
            PackError::Torch(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for PackError {}

impl From<TchError> for PackError {
    fn from(error: TchError) -> PackError {
        PackError::Torch(error)
    }
}

/// The weights of the encoder in the layout of the kernels.
#[derive(Debug)]
pub struct PackedWeights {
    kernel: Kernel,
    /// Bytes with the scales and the zero points, or one tensor in the precision of the matrices.
    table: Vec<Tensor>,
    /// In the order of [`PARAMETERS`]: matrices in panels, vectors as float32.
    packed: Vec<Tensor>,
}

// SAFETY: the tensors are private and never change after `pack`, and libtorch permits threads to
// read a tensor concurrently.
unsafe impl Sync for PackedWeights {}

impl PackedWeights {
    /// Packs the parameters of the encoder for a kernel. A table of bytes is shared, not copied.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or has another shape, or libtorch fails.
    pub fn pack(parameters: &HashMap<String, Tensor>, kernel: Kernel) -> Result<PackedWeights, PackError> {
        let (kind, element) = (kernel.kind(), kernel.element());
        // The layers that int8 does not quantise are float32.
        let float = if kind == Kind::Int8 { Kind::Float } else { kind };
        let table = pack_table(parameters, float)?;
        let (mut packed, mut scales) = (Vec::with_capacity(PARAMETERS.len()), Vec::new());
        for (name, shape) in PARAMETERS {
            let parameter = parameters.get(name).ok_or(PackError::Missing(name))?;
            if parameter.size() != shape || !parameter.is_floating_point() {
                return Err(unexpected(name, parameter));
            }
            packed.push(match shape {
                [_, _] if kind == Kind::Int8 && name.starts_with(QUANTIZED) => {
                    let QuantizedMatrix { codes, scales: of_rows } = quantize(parameter)?;
                    scales.push(of_rows);
                    scales.push(column_sums(&codes)?);
                    pack_matrix(&codes.f_to_kind(element)?)?
                }
                [_, _] => pack_matrix(&parameter.f_to_kind(float)?)?,
                _ => parameter.f_to_kind(Kind::Float)?.f_contiguous()?,
            });
        }
        packed.append(&mut scales);
        Ok(PackedWeights { kernel, table, packed })
    }

    /// Computes the unit vectors of sentences, float32 (N, 512). `ids` is int64 (T), `lengths`
    /// int64 (N), each at least 1, with sum T.
    ///
    /// # Errors
    ///
    /// If the ids and lengths are not a valid batch, or libtorch fails.
    pub fn encode(&self, ids: &Tensor, lengths: &Tensor) -> Result<Tensor, TchError> {
        let pointers = |tensors: &[Tensor]| tensors.iter().map(Tensor::as_ptr).collect::<Vec<_>>();
        let (table, packed) = (pointers(&self.table), pointers(&self.packed));
        let mut vectors = std::ptr::null_mut();
        // SAFETY: the pointers are those of tensors that outlive the call, and the sizes are those
        // of the lists. `pack` has checked the shapes. An error is memory of malloc, which this
        // function frees. Without an error `vectors` is a tensor that this function owns.
        unsafe {
            let error = muse_encode(
                self.kernel.0,
                ids.as_ptr(),
                lengths.as_ptr(),
                table.as_ptr(),
                table.len(),
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
}

fn pack_table(parameters: &HashMap<String, Tensor>, kind: Kind) -> Result<Vec<Tensor>, PackError> {
    let find = |name: &'static str| parameters.get(name).ok_or(PackError::Missing(name));
    let rows = find(TABLE)?;
    if !matches!(rows.size()[..], [_, DIMENSION]) {
        return Err(unexpected(TABLE, rows));
    }
    if rows.is_floating_point() {
        return Ok(vec![rows.f_to_kind(kind)?.f_contiguous()?]);
    }
    if rows.kind() != Kind::Uint8 {
        return Err(unexpected(TABLE, rows));
    }
    let (scale, zero_point) = (find(SCALE)?, find(ZERO_POINT)?);
    for (name, values) in [(SCALE, scale), (ZERO_POINT, zero_point)] {
        let same = values.size() == scale.size() && matches!(values.size()[..], [shards, 1] if shards > 0);
        if !same || values.kind() != Kind::Float {
            return Err(unexpected(name, values));
        }
    }
    Ok(vec![rows.f_contiguous()?, scale.f_contiguous()?, zero_point.f_contiguous()?])
}

/// Packs a matrix (outputs, inputs) in panels of 32 outputs: (outputs / 32, inputs / G, 32, G), where
/// G elements are 4 bytes.
fn pack_matrix(weight: &Tensor) -> Result<Tensor, TchError> {
    let group = 4 / weight.kind().elt_size_in_bytes() as i64;
    let (outputs, inputs) = weight.size2()?;
    weight.f_reshape([outputs / PANEL, PANEL, inputs / group, group])?.f_permute([0, 2, 1, 3])?.f_contiguous()
}

fn unexpected(name: &'static str, found: &Tensor) -> PackError {
    PackError::Unexpected { name, found: format!("{:?} of shape {:?}", found.kind(), found.size()) }
}
