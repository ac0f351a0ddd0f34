//! Conversion of the model into each precision.

use std::{
    error::Error,
    fs::File,
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use muse_model::model_dir::Precision;
use muse_models::convert::convert;

/// Converts the ONNX export into one model directory per precision in `folder`.
pub(crate) fn convert_all(
    onnx: &Path,
    folder: &Path,
    precisions: &[Precision],
) -> Result<Vec<(Precision, PathBuf)>, Box<dyn Error>> {
    let onnx = unpacked(onnx, folder).map_err(|error| format!("cannot read {}: {error}", onnx.display()))?;
    let mut directories = Vec::new();
    for precision in precisions {
        eprintln!("converting to {precision}");
        let directory = folder.join(precision.as_str());
        convert(&onnx, &directory, *precision)?;
        directories.push((*precision, directory));
    }
    Ok(directories)
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
