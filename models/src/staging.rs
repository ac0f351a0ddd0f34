//! The directory that a conversion writes before it replaces the output.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use crate::convert::ConvertError;

/// A directory that is not complete yet. It is deleted unless it is moved to its path.
pub(crate) struct StagingDir {
    path: PathBuf,
}

impl StagingDir {
    /// Creates an empty directory beside `out`, and removes those of killed conversions.
    pub(crate) fn beside(out: &Path) -> Result<StagingDir, ConvertError> {
        let path = sibling(out, &format!("new-{}", std::process::id()))?;
        let cannot_write = |error| ConvertError::Write { path: out.to_owned(), error };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(cannot_write)?;
            remove_leftovers(parent, out);
        }
        fs::create_dir(&path).map_err(cannot_write)?;
        Ok(StagingDir { path })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to `out`, which it replaces.
    pub(crate) fn move_to(self, out: &Path) -> Result<(), ConvertError> {
        let cannot_write = |error| ConvertError::Write { path: out.to_owned(), error };
        let old = sibling(out, &format!("old-{}", std::process::id()))?;
        match fs::rename(out, &old) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot_write(error)),
        }
        if let Err(error) = fs::rename(&self.path, out) {
            let _ = fs::rename(&old, out);
            return Err(cannot_write(error));
        }
        // The rest of a replaced directory is harmless; the next conversion removes it.
        let _ = fs::remove_dir_all(&old);
        Ok(())
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

// `.NAME.SUFFIX` in the same folder, so that a rename can move it.
fn sibling(out: &Path, suffix: &str) -> Result<PathBuf, ConvertError> {
    let name = out.file_name().ok_or_else(|| ConvertError::OutputExists(out.to_owned()))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{suffix}"));
    Ok(out.with_file_name(hidden))
}

// A killed conversion leaves its directory behind, whose name ends with the id of its process.
fn remove_leftovers(parent: &Path, out: &Path) {
    let prefix = format!(".{}.", out.file_name().unwrap_or_default().to_string_lossy());
    let entries = fs::read_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let suffix = name.strip_prefix(&prefix).unwrap_or_default();
        let process = suffix.strip_prefix("new-").or_else(|| suffix.strip_prefix("old-"));
        let process = process.and_then(|number| number.parse::<u32>().ok());
        // In a container the id of this process is often that of the killed one.
        let is_running = |number: u32| {
            number != std::process::id() && Path::new("/proc").join(number.to_string()).exists()
        };
        if process.is_some_and(|number| !is_running(number)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
