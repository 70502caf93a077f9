//! One model of the worker on one device: loading, ready, or failed.

use crate::error::{Result, SqlError};
use crate::inference::model_file;
use crate::inference::shared::{Shared, now};
use crate::inference::stat;
use crate::process::{self, SignalsBlocked};
use crate::settings;
use half::f16;
use pgrx::PgSqlErrorCode;
use sketch_model::digest;
use sketch_model::inference::batch::{Decision, Waiting};
use sketch_model::inference::encoder::EncoderError;
use sketch_model::inference::pool::{Pool, Room};
use sketch_model::inference::runner::{Event, Graph, Job, Loaded, RunnerError, Source, Wake};
use sketch_model::inference::slot::{Request, Target};
use sketch_model::inference::stat::{Entry, Key, Place};
use sketch_model::manifest::Manifest;
use std::time::{Duration, Instant};

/// A model on a device.
pub struct Model {
    pub target: Target,
    name: String,
    state: State,
}

enum State {
    Loading {
        pool: Pool,
        manifest: Box<Manifest>,
    },
    Ready {
        pool: Pool,
        manifest: Box<Manifest>,
        loaded: Loaded,
    },
    /// It could not be loaded, or was lost: whoever asks for it is told so, until it is time to retry.
    Failed {
        error: SqlError,
        since: Instant,
    },
}

/// How long the worker waits before it loads a model again that has failed.
const RETRY: Duration = Duration::from_secs(1);

fn failed(error: SqlError) -> State {
    State::Failed { error, since: Instant::now() }
}

/// The error for a request that no client of this version writes.
pub fn malformed() -> SqlError {
    SqlError::new(PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION, "inference worker received a malformed request")
        .hint("Restart the server after an upgrade of pg_sketch.")
}

impl Model {
    /// Starts to load a model from its file.
    pub fn load(target: Target, wake: &Wake) -> Self {
        match start(&target, wake) {
            Ok((pool, manifest)) => {
                let name = manifest.name.clone();
                Self { target, name, state: State::Loading { pool, manifest: Box::new(manifest) } }
            }
            Err(error) => Self { target, name: String::new(), state: failed(error) },
        }
    }

    fn tag(&self) -> u32 {
        digest::tag(&self.target.model)
    }

    /// The model in the log.
    pub fn describe(&self) -> String {
        match &self.state {
            State::Ready { loaded, .. } => format!("model \"{}\" ({}) on {}", self.name, self.tag(), loaded.device),
            _ => format!("model {} for {}", self.tag(), self.target.device),
        }
    }

    /// The model in `sketch_status()`, if it is loaded.
    pub fn status(&self) -> Option<String> {
        let State::Ready { loaded, .. } = &self.state else { return None };
        let reason = loaded.fallback.as_ref().map(|reason| format!(" (auto: {reason})")).unwrap_or_default();
        let line = format!("{} \"{}\" on {}{reason}", self.tag(), self.name, loaded.device);
        Some(line.replace('\n', " "))
    }

    /// Whether it can be released: it does nothing at the moment.
    pub fn is_idle(&self) -> bool {
        match &self.state {
            State::Loading { .. } => false,
            State::Ready { pool, .. } => !pool.is_busy(),
            State::Failed { .. } => false,
        }
    }

