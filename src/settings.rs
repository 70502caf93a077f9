//! The settings `pg_sketch.…`.

use crate::error::{Result, SqlError};
use crate::files;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use pgrx::prelude::*;
use sketch_model::inference::batch::Policy;
use sketch_model::inference::device::{DEVICE_NAMES, Device};
use sketch_model::inference::encoder::EncoderOptions;
use sketch_model::limits::Limits;
use std::ffi::{CStr, CString};
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Most threads that render photos; each may take the memory of one large image.
const MOST_RENDERING: NonZero<usize> = NonZero::new(8).unwrap();

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
static RECALL: GucSetting<f64> = GucSetting::<f64>::new(1.0);
static ONNXRUNTIME: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static WORKER: GucSetting<bool> = GucSetting::<bool>::new(true);
static WORKER_MODELS: GucSetting<i32> = GucSetting::<i32>::new(4);
static WORKER_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(60_000);
static WORKER_IMAGE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(384);
static QUEUE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(64);
// Measured on two cores of a CPU: larger batches embed as many images per second, and take more memory.
static MAX_BATCH: GucSetting<i32> = GucSetting::<i32>::new(2);
static MAX_WAIT: GucSetting<i32> = GucSetting::<i32>::new(0);
static BACKGROUND_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(2);
static GPU_MEMORY_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(0);

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
        c"Device that runs the network: auto, cpu, cuda[:N], tensorrt[:N], rocm[:N], coreml or openvino[:cpu|:gpu|:npu].",
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
    GucRegistry::define_float_guc(
        c"pg_sketch.recall",
        c"Part of the nearest rows that a scan of an index finds, on average.",
        c"1 finds all; less is faster.",
        &RECALL,
        0.5,
        1.0,
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
    define_service();
    // SAFETY: the prefix is a constant, null-terminated string.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_sketch".as_ptr()) };
}

