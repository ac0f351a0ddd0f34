//! Modules that this crate writes are loaded and run by libtorch.

use std::{io, path::Path};

use muse_torchscript::{SaveError, save};
use tch::{CModule, Device, Kind, Tensor};

const METHODS: &str = r#"
def scaled(self, input: Tensor) -> Tensor:
    return input * self.scale

def forward(self, input: Tensor) -> Tensor:
    return self.scaled(input) + getattr(self.layers, "0").bias
"#;

#[test]
fn saved_module_has_named_parameters_and_methods() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("module.pt");
    let (scale, bias) = (Tensor::from_slice(&[2.0_f32, 3.0]), Tensor::from_slice(&[10_u8, 20]));
    save(&path, "Example", METHODS, &[("scale", &scale), ("layers.0.bias", &bias)]).unwrap();

    let module = CModule::load_on_device(&path, Device::Cpu).unwrap();
    let mut parameters = module.named_parameters().unwrap();
    parameters.sort_by(|(one, _), (other, _)| one.cmp(other));
    let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["layers.0.bias", "scale"]);
    assert_eq!(parameters[0].1.kind(), Kind::Uint8);
    assert!(parameters.iter().all(|(_, tensor)| !tensor.requires_grad()));
    let output = module.forward_ts(&[Tensor::from_slice(&[1.0_f32, 1.0])]).unwrap();
    assert_eq!(Vec::<f32>::try_from(output).unwrap(), [12.0, 23.0]);
}

#[test]
fn invalid_method_or_path_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("module.pt");
    let error = save(&path, "Example", "def forward(self):\n    return self.missing\n", &[]).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    let valid = "def forward(self, input: Tensor) -> Tensor:\n    return input\n";
    let error = save(&folder.path().join("no/module.pt"), "Example", valid, &[]).unwrap_err();
    assert!(matches!(&error, SaveError::Write(error) if error.kind() == io::ErrorKind::NotFound), "{error}");
    // A disk that is full.
    let large = Tensor::zeros([1 << 20], (Kind::Float, Device::Cpu));
    let error = save(Path::new("/dev/full"), "Example", valid, &[("large", &large)]).unwrap_err();
    assert!(
        matches!(&error, SaveError::Write(error) if error.kind() == io::ErrorKind::StorageFull),
        "{error}"
    );
    save(&path, "Exam\0ple", valid, &[]).unwrap_err();
    assert!(!path.exists());
}
