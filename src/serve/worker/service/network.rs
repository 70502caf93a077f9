//! One network of the worker: on its way from a connection, loading, or at work.

use super::{answer, ask, malformed};
use crate::error::SqlError;
use crate::process::{self, SignalsBlocked};
use crate::serve::shared::Shared;
use crate::serve::stat::now;
use crate::serve::stat_table;
use crate::settings;
use half::f16;
use pgrx::PgSqlErrorCode;
use sketch_model::digest;
use sketch_model::inference::batch::{Decision, Waiting};
use sketch_model::inference::encoder::{EncoderError, EncoderOptions};
use sketch_model::inference::pool::{Pool, Room};
use sketch_model::inference::runner::{Event, Graph, Job, Loaded, Source, Wake};
use sketch_model::inference::slot::{AGAIN, Request, State as SlotState, Target};
use sketch_model::inference::stat::{Entry, Key, Place};
use sketch_model::manifest::Manifest;
use std::time::{Duration, Instant};

/// A model on a device.
pub struct Network {
    pub target: Target,
    pub state: State,
    name: String,
}

pub enum State {
    /// The bytes of the model are on their way.
    Wanted {
        /// Slot and ticket of who was asked for them.
        asked: Option<(usize, u64)>,
        bytes: Vec<u8>,
    },
    Loading {
        pool: Pool,
        manifest: Box<Manifest>,
    },
    Ready {
        pool: Pool,
        manifest: Box<Manifest>,
        loaded: Loaded,
    },
    /// It could not be loaded, or was lost: whoever wants it is told so, until it is time to try again.
    Failed {
        error: SqlError,
        since: Instant,
    },
}

/// How long a network that could not be loaded is not tried again.
const RETRY: Duration = Duration::from_secs(1);

fn failed(error: SqlError) -> State {
    State::Failed { error, since: Instant::now() }
}

impl Network {
    pub fn new(target: Target) -> Self {
        Self { target, state: State::Wanted { asked: None, bytes: Vec::new() }, name: String::new() }
    }

    fn tag(&self) -> u32 {
        digest::tag(&self.target.model)
    }

    /// The network in the log.
    pub fn describe(&self) -> String {
        match &self.state {
            State::Ready { loaded, .. } => format!("model \"{}\" ({}) on {}", self.name, self.tag(), loaded.device),
            _ => format!("model {} for {}", self.tag(), self.target.device),
        }
    }

    /// The network in `sketch_status()`.
    pub fn notice(&self) -> Option<String> {
        let State::Ready { loaded, .. } = &self.state else { return None };
        let reason = loaded.fallback.as_ref().map(|reason| format!(" (auto: {reason})")).unwrap_or_default();
        let line = format!("{} \"{}\" on {}{reason}", self.tag(), self.name, loaded.device);
        Some(line.replace('\n', " "))
    }

    /// Whether it can be released: it does nothing at the moment.
    pub fn is_idle(&self, shared: Shared) -> bool {
        match &self.state {
            State::Wanted { asked, .. } => !asked.is_some_and(|(index, ticket)| is_answering(shared, index, ticket)),
            State::Loading { .. } => false,
            State::Ready { pool, .. } => !pool.is_busy(),
            State::Failed { .. } => true,
        }
    }

    /// Whether it is time to try again what failed.
    pub fn is_over(&self) -> bool {
        matches!(&self.state, State::Failed { since, .. } if since.elapsed() >= RETRY)
    }

    /// Hears all that its runners have to say; returns whether it is loaded since, or broken.
    pub fn hear(&mut self, shared: Shared) -> bool {
        let mut changed = false;
        // While it loads, threads are started.
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
        let nothing = State::Wanted { asked: None, bytes: Vec::new() };
        let State::Loading { pool, manifest } = std::mem::replace(&mut self.state, nothing) else { return };
        process::release_free_memory();
        match outcome {
            Ok(loaded) => {
                self.state = State::Ready { pool, manifest, loaded };
                pgrx::log!("pg_sketch loaded {} in {} ms", self.describe(), took.as_millis());
            }
            Err(error) => {
                let error = SqlError::from(error);
                pgrx::log!("pg_sketch could not load {}: {}", self.describe(), error.message());
                self.state = failed(error);
            }
        }
    }

    fn fail(&mut self, shared: Shared, error: SqlError) {
        if let State::Ready { pool, .. } = &self.state {
            pool.in_flight().flatten().for_each(|index| answer(shared, *index, Err(&error.to_bytes())));
        }
        pgrx::log!("pg_sketch lost {}: {}", self.describe(), error.message());
        self.state = failed(error);
    }

    /// Hands out what a run returned.
    fn done(&self, shared: Shared, embeddings: Vec<(usize, Result<Vec<f16>, EncoderError>)>, took: Duration) {
        let tag = self.tag();
        let State::Ready { loaded, .. } = &self.state else { return };
        let entry = stat_table().entry(Key { model: tag, device: loaded.device, place: Place::Worker });
        Entry::add(&entry.batches, 1);
        Entry::add(&entry.run, took.as_micros() as u64);
        for (index, embedding) in embeddings {
            let slot = &shared.slots()[index];
            match embedding {
                Ok(embedding) => {
                    let counter = if slot.is_left() { &entry.left } else { &entry.images };
                    Entry::add(counter, 1);
                    answer(shared, index, Ok(&embedding));
                }
                Err(error) => {
                    let counter = if slot.is_left() { &entry.left } else { &entry.errors };
                    Entry::add(counter, 1);
                    answer(shared, index, Err(&SqlError::from(error).to_bytes()));
                }
            }
        }
    }

