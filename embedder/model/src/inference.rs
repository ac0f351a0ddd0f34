//! The encoder: token ids in, unit vectors out.

use bytes::Bytes;
use tch::{CModule, Device, Kind, Tensor};

use crate::{
    batch::{Batch, buckets},
    model_dir::{Manifest, ModelDir, Precision},
    transfer,
};

/// Components of a vector.
pub const DIMENSION: usize = 512;
/// Bytes of a vector: its components are `f32`.
pub const VECTOR_BYTES: usize = DIMENSION * size_of::<f32>();

/// Why the model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// libtorch refused the file.
    #[error("cannot load the model: {0}")]
    Load(String),
    /// The ids and lengths do not describe sentences of this model.
    #[error("not a batch: {0}")]
    Batch(String),
    /// libtorch failed in the forward pass.
    #[error("the forward pass failed: {0}")]
    Forward(String),
}

/// What computes the encoder in this precision, where it is not libtorch's own operators.
#[must_use]
pub fn kernel(precision: Precision, device: Device) -> Option<&'static str> {
    match (precision, device) {
        (Precision::F32, Device::Cpu) => muse_operators::kernel(Kind::Float),
        (Precision::Bf16, Device::Cpu) => muse_operators::kernel(Kind::BFloat16),
        _ => None,
    }
}

/// A loaded encoder. Threads may share it; each pass is run by the thread that asks for it and by as many of libtorch's
/// own as that thread has set.
#[derive(Debug)]
pub struct Model {
    module: CModule,
    device: Device,
    manifest: Manifest,
}

impl Model {
    /// Loads `model.pt` onto a device.
    pub fn load(dir: &ModelDir, device: Device) -> Result<Model, ModelError> {
        muse_operators::register();
        let module = CModule::load_on_device(dir.model_path(), device)
            .map_err(|error| ModelError::Load(first_line(&error)))?;
        Ok(Model { module, device, manifest: dir.manifest().clone() })
    }

    /// What the model says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Gives a batch a size that the model is quick with: libtorch makes kernels for each number of tokens, and sees few. Ours
    /// take any, and the batch is left as it is.
    pub fn round_up_shape(&self, batch: &mut Batch) {
        if self.kernel().is_none() {
            batch.round_up_shape();
        }
    }

    /// The numbers of tokens, `most` at most, with which a pass is to be run before the first request, so that none waits for
    /// kernels to be made.
    #[must_use]
    pub fn sizes_to_warm(&self, most: usize) -> Vec<usize> {
        self.kernel().map_or_else(|| buckets(most).collect(), |_| vec![most])
    }

    fn kernel(&self) -> Option<&'static str> {
        kernel(self.manifest.precision, self.device)
    }

    /// Embeds the sentences whose ids are `ids`, one after the other, cut by `lengths`. Returns their vectors, one after the
    /// other.
    ///
    /// # Errors
    ///
    /// If the ids and lengths are no batch of this model, or the forward pass fails.
    pub fn embed(&self, ids: &[i64], lengths: &[i64]) -> Result<Vec<f32>, ModelError> {
        let packed = self.embed_packed(ids, lengths)?;
        let (numbers, _) = packed.as_chunks();
        Ok(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
    }

    /// As [`Model::embed`], with the vectors as they go over the wire: [`VECTOR_BYTES`] each, packed little-endian `f32`.
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

    // An id outside the table, or lengths that do not add up, would be read outside the tensor or fail inside libtorch with
    // a message that says nothing.
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
        // The setting is the thread's own. Without the optimising executor the first batch takes 3 ms instead of half a
        // second, and the later ones are no slower.
        tch::jit::f_set_graph_executor_optimize(false)?;
        let ids = transfer::to_device(Tensor::f_from_slice(ids)?, self.device)?;
        let lengths = transfer::to_device(Tensor::f_from_slice(lengths)?, self.device)?;
        let output = transfer::to_host(self.module.forward_ts(&[ids, lengths])?)?;
        // The machines that libtorch is made for are little-endian, as the wire is.
        let bytes = output.f_view_dtype(Kind::Uint8)?;
        let mut packed = vec![0; bytes.numel()];
        bytes.f_copy_data_u8(&mut packed, bytes.numel())?;
        Ok(packed)
    }
}

// libtorch appends its stack to what went wrong.
pub(crate) fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().find(|line| !line.trim().is_empty()).unwrap_or("no message").trim().to_owned()
}
