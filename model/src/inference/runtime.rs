//! The ONNX Runtime library: found at run time, loaded once per process.

use ort::environment::Environment;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use thiserror::Error;

/// One environment per process, ever: ONNX Runtime cannot make a second one after the first is dropped.
static ENVIRONMENT: OnceLock<(Environment, PathBuf)> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// Why ONNX Runtime is not available.
#[derive(Debug, Error)]
pub enum RuntimeError {
    #[error("could not load ONNX Runtime from \"{}\"", path.display())]
    Load { path: PathBuf, detail: String },
    #[error("could not start ONNX Runtime")]
    Start(#[source] ort::Error),
    #[error("ONNX Runtime is not loaded")]
    NotLoaded,
}

/// Loads the shared library at `path` and starts ONNX Runtime; later calls return at once, whatever their path.
///
/// The caller sets `ORT_DISABLE_TELEMETRY=1` in the environment first: builds from 1.30 on send telemetry
/// from a thread of their own unless they find it when they are loaded. The call may start threads, which inherit
/// the caller's signal mask.
///
/// # Errors
/// [`RuntimeError::Load`] if there is no such library or it is too old, [`RuntimeError::Start`] if it does not start.
pub fn init(path: &Path) -> Result<(), RuntimeError> {
    let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if ENVIRONMENT.get().is_some() {
        return Ok(());
    }
    let load_error = |detail: String| RuntimeError::Load { path: path.to_owned(), detail };
    let environment = ort::init_from(path)
        .map_err(|error| load_error(error.to_string()))?
        .with_name("pg_sketch")
        .with_telemetry(false)
        .build()
        .map_err(RuntimeError::Start)?;
    environment.set_log_level(ort::logging::LogLevel::Fatal);
    let _ = ENVIRONMENT.set((environment, path.to_owned()));
    Ok(())
}

/// The running environment.
pub(crate) fn environment() -> Result<&'static Environment, RuntimeError> {
    ENVIRONMENT.get().map(|(environment, _)| environment).ok_or(RuntimeError::NotLoaded)
}

/// Path of the loaded library and its description of itself, or `None` before [`init`].
pub fn loaded() -> Option<(&'static Path, &'static str)> {
    ENVIRONMENT.get().map(|(_, path)| (path.as_path(), ort::info()))
}