    /// Does for the images that wait what can be done now; returns when to look again.
    pub fn feed(&mut self, shared: Shared, mut waiting: Vec<Waiting>) -> Option<Duration> {
        match &mut self.state {
            State::Wanted { asked, bytes } => {
                if !asked.is_some_and(|(index, ticket)| is_answering(shared, index, ticket)) {
                    *asked = None;
                    bytes.clear();
                    waiting.sort_by_key(|image| image.ticket);
                    for image in waiting {
                        if take_image(shared, &image, &self.target) && ask(shared, image.slot, 0) {
                            *asked = Some((image.slot, image.ticket));
                            break;
                        }
                    }
                }
                None
            }
            State::Failed { error, .. } => {
                let error = error.to_bytes();
                for image in waiting {
                    if take_image(shared, &image, &self.target) {
                        answer(shared, image.slot, Err(&error));
                    }
                }
                None
            }
            State::Ready { .. } => self.start(shared, waiting),
            State::Loading { .. } => None,
        }
    }

    /// Gives the runners what they take of the images that wait; returns when to look again.
    fn start(&mut self, shared: Shared, mut waiting: Vec<Waiting>) -> Option<Duration> {
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
        let tag = self.tag();
        let State::Ready { pool, manifest, loaded } = &mut self.state else { return };
        let entry = stat_table().entry(Key { model: tag, device: loaded.device, place: Place::Worker });
        let started = now();
        let mut job = match Job::new() {
            Ok(job) => job,
            Err(error) => return self.fail(shared, error.into()),
        };
        for image in batch {
            if !take_image(shared, image, &self.target) {
                continue;
            }
            let request = shared.slots()[image.slot].request();
            let Some(Request::Image { domain, length, is_first, .. }) = request else { continue };
            if job.push(image.slot, domain, manifest, &shared.read(image.slot, length)).is_err() {
                answer(shared, image.slot, Err(&malformed().to_bytes()));
                continue;
            }
            Entry::add(&entry.requests, u64::from(is_first));
            Entry::add(&entry.wait, started.saturating_sub(image.queued_at));
        }
        if !job.is_empty()
            && let Err(error) = pool.run(room, job)
        {
            self.fail(shared, error.into());
        }
    }

    /// Stops jobs that nobody waits for any more.
    pub fn look_after(&self, shared: Shared) {
        if let State::Ready { pool, .. } = &self.state {
            pool.stop_if(|slots| slots.iter().all(|index| shared.slots()[*index].is_left()));
        }
    }

    /// Takes a part of the model from a slot that was taken, and asks for the next, or starts to load.
    pub fn take_part(
        &mut self,
        shared: Shared,
        sender: (usize, u64),
        part: &[u8],
        total: u64,
        manifest: usize,
        wake: &Wake,
    ) {
        let index = sender.0;
        let State::Wanted { asked, bytes } = &mut self.state else {
            ask(shared, index, AGAIN);
            return;
        };
        if *asked != Some(sender) {
            ask(shared, index, AGAIN);
            return;
        }
        bytes.extend_from_slice(part);
        if (bytes.len() as u64) < total && !part.is_empty() {
            if !ask(shared, index, bytes.len() as u64) {
                *asked = None;
            }
            return;
        }
        let bytes = std::mem::take(bytes);
        self.state = match self.load(&bytes, manifest, wake) {
            Ok((pool, manifest)) => {
                self.name = manifest.name.clone();
                State::Loading { pool, manifest: Box::new(manifest) }
            }
            Err(error) => failed(error),
        };
        // Its image is in the queue again, in its old place, and hears what becomes of the model.
        ask(shared, index, AGAIN);
    }

    fn load(&self, bytes: &[u8], manifest_length: usize, wake: &Wake) -> Result<(Pool, Manifest), SqlError> {
        let (manifest, onnx) = bytes.split_at_checked(manifest_length).unwrap_or_default();
        let manifest = Manifest::from_json(&String::from_utf8_lossy(manifest))?;
        if manifest.digest(onnx) != self.target.model {
            return Err(SqlError::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "model is damaged")
                .detail(format!("Graph and manifest of model_id {} are not those of its digest.", self.tag())));
        }
        let options = EncoderOptions { device: self.target.device, threads: settings::threads() };
        let source = Source {
            runtime: settings::onnxruntime(),
            graph: Graph::Onnx(onnx.into()),
            manifest: manifest.clone(),
            options,
            tuning: settings::tuning(&manifest),
        };
        let _signals = SignalsBlocked::new();
        Ok((Pool::start(source, wake.clone())?, manifest))
    }

    pub fn end(&mut self, patience: Duration) {
        if let State::Loading { pool, .. } | State::Ready { pool, .. } = &mut self.state {
            pool.end(patience);
        }
    }
}

/// Takes the slot of an image that waits, unless its client has left since.
fn take_image(shared: Shared, image: &Waiting, target: &Target) -> bool {
    let slot = &shared.slots()[image.slot];
    if !slot.take() {
        return false;
    }
    let is_same = slot.ticket() == image.ticket
        && matches!(slot.request(), Some(Request::Image { target: found, .. }) if found == *target);
    if !is_same {
        // Another's image by now: it goes back into the queue by way of its client.
        ask(shared, image.slot, AGAIN);
    }
    is_same
}

/// Whether who was asked for the model is still about to answer.
fn is_answering(shared: Shared, index: usize, ticket: u64) -> bool {
    let slot = &shared.slots()[index];
    slot.ticket() == ticket
        && match slot.state() {
            SlotState::Asked | SlotState::Claimed | SlotState::Taken => true,
            SlotState::Ready => matches!(slot.request(), Some(Request::Part { .. })),
            _ => false,
        }
}