    /// Whether it has failed, and takes no memory.
    pub fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed { .. })
    }

    /// Whether it has failed, and it is time to retry.
    pub fn may_retry(&self) -> bool {
        matches!(&self.state, State::Failed { since, .. } if since.elapsed() >= RETRY)
    }

    /// Handles all events of its runners; returns whether the model was loaded or lost since.
    pub fn poll(&mut self, shared: Shared) -> bool {
        let mut changed = false;
        // Loading starts threads.
        let _signals = matches!(self.state, State::Loading { .. }).then(SignalsBlocked::new);
        loop {
            let (State::Loading { pool, .. } | State::Ready { pool, .. }) = &mut self.state else { return changed };
            match pool.poll() {
                Ok(None) => return changed,
                Ok(Some(Event::Loaded(outcome, took))) => {
                    self.loaded(outcome, took);
                    changed = true;
                }
                Ok(Some(Event::Done { embeddings, took })) => self.done(shared, embeddings, took),
                Err(error) => {
                    self.fail(shared, error.into());
                    changed = true;
                }
            }
        }
    }

    fn loaded(&mut self, outcome: Result<Loaded, EncoderError>, took: Duration) {
        process::release_free_memory();
        let loaded = match outcome {
            Ok(loaded) => loaded,
            Err(error) => {
                let error = SqlError::from(error);
                pgrx::log!("pg_sketch could not load {}: {}", self.describe(), error.message());
                self.state = failed(error);
                return;
            }
        };
        let lost = failed(RunnerError::Ended.into());
        self.state = match std::mem::replace(&mut self.state, lost) {
            State::Loading { pool, manifest } => State::Ready { pool, manifest, loaded },
            other => other,
        };
        pgrx::log!("pg_sketch loaded {} in {} ms", self.describe(), took.as_millis());
    }

    fn fail(&mut self, shared: Shared, error: SqlError) {
        if let State::Ready { pool, .. } = &self.state {
            pool.in_flight().flatten().for_each(|index| shared.answer(*index, Err(error.clone())));
        }
        pgrx::log!("pg_sketch lost {}: {}", self.describe(), error.message());
        self.state = failed(error);
    }

    /// Answers with what a run returned.
    fn done(&self, shared: Shared, embeddings: Vec<(usize, Result<Vec<f16>, EncoderError>)>, took: Duration) {
        let State::Ready { loaded, .. } = &self.state else { return };
        let entry = entry(&self.target, loaded);
        Entry::add(&entry.batches, 1);
        Entry::add(&entry.run, took.as_micros() as u64);
        for (index, embedding) in embeddings {
            let counter = match &embedding {
                _ if shared.slots()[index].is_left() => &entry.left,
                Ok(_) => &entry.images,
                Err(_) => &entry.errors,
            };
            Entry::add(counter, 1);
            match embedding {
                Ok(embedding) => shared.answer(index, Ok(&embedding)),
                Err(error) => shared.answer(index, Err(error.into())),
            }
        }
    }

    /// Runs what can be run now of the images that wait; returns when to look again.
    pub fn submit(&mut self, shared: Shared, waiting: Vec<Waiting>) -> Option<Duration> {
        match &self.state {
            State::Loading { .. } => None,
            State::Ready { .. } => self.start_batches(shared, waiting),
            State::Failed { error, .. } => {
                for image in waiting {
                    if take(shared, &image, &self.target).is_some() {
                        shared.answer(image.slot, Err(error.clone()));
                    }
                }
                None
            }
        }
    }

    /// Starts as many batches as the runners have room for; returns when to look again.
    fn start_batches(&mut self, shared: Shared, mut waiting: Vec<Waiting>) -> Option<Duration> {
        loop {
            let State::Ready { pool, .. } = &self.state else { return None };
            let room = pool.room(waiting.len())?;
            match settings::batch_policy().decide(&mut waiting, now(), room.share, room.is_ahead) {
                Decision::Run(slots) => {
                    let (batch, rest): (Vec<_>, Vec<_>) =
                        waiting.into_iter().partition(|image| slots.contains(&image.slot));
                    self.run(shared, room, &batch);
                    waiting = rest;
                }
                Decision::Wait(rest) => return Some(rest),
                Decision::Idle => return None,
            }
        }
    }

    fn run(&mut self, shared: Shared, room: Room, batch: &[Waiting]) {
        let State::Ready { pool, manifest, loaded } = &mut self.state else { return };
        let entry = entry(&self.target, loaded);
        let started = now();
        let mut job = match Job::new() {
            Ok(job) => job,
            Err(error) => return self.fail(shared, error.into()),
        };
        for image in batch {
            let Some(request) = take(shared, image, &self.target) else { continue };
            let pixels = shared.read(image.slot, request.length);
            if job.push(image.slot, request.domain, manifest, &pixels).is_err() {
                shared.answer(image.slot, Err(malformed()));
                continue;
            }
            Entry::add(&entry.requests, u64::from(request.is_first));
            Entry::add(&entry.wait, started.saturating_sub(image.queued_at));
        }
        if !job.is_empty()
            && let Err(error) = pool.run(room, job)
        {
            self.fail(shared, error.into());
        }
    }

    /// Stops jobs that nobody waits for any more.
    pub fn stop_abandoned(&self, shared: Shared) {
        if let State::Ready { pool, .. } = &self.state {
            pool.stop_if(|slots| slots.iter().all(|index| shared.slots()[*index].is_left()));
        }
    }

    /// Stops its runners, and waits for them, up to `patience`.
    pub fn end(&mut self, patience: Duration) {
        if let State::Loading { pool, .. } | State::Ready { pool, .. } = &mut self.state {
            pool.end(patience);
        }
    }
}

/// Reads a model, and starts its runners.
fn start(target: &Target, wake: &Wake) -> Result<(Pool, Manifest)> {
    let (onnx, manifest) = model_file::read(&target.model)?;
    let source = Source {
        runtime: settings::onnxruntime(),
        graph: Graph::Onnx(onnx.into()),
        manifest: manifest.clone(),
        options: settings::encoder_options_on(target.device),
    };
    let _signals = SignalsBlocked::new();
    Ok((Pool::start(source, wake.clone())?, manifest))
}

/// The counters of a model in the worker.
fn entry(target: &Target, loaded: &Loaded) -> &'static Entry {
    stat::table().entry(Key { model: digest::tag(&target.model), device: loaded.device, place: Place::Worker })
}

/// Takes the slot of an image that waits, unless its client has left since; returns its request.
fn take(shared: Shared, image: &Waiting, target: &Target) -> Option<Request> {
    let slot = &shared.slots()[image.slot];
    if !slot.take() {
        return None;
    }
    let request = slot.request().filter(|request| slot.ticket() == image.ticket && request.target == *target);
    if request.is_none() && !slot.put_back() {
        // It was another client's image by now, and that client has left, too.
        shared.slot_freed();
    }
    request
}
