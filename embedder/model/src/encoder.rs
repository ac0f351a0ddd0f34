//! The encoder of sentences: a kernel where there is one for the processor and the precision, else
//! the TorchScript module. Both have the same parameters, those of `model.pt`.

use std::{collections::HashMap, path::Path};

use muse_kernels::{Kernel, PackError, PackedWeights, TABLE};
use tch::{CModule, Device, Kind, TchError, Tensor};

use crate::{
    device,
    error::{ModelError, first_line},
};

/// The kernel for a precision on a device, or `None` if libtorch runs the module.
pub(crate) fn kernel_for(kind: Kind, device: Device) -> Option<Kernel> {
    (device == Device::Cpu).then(|| Kernel::best(kind)).flatten()
}

/// The parameters that run in the precision of the model, besides a table of floats; all others are
/// float32.
const BRANCHES: &str = "cnn.";

#[derive(Debug)]
pub(crate) enum Encoder {
    /// The parameters, packed for the kernel.
    Kernel(PackedWeights),
    /// The module, run by libtorch.
    Module(CModule),
}

impl Encoder {
    /// Loads `model.pt`, whose parameters are float32, and packs or casts them.
    pub(crate) fn load(path: &Path, kind: Kind, device: Device) -> Result<Encoder, ModelError> {
        let load_error = |error: TchError| ModelError::Load(first_line(&error));
        let module = CModule::load_on_device(path, device).map_err(load_error)?;
        let parameters = module.named_parameters().map_err(load_error)?;
        if let Some(kernel) = kernel_for(kind, device) {
            let parameters: HashMap<String, Tensor> = parameters.into_iter().collect();
            let packed = PackedWeights::pack(&parameters, kernel).map_err(|error| match error {
                PackError::Torch(error) => load_error(error),
                error => ModelError::Load(error.to_string()),
            })?;
            return Ok(Encoder::Kernel(packed));
        }
        if kind == Kind::Int8 {
            let device = device::name(device);
            return Err(ModelError::Load(format!(
                "there is no int8 kernel for {device}: choose another precision"
            )));
        }
        for (name, mut parameter) in parameters {
            if name.starts_with(BRANCHES) || (name == TABLE && parameter.is_floating_point()) {
                let cast = parameter.f_to_kind(kind).map_err(load_error)?;
                parameter.f_set_data(&cast).map_err(load_error)?;
            }
        }
        Ok(Encoder::Module(module))
    }

    pub(crate) fn is_kernel(&self) -> bool {
        matches!(self, Encoder::Kernel(_))
    }

    /// The unit vectors of sentences, float32 (N, 512). `ids` is int64 (T), `lengths` int64 (N) with
    /// sum T and no element below 1; both are on the device of the encoder.
    pub(crate) fn forward(&self, ids: &Tensor, lengths: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Encoder::Kernel(weights) => weights.encode(ids, lengths),
            Encoder::Module(module) => {
                // libtorch has this setting per thread. Without the optimising executor the first
                // batch takes 3 ms instead of half a second, and later ones are no slower.
                tch::jit::f_set_graph_executor_optimize(false)?;
                module.forward_ts(&[ids, lengths])
            }
        }
    }
}
