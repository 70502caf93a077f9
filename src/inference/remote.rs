//! The connection's side of the inference worker: images into slots, embeddings out of them.

use super::model_file;
use super::shared::{Shared, now};
use super::wait::{WaitEvent, wait_for_latch};
use crate::catalog;
use crate::error::{Result, SqlError};
use crate::settings;
use half::f16;
use pgrx::pg_guard;
use pgrx::pg_sys;
use pgrx::prelude::*;
use sketch_model::inference::encoder::{Device, Domain};
use sketch_model::inference::slot::{Leaving, Request, State, Target};
use sketch_model::manifest::Manifest;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Longest wait between two polls of a request; the worker wakes the connection when it has answered.
const POLL: Duration = Duration::from_secs(1);

thread_local! {
    /// Slots of this process, so that an exit without unwinding leaves them, too.
    static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// A network of the worker.
pub struct Remote {
    shared: Shared,
    target: Target,
    id: u32,
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
        // The worker may stop a run that nobody waits for any more.
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
        Ok(Some((Self { shared, target: Target { model, device }, id }, manifest)))
    }

    /// Whether images and embeddings of a model fit the worker's slots, if there is a worker.
    pub fn takes(manifest: &Manifest) -> bool {
        // The embedding is written over the image.
        let length = manifest.input_len().max(2 * manifest.dimension);
        Shared::get().is_some_and(|shared| length <= shared.slot_bytes())
    }

    /// As [`super::Embedder::embed_all`].
    ///
    /// # Errors
    /// Those of `next` and `done`; those of the worker; a wait longer than `pg_sketch.worker_timeout`.
    pub fn embed_all(
        &self,
        domain: Domain,
        next: &mut dyn FnMut() -> Result<Option<Vec<u8>>>,
        done: &mut dyn FnMut(Vec<f16>) -> Result<()>,
    ) -> Result<()> {
        model_file::publish(&self.target.model, || catalog::read_model(self.id))?;
        let window = self.window();
        let mut in_flight: VecDeque<Held> = VecDeque::new();
        let mut spare: Option<Vec<u8>> = None;
        let (mut is_first, mut at_end) = (true, false);
        let mut progress = Instant::now();
        loop {
            if spare.is_none() && !at_end && in_flight.len() < window {
                spare = next()?;
                at_end = spare.is_none();
                // The time to prepare the image was not spent waiting.
                progress = Instant::now();
            }
            if let Some(pixels) = &spare
                && let Some(held) = self.claim(in_flight.is_empty(), progress)?
            {
                self.send(&held, domain, pixels, is_first);
                in_flight.push_back(held);
                is_first = false;
                spare = None;
                continue;
            }
            // Nothing to send, or the queue is full; then answers to what is in flight will come.
            let Some(oldest) = in_flight.front() else { if at_end { return Ok(()) } else { continue } };
            match self.answer(oldest)? {
                Some(embedding) => {
                    in_flight.pop_front();
                    progress = Instant::now();
                    done(embedding)?;
                }
                None => wait_for_latch(self.patience(progress)?.min(POLL), WaitEvent::Worker),
            }
        }
    }

    /// Images that one connection has in flight: enough for several runners with a batch each and the next ready, and never
    /// so many that it fills the queue alone.
    fn window(&self) -> usize {
        let wanted = 8 * settings::batch_policy().max_batch;
        wanted.min(self.shared.slots().len().div_ceil(2))
    }

    /// Claims a slot. If none is free, waits for one, or returns without if it may not wait.
    fn claim(&self, may_wait: bool, since: Instant) -> Result<Option<Held>> {
        let mut held = Held::claim(self.shared);
        if held.is_none() && may_wait {
            while held.is_none() {
                let rest = self.patience(since).inspect_err(|_| self.shared.stop_waiting_for_slot())?;
                self.shared.wait_for_slot(rest.min(POLL));
                held = Held::claim(self.shared);
            }
            self.shared.stop_waiting_for_slot();
            // The signal woke this process alone, but another slot may be free for the next.
            self.shared.slot_freed();
        }
        Ok(held)
    }

    fn send(&self, held: &Held, domain: Domain, pixels: &[u8], is_first: bool) {
        let length = self.shared.write(held.index, pixels);
        let request = Request { target: self.target, domain, length, is_first };
        self.shared.slots()[held.index].publish(&request, now());
        self.shared.wake_worker();
    }

    /// The worker's answer, if it is there.
    fn answer(&self, held: &Held) -> Result<Option<Vec<f16>>> {
        let slot = &self.shared.slots()[held.index];
        match slot.state() {
            State::Done => {
                let bytes = self.shared.read(held.index, slot.length());
                Ok(Some(bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]])).collect()))
            }
            State::Failed => Err(SqlError::from_bytes(&self.shared.read(held.index, slot.length()))),
            _ => Ok(None),
        }
    }

    /// How much longer to wait.
    fn patience(&self, since: Instant) -> Result<Duration> {
        let Some(limit) = settings::worker_timeout() else { return Ok(POLL) };
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
