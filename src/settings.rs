//! The settings `pg_sketch.…`.

use crate::error::{Result, SqlError};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use pgrx::prelude::*;
use sketch_model::encoder::EncoderOptions;
use sketch_model::limits::Limits;
use std::ffi::{CStr, CString};
use std::path::PathBuf;

/// What the trigger does with a photo that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum BrokenPhoto {
    #[name = c"warning"]
    Warning,
    #[name = c"error"]
    Error,
}

static MODEL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static DEVICE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"auto"));
static THREADS: GucSetting<i32> = GucSetting::<i32>::new(0);
static BROKEN_PHOTO: GucSetting<BrokenPhoto> = GucSetting::<BrokenPhoto>::new(BrokenPhoto::Warning);
static MAX_IMAGE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(32 * 1024);
static MAX_IMAGE_PIXELS: GucSetting<i32> = GucSetting::<i32>::new(50_000_000);
static MAX_POINTS: GucSetting<i32> = GucSetting::<i32>::new(100_000);
static MAX_LISTS: GucSetting<i32> = GucSetting::<i32>::new(0);
static ONNXRUNTIME: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Defines every setting and reserves the prefix.
pub fn define() {
    GucRegistry::define_string_guc(
        c"pg_sketch.model",
        c"Name of the model that embeds drawings and photos.",
        c"Empty takes the newest model.",
        &MODEL,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_sketch.device",
        c"Device that runs the network: auto, cpu, cuda or cuda:N.",
        c"auto takes a GPU where there is one, else the CPU.",
        &DEVICE,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_sketch.threads",
        c"Threads that run the network on the CPU.",
        c"0 takes one for each core.",
        &THREADS,
        0,
        256,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"pg_sketch.broken_photo",
        c"What happens to a row whose photo cannot be embedded.",
        c"warning stores NULL embeddings, error refuses the row.",
        &BROKEN_PHOTO,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_sketch.max_image_size",
        c"Largest photo or drawing that is read, in bytes.",
        c"",
        &MAX_IMAGE_SIZE,
        1,
        1024 * 1024,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"pg_sketch.max_image_pixels",
        c"Largest photo or drawing that is decoded, width times height.",
        c"",
        &MAX_IMAGE_PIXELS,
        1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_sketch.max_points",
        c"Most points that the strokes of a drawing may have.",
        c"",
        &MAX_POINTS,
        1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_sketch.max_lists",
        c"Most lists of an index that a scan visits.",
        c"0 visits as many as it takes to find the nearest rows; else a scan may miss some.",
        &MAX_LISTS,
        0,
        65_535,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_sketch.onnxruntime",
        c"Path of the ONNX Runtime library.",
        c"Empty takes the one that was installed with the extension, else the system's.",
        &ONNXRUNTIME,
        GucContext::Suset,
        GucFlags::default(),
    );
    // SAFETY: the prefix is a constant, null-terminated string.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_sketch".as_ptr()) };
}

fn text(setting: &GucSetting<Option<CString>>) -> String {
    setting.get().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Name of the model in use, `None` for the newest.
pub fn model() -> Option<String> {
    Some(text(&MODEL)).filter(|name| !name.is_empty())
}

/// Device and threads.
///
/// # Errors
/// If `pg_sketch.device` names no device.
pub fn encoder_options() -> Result<EncoderOptions> {
    let device = text(&DEVICE).parse().map_err(|error: sketch_model::encoder::UnknownDevice| {
        SqlError::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, error.to_string())
            .hint("Set pg_sketch.device to auto, cpu, cuda or cuda:N.")
    })?;
    Ok(EncoderOptions { device, threads: THREADS.get() as usize })
}

/// What one image may cost.
pub fn limits() -> Limits {
    Limits {
        bytes: MAX_IMAGE_SIZE.get() as usize * 1024,
        pixels: MAX_IMAGE_PIXELS.get() as u64,
        points: MAX_POINTS.get() as usize,
        ..Limits::default()
    }
}

/// Most lists of an index that a scan visits, 0 for as many as exact answers take.
pub fn max_lists() -> u32 {
    MAX_LISTS.get() as u32
}

/// What happens to a row whose photo cannot be embedded.
pub fn broken_photo() -> BrokenPhoto {
    BROKEN_PHOTO.get()
}

/// Path of the ONNX Runtime library: as set, or beside this extension, or left to the system's loader.
pub fn onnxruntime() -> PathBuf {
    let set = text(&ONNXRUNTIME);
    if !set.is_empty() {
        return set.into();
    }
    // SAFETY: pkglib_path is a null-terminated buffer that the server fills before it loads any library.
    let libdir = unsafe { CStr::from_ptr((&raw const pg_sys::pkglib_path).cast()) };
    let beside = PathBuf::from(libdir.to_string_lossy().as_ref()).join("pg_sketch/libonnxruntime.so");
    if beside.exists() { beside } else { "libonnxruntime.so".into() }
}
