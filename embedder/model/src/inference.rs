//! Inference: the forward pass, from token ids to unit vectors.

use bytes::Bytes;
use muse_kernels::Kernel;
use tch::{Device, Kind, Tensor};

use crate::{
    batch::{Batch, buckets},
    encoder::{Encoder, kernel_for},
    error::first_line,
    model_dir::{Manifest, ModelDir},
    precision::Precision,
    transfer,
};

pub use crate::error::ModelError;

/// Components of a vector.
pub const DIMENSION: usize = 512;
/// Bytes of a vector: its components are `f32`.
pub const VECTOR_BYTES: usize = DIMENSION * size_of::<f32>();

/// The name of the kernel that computes the encoder in this precision, or `None` if libtorch runs
/// the TorchScript module.
#[must_use]
pub fn kernel(precision: Precision, device: Device) -> Option<&'static str> {
    kernel_for(precision.kind(), device).map(Kernel::name)
}

/// A loaded model. Threads may share it: each pass runs on the thread that calls it, and on as many
/// threads as `tch::set_num_threads` has configured on it.
#[derive(Debug)]
pub struct Model {
    encoder: Encoder,
    device: Device,
    precision: Precision,
    manifest: Manifest,
}

impl Model {
    /// Loads `model.pt` onto a device.
    pub fn load(dir: &ModelDir, device: Device, precision: Precision) -> Result<Model, ModelError> {
        let encoder = Encoder::load(&dir.model_path(), precision.kind(), device)?;
        Ok(Model { encoder, device, precision, manifest: dir.manifest().clone() })
    }

    /// The manifest of its directory.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The precision of the forward pass.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The device that runs it.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The name of the kernel that computes the encoder, or `None` if libtorch runs the TorchScript
    /// module.
    pub fn kernel(&self) -> Option<&'static str> {
        kernel(self.precision, self.device)
    }

    /// The fingerprint: see [`Manifest::fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.manifest.fingerprint(self.precision)
    }

    /// Rounds the number of tokens of a batch up, for libtorch's operators, which create kernels
    /// for each number. The project's kernels accept any number and need no rounding.
    pub fn round_up_shape(&self, batch: &mut Batch) {
        if !self.encoder.is_kernel() {
            batch.round_up_shape();
        }
    }

    /// The numbers of tokens, up to `most`, of the passes that warm the model, so that no request
    /// waits for the creation of kernels.
    #[must_use]
    pub fn warm_up_sizes(&self, most: usize) -> Vec<usize> {
        if self.encoder.is_kernel() { vec![most] } else { buckets(most).collect() }
    }

    /// Embeds sentences: `ids` are their ids, concatenated, `lengths` the tokens of each. Returns
    /// their vectors, concatenated.
    ///
    /// # Errors
    ///
    /// If the ids and lengths are not a valid batch, or the forward pass fails.
    pub fn embed(&self, ids: &[i64], lengths: &[i64]) -> Result<Vec<f32>, ModelError> {
        let packed = self.embed_packed(ids, lengths)?;
        let (numbers, _) = packed.as_chunks();
        Ok(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
    }

    /// As [`Model::embed`], with the vectors in wire format: packed little-endian `f32`,
    /// [`VECTOR_BYTES`] each.
    ///
    /// # Errors
    ///
    /// Those of [`Model::embed`].
    pub fn embed_packed(&self, ids: &[i64], lengths: &[i64]) -> Result<Bytes, ModelError> {
        if ids.is_empty() && lengths.is_empty() {
            return Ok(Bytes::new());
        }
        self.check(ids, lengths)?;
        let packed = tch::no_grad(|| self.forward(ids, lengths))
            .map_err(|error| ModelError::Forward(first_line(&error)))?;
        let expected = lengths.len() * VECTOR_BYTES;
        if packed.len() != expected {
            return Err(ModelError::Forward(format!("gave {} bytes instead of {expected}", packed.len())));
        }
        Ok(packed.into())
    }

    // With an id outside the table, or lengths that do not add up, libtorch would read outside the
    // tensor or fail with a useless message.
    fn check(&self, ids: &[i64], lengths: &[i64]) -> Result<(), ModelError> {
        if let Some(length) = lengths.iter().find(|length| **length < 1) {
            return Err(ModelError::Batch(format!("a sentence of {length} ids")));
        }
        let total = lengths.iter().try_fold(0_i64, |sum, length| sum.checked_add(*length));
        if total != i64::try_from(ids.len()).ok() {
            return Err(ModelError::Batch(format!("the lengths do not add up to the {} ids", ids.len())));
        }
        let known = 0..i64::from(self.manifest.vocabulary);
        if let Some(id) = ids.iter().find(|id| !known.contains(id)) {
            return Err(ModelError::Batch(format!("id {id} is not in the vocabulary")));
        }
        Ok(())
    }

    fn forward(&self, ids: &[i64], lengths: &[i64]) -> Result<Vec<u8>, tch::TchError> {
        let ids = transfer::to_device(Tensor::f_from_slice(ids)?, self.device)?;
        let lengths = transfer::to_device(Tensor::f_from_slice(lengths)?, self.device)?;
        let output = transfer::to_host(self.encoder.forward(&ids, &lengths)?)?;
        // libtorch runs on little-endian machines only, and the wire format is little-endian.
        let bytes = output.f_view_dtype(Kind::Uint8)?;
        let mut packed = vec![0; bytes.numel()];
        bytes.f_copy_data_u8(&mut packed, bytes.numel())?;
        Ok(packed)
    }
}
