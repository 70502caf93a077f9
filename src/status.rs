//! `sketch_status()`: what this connection has, runs and has done.

use crate::inference::shared::Shared;
use crate::inference::stat;
use crate::{embed, inference, settings, version};
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sketch_model::inference::slot::State;
use sketch_model::{inference::runtime, simd};

#[pg_extern(volatile, parallel_restricted)]
fn sketch_status() -> Result<TableIterator<'static, (name!(name, String), name!(value, String))>, ErrorReport> {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: String| rows.push((name.to_owned(), value));
    let counters = stat::counters();
    add("version", version::LIBRARY.to_owned());
    add("extension_version", version::of_sql()?);
    match runtime::loaded() {
        Some((path, info)) => {
            add("onnxruntime", info.to_owned());
            add("onnxruntime_path", path.display().to_string());
        }
        None => {
            add("onnxruntime", "not loaded yet".to_owned());
            add("onnxruntime_path", settings::onnxruntime().display().to_string());
        }
    }
    for embedder in inference::loaded() {
        let model = format!("{} \"{}\"", embedder.id, embedder.manifest.name);
        match embedder.device() {
            Some((device, fallback)) => {
                let reason = fallback.map(|reason| format!(" (auto: {reason})")).unwrap_or_default();
                add("model", format!("{model} on {device}{reason}"));
            }
            None => add("model", format!("{model} by the worker")),
        }
    }
    add("worker", worker_state().to_owned());
    if let Some(shared) = Shared::get() {
        let taken = shared.slots().iter().filter(|slot| slot.state() != State::Free).count();
        add("worker_queue", format!("{taken} of {} places taken", shared.slots().len()));
        shared.notice().read().lines().for_each(|line| add("worker_model", line.to_owned()));
    }
    add("distance_kernel", simd::kernel_name().to_owned());
    add("sketches_embedded", counters.sketches.to_string());
    add("photos_embedded", counters.photos.to_string());
    add("embeddings_reused", counters.reused.to_string());
    add("embeddings_cached", embed::remembered().to_string());
    Ok(TableIterator::new(rows))
}

fn worker_state() -> &'static str {
    match Shared::get() {
        None => "none; each connection runs the network itself",
        Some(_) if !settings::worker() => "not used: pg_sketch.worker is off",
        Some(shared) if shared.has_worker() => "running; it runs the network for all connections",
        Some(_) => "starting",
    }
}