/// Defines the settings of the inference worker and of GPUs.
fn define_service() {
    GucRegistry::define_bool_guc(
        c"pg_sketch.worker",
        c"Whether connections leave embedding to the inference worker.",
        c"The worker runs if pg_sketch is in shared_preload_libraries and this is on when the server starts.",
        &WORKER,
        GucContext::Suset,
        GucFlags::default(),
    );
    // A setting that only a restart changes cannot be defined later than at the start.
    let at_start = || if is_preloading() { GucContext::Postmaster } else { GucContext::Sighup };
    let integer = |name, short, long, setting, range: std::ops::RangeInclusive<i32>, context, flags| {
        GucRegistry::define_int_guc(name, short, long, setting, *range.start(), *range.end(), context, flags);
    };
    integer(
        c"pg_sketch.queue_size",
        c"Most images that wait for the inference worker at a time; later images wait for a slot.",
        c"Each takes shared memory for one image of pg_sketch.worker_image_size.",
        &QUEUE_SIZE,
        1..=4096,
        at_start(),
        GucFlags::default(),
    );
    integer(
        c"pg_sketch.worker_image_size",
        c"Side of the largest input of a network that the inference worker takes, in pixels.",
        c"Networks with larger inputs run in the connections.",
        &WORKER_IMAGE_SIZE,
        64..=1024,
        at_start(),
        GucFlags::default(),
    );
    integer(
        c"pg_sketch.worker_models",
        c"Most models that the inference worker keeps loaded.",
        c"The least recently used is released.",
        &WORKER_MODELS,
        1..=64,
        GucContext::Sighup,
        GucFlags::default(),
    );
    integer(
        c"pg_sketch.worker_timeout",
        c"How long an image may wait for the inference worker.",
        c"0 waits as long as it takes.",
        &WORKER_TIMEOUT,
        0..=i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    integer(
        c"pg_sketch.max_batch",
        c"Most images that go through the network together.",
        c"A GPU takes more at a time than a CPU.",
        &MAX_BATCH,
        1..=256,
        GucContext::Sighup,
        GucFlags::default(),
    );
    integer(
        c"pg_sketch.max_wait",
        c"How long the inference worker lets an image wait for others to share its batch.",
        c"",
        &MAX_WAIT,
        0..=1000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    integer(
        c"pg_sketch.background_workers",
        c"Most background workers at a time, each of which embeds the photos of one database.",
        c"0 lets photos wait.",
        &BACKGROUND_WORKERS,
        0..=64,
        GucContext::Sighup,
        GucFlags::default(),
    );
    integer(
        c"pg_sketch.gpu_memory_limit",
        c"Most memory of a GPU that a network takes.",
        c"0 sets no limit. Heeded on CUDA, TensorRT and ROCm.",
        &GPU_MEMORY_LIMIT,
        0..=i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MB,
    );
}

/// Whether the postmaster is loading `shared_preload_libraries`.
pub fn is_preloading() -> bool {
    // SAFETY: a plain flag that the server sets before it loads libraries.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Whether this connection leaves embedding to the inference worker.
pub fn worker() -> bool {
    WORKER.get()
}

/// Most background workers at a time.
pub fn background_workers() -> usize {
    BACKGROUND_WORKERS.get() as usize
}

/// Most models that the inference worker keeps.
pub fn worker_models() -> usize {
    WORKER_MODELS.get() as usize
}

/// How long an image may wait for the inference worker; `None` for as long as it takes.
pub fn worker_timeout() -> Option<Duration> {
    Some(WORKER_TIMEOUT.get()).filter(|timeout| *timeout > 0).map(|timeout| Duration::from_millis(timeout as u64))
}

/// Places in the queue of the inference worker, and the bytes of each: one image.
pub fn queue() -> (usize, usize) {
    (QUEUE_SIZE.get() as usize, 3 * (WORKER_IMAGE_SIZE.get() as usize).pow(2))
}

/// How batches are made.
pub fn batch_policy() -> Policy {
    Policy { max_batch: MAX_BATCH.get() as usize, max_wait: Duration::from_millis(MAX_WAIT.get() as u64) }
}

fn text(setting: &GucSetting<Option<CString>>) -> String {
    setting.get().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Name of the model in use, `None` for the newest.
pub fn model() -> Option<String> {
    Some(text(&MODEL)).filter(|name| !name.is_empty())
}

/// Whether [`model`] is this, without a copy of the setting.
pub fn is_model(name: Option<&str>) -> bool {
    // SAFETY: null or the server's string, which changes between statements alone.
    let setting = unsafe {
        let text = *MODEL.as_ptr();
        if text.is_null() { c"" } else { CStr::from_ptr(text) }
    };
    setting.to_bytes() == name.unwrap_or_default().as_bytes()
}

/// Where this connection runs a network, and what it may use there.
///
/// # Errors
/// If `pg_sketch.device` names no device.
pub fn encoder_options() -> Result<EncoderOptions> {
    let device = text(&DEVICE).parse().map_err(|error: sketch_model::inference::encoder::UnknownDevice| {
        SqlError::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, error.to_string())
            .hint(format!("Set pg_sketch.device to {DEVICE_NAMES}."))
    })?;
    Ok(encoder_options_on(device))
}

/// What a network may use on a device.
pub fn encoder_options_on(device: Device) -> EncoderOptions {
    EncoderOptions {
        memory_limit: GPU_MEMORY_LIMIT.get() as usize * 1024 * 1024,
        max_batch: MAX_BATCH.get() as usize,
        ..EncoderOptions::new(device, THREADS.get() as usize)
    }
}

/// Threads that render the photos of a table: as many as run the network, up to a limit.
pub fn rendering_threads() -> NonZero<usize> {
    let cores = || thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    NonZero::new(THREADS.get() as usize).unwrap_or_else(cores).min(MOST_RENDERING)
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

/// Part of the nearest rows that a scan of an index finds; 1 for all.
pub fn recall() -> f64 {
    RECALL.get()
}

/// What happens to a row whose photo cannot be embedded.
pub fn broken_photo() -> BrokenPhoto {
    BROKEN_PHOTO.get()
}

/// Path of the ONNX Runtime library: as set, or among the extension's files, or left to the system's loader.
pub fn onnxruntime() -> PathBuf {
    let set = text(&ONNXRUNTIME);
    if !set.is_empty() {
        return set.into();
    }
    let beside = files::path("libonnxruntime.so");
    if beside.exists() { beside } else { "libonnxruntime.so".into() }
}
