//! A connection's side of the service: images into slots, embeddings out of them.

use super::shared::Shared;
use super::wait::{self, WaitEvent};
use crate::catalog;
use crate::error::{Result, SqlError};
use crate::settings;
use half::f16;
use pgrx::pg_guard;
use pgrx::pg_sys;
use pgrx::prelude::*;
use sketch_model::inference::encoder::{Device, Domain};
use sketch_model::inference::slot::{AGAIN, Leaving, Request, State, Target};
use sketch_model::manifest::Manifest;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Longest wait between two looks at what has become of a request; whoever has something to say says so at once.
const LOOK: Duration = Duration::from_secs(1);

thread_local! {
    /// Slots of this process: an exit without unwinding leaves them, too.
    static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// A network of the worker.
pub struct Remote {
    shared: Shared,
    target: Target,
    id: u32,
    manifest: String,
}

/// A slot of this process, left when dropped.
struct Held {
    shared: Shared,
    index: usize,
}

impl Held {
    fn claim(shared: Shared) -> Option<Self> {
        let index = shared.claim()?;
        HELD.with_borrow_mut(|held| held.push(index));
        if !REGISTERED.replace(true) {
            // SAFETY: the callback matches, and takes no argument.
            unsafe { pg_sys::before_shmem_exit(Some(leave_all), pg_sys::Datum::null()) };
        }
        Some(Self { shared, index })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| held.retain(|index| *index != self.index));
        leave(self.shared, self.index);
    }
}

