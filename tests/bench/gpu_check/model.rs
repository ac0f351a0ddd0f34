//! Conversion of the model.

use std::{
    error::Error,
    fs::File,
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use muse_models::convert::convert;

/// Converts the ONNX export into a model directory in `folder`. Returns its path.
pub(crate) fn convert_in(folder: &Path, onnx: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let onnx = unpacked(onnx, folder).map_err(|error| format!("cannot read {}: {error}", onnx.display()))?;
    let directory = folder.join("model");
    convert(&onnx, &directory)?;
    Ok(directory)
}

fn unpacked(onnx: &Path, folder: &Path) -> io::Result<PathBuf> {
    if onnx.extension().is_none_or(|extension| extension != "gz") {
        return Ok(onnx.to_owned());
    }
    let plain = folder.join(onnx.file_stem().unwrap_or_default());
    let mut packed = GzDecoder::new(BufReader::new(File::open(onnx)?));
    io::copy(&mut packed, &mut BufWriter::new(File::create(&plain)?))?;
    Ok(plain)
}
