//! The files that come with the extension, ONNX Runtime and the network, in the folder `pg_sketch` beside the library.
//!
//! The server's own folders say nothing about them: with `dynamic_library_path`, and `extension_control_path` of
//! PostgreSQL 18, an extension may be installed anywhere.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

/// Path of one of the files.
pub fn path(name: &str) -> PathBuf {
    library().parent().unwrap_or(Path::new("")).join("pg_sketch").join(name)
}

/// Path by which the server loaded this library; it makes it absolute.
fn library() -> PathBuf {
    let mut found = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: the address is one of this library, so that the loader finds it, fills `found`, and keeps the name for as
    // long as the library is loaded.
    let name = unsafe {
        if libc::dladdr((path as *const ()).cast(), found.as_mut_ptr()) == 0 {
            return PathBuf::new();
        }
        CStr::from_ptr(found.assume_init().dli_fname)
    };
    PathBuf::from(name.to_string_lossy().as_ref())
}