fn leave(shared: Shared, index: usize) {
    match shared.slots()[index].leave() {
        Leaving::Freed => shared.slot_freed(),
        Leaving::Unanswered => {
            shared.slot_freed();
            shared.wake_worker();
        }
        // It may stop what nobody waits for any more.
        Leaving::ToService => {
            shared.wake_worker();
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn leave_all(_code: i32, _arg: pg_sys::Datum) {
    if let Some(shared) = Shared::get() {
        HELD.take().into_iter().for_each(|index| leave(shared, index));
    }
}

/// An image on its way.
struct InFlight {
    held: Held,
    pixels: Vec<u8>,
    is_first: bool,
}

impl Remote {
    /// The worker's network for a model, if the worker is to run it: it is there, the settings ask for it, and the
    /// network's images fit its slots.
    ///
    /// # Errors
    /// If there is no such model.
    pub fn find(id: u32, device: Device) -> Result<Option<(Self, Manifest)>> {
        let Some(shared) = Shared::get().filter(|_| settings::worker()) else { return Ok(None) };
        let (model, manifest) = catalog::read_manifest(id)?;
        if !Self::takes(&manifest) {
            return Ok(None);
        }
        let remote = Self { shared, target: Target { model, device }, id, manifest: manifest.to_json() };
        Ok(Some((remote, manifest)))
    }

    /// Whether images and embeddings of a model fit the worker's slots, if there is a worker.
    pub fn takes(manifest: &Manifest) -> bool {
        // An embedding comes back where the image was.
        let length = manifest.input_len().max(2 * manifest.dimension);
        Shared::get().is_some_and(|shared| length <= shared.slot_bytes())
    }

    /// Embeds images, several at a time: `next` gives the pixels of each, or `None` at the end; `done` takes their
    /// embeddings in the same order.
    ///
    /// # Errors
    /// Those of `next`; those of the worker; a wait longer than `pg_sketch.worker_timeout`.
    pub fn embed_all(
        &self,
        domain: Domain,
        next: &mut dyn FnMut() -> Result<Option<Vec<u8>>>,
        done: &mut dyn FnMut(Vec<f16>) -> Result<()>,
    ) -> Result<()> {
        let window = self.window();
        let mut in_flight: VecDeque<InFlight> = VecDeque::new();
        let mut spare: Option<Vec<u8>> = None;
        let (mut is_first, mut at_end) = (true, false);
        let mut progress = Instant::now();
        loop {
            if spare.is_none() && !at_end && in_flight.len() < window {
                spare = next()?;
                at_end = spare.is_none();
                // What the image took to prepare was not spent waiting.
                progress = Instant::now();
            }
            if let Some(pixels) = spare.take() {
                match self.claim(in_flight.is_empty(), progress)? {
                    Some(held) => {
                        let image = InFlight { held, pixels, is_first };
                        self.send(&image, domain);
                        in_flight.push_back(image);
                        is_first = false;
                        continue;
                    }
                    // The queue is full, but answers to what is in it will come.
                    None => spare = Some(pixels),
                }
            }
            if self.answer_questions(&in_flight, domain)? {
                progress = Instant::now();
            }
            match in_flight.front().map(|image| image.held.index) {
                None if at_end => return Ok(()),
                None => {}
                Some(index) => match self.outcome(index)? {
                    Some(embedding) => {
                        in_flight.pop_front();
                        progress = Instant::now();
                        done(embedding)?;
                    }
                    None => {
                        let rest = self.patience(progress)?;
                        wait::wait_for_latch(rest.min(LOOK), WaitEvent::Worker);
                    }
                },
            }
        }
    }

    /// Images that one connection has in flight: enough for several runners with a batch each and one to go on with, and
    /// never so many that it fills the queue alone.
    fn window(&self) -> usize {
        let wanted = 8 * settings::batch_policy().max_batch;
        wanted.min(self.shared.slots().len().div_ceil(2))
    }

    /// Claims a slot; if there is none, waits for one or, if it must not, returns without.
    fn claim(&self, may_wait: bool, since: Instant) -> Result<Option<Held>> {
        let mut held = Held::claim(self.shared);
        if held.is_none() && may_wait {
            while held.is_none() {
                let rest = self.patience(since).inspect_err(|_| wait::stop_waiting_for_slot())?;
                wait::wait_for_slot(self.shared, rest.min(LOOK));
                held = Held::claim(self.shared);
            }
            wait::stop_waiting_for_slot();
            // A signal may have come for us alone while another slot was free for the next.
            self.shared.slot_freed();
        }
        Ok(held)
    }

    fn send(&self, image: &InFlight, domain: Domain) {
        let index = image.held.index;
        let length = self.shared.write(index, &image.pixels);
        let request = Request::Image { target: self.target, domain, length, is_first: image.is_first };
        self.shared.slots()[index].publish(&request, super::stat::now());
        self.shared.wake_worker();
    }

    /// Sends the parts of the model that the worker has asked for; returns whether it has.
    fn answer_questions(&self, in_flight: &VecDeque<InFlight>, domain: Domain) -> Result<bool> {
        let mut asked = false;
        for image in in_flight {
            let index = image.held.index;
            if self.shared.slots()[index].state() != State::Asked {
                continue;
            }
            asked = true;
            match self.shared.slots()[index].resume() {
                Some(AGAIN) => self.send(image, domain),
                Some(offset) => self.send_part(index, offset)?,
                None => {}
            }
        }
        Ok(asked)
    }

    /// Sends the bytes of manifest and graph, one after the other, from `offset` on.
    fn send_part(&self, index: usize, offset: u64) -> Result<()> {
        let manifest = self.manifest.as_bytes();
        let mut part = manifest.get(offset as usize..).unwrap_or_default().to_vec();
        part.truncate(self.shared.slot_bytes());
        let graph_offset = offset.saturating_sub(manifest.len() as u64);
        let (graph, total) = catalog::read_graph_part(self.id, graph_offset, self.shared.slot_bytes() - part.len())?;
        part.extend(graph);
        let length = self.shared.write(index, &part);
        let total = total + manifest.len() as u64;
        let request = Request::Part { target: self.target, length, total, manifest: manifest.len() };
        self.shared.slots()[index].publish(&request, super::stat::now());
        self.shared.wake_worker();
        Ok(())
    }

    /// What the worker has answered, if it has.
    fn outcome(&self, index: usize) -> Result<Option<Vec<f16>>> {
        let slot = &self.shared.slots()[index];
        match slot.state() {
            State::Done => {
                let bytes = self.shared.read(index, slot.length());
                Ok(Some(bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]])).collect()))
            }
            State::Failed => Err(SqlError::from_bytes(&self.shared.read(index, slot.length()))),
            _ => Ok(None),
        }
    }

    /// How much longer to wait.
    fn patience(&self, since: Instant) -> Result<Duration> {
        let Some(limit) = settings::worker_timeout() else { return Ok(LOOK) };
        let rest = limit.saturating_sub(since.elapsed());
        if !rest.is_zero() {
            return Ok(rest);
        }
        if !self.shared.has_worker() {
            return Err(SqlError::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the inference worker is not running",
            )
            .hint("The server's log says why. SET pg_sketch.worker = off runs the network in the connection."));
        }
        Err(SqlError::new(
            PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
            "canceling statement due to timeout of the inference worker",
        )
        .detail(format!("No answer came within {} ms.", limit.as_millis()))
        .hint("Raise pg_sketch.worker_timeout, or send fewer images at a time."))
    }
}
