//! What the worker does in each step: take in models, make batches, hand out answers.

mod network;

use super::super::shared::Shared;
use crate::error::SqlError;
use crate::settings;
use half::f16;
use network::Network;
use sketch_model::inference::batch::Waiting;
use sketch_model::inference::runner::Wake;
use sketch_model::inference::slot::{Request, State, Target};
use std::time::{Duration, Instant};

/// The worker's networks and what waits for them.
pub struct Service {
    shared: Shared,
    wake: Wake,
    /// The last one used last.
    networks: Vec<Network>,
}

/// Answers a taken slot, and wakes its client or, if that has left, who waits for a slot.
pub fn answer(shared: Shared, index: usize, outcome: Result<&[f16], &[u8]>) {
    let bytes = match outcome {
        Ok(embedding) => &embedding.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>(),
        Err(error) => error,
    };
    let length = shared.write(index, bytes);
    if shared.slots()[index].answer(outcome.is_ok(), length) {
        shared.wake_client(index);
    } else {
        shared.slot_freed();
    }
}

/// Asks the client of a taken slot for the model's bytes from `offset` on, or for its image again.
fn ask(shared: Shared, index: usize, offset: u64) -> bool {
    let is_there = shared.slots()[index].ask(offset);
    if is_there {
        shared.wake_client(index);
    } else {
        shared.slot_freed();
    }
    is_there
}

impl Service {
    pub fn new(shared: Shared, wake: Wake) -> Self {
        Self { shared, wake, networks: Vec::new() }
    }

    /// Does what there is to do without waiting; returns when to look again, if nobody wakes the worker before.
    pub fn step(&mut self) -> Option<Duration> {
        let before = self.networks.len();
        self.networks.retain(|network| !network.is_over());
        let mut changed = before != self.networks.len();
        for network in &mut self.networks {
            changed |= network.hear(self.shared);
        }
        let images = self.take_in();
        let mut soonest = None;
        for (target, waiting) in images {
            let Some(index) = self.network(target) else { continue };
            let rest = self.networks[index].feed(self.shared, waiting);
            soonest = soonest.into_iter().chain(rest).min();
        }
        self.networks.iter().for_each(|network| network.look_after(self.shared));
        if changed {
            self.tell();
        }
        soonest
    }

    /// Handles the parts of models that were sent; returns the images that wait, by network.
    fn take_in(&mut self) -> Vec<(Target, Vec<Waiting>)> {
        let mut images: Vec<(Target, Vec<Waiting>)> = Vec::new();
        for (index, slot) in self.shared.slots().iter().enumerate() {
            if slot.state() != State::Ready {
                continue;
            }
            match slot.request() {
                Some(Request::Image { target, .. }) => {
                    let image = Waiting { slot: index, ticket: slot.ticket(), queued_at: slot.queued_at() };
                    // The client may have left, and another have come, since the state was read: who takes the slot looks again.
                    match images.iter_mut().find(|(known, _)| *known == target) {
                        Some((_, waiting)) => waiting.push(image),
                        None => images.push((target, vec![image])),
                    }
                }
                Some(Request::Part { target, total, manifest, length }) => {
                    if slot.take() {
                        self.take_part(index, target, total, manifest, length);
                    }
                }
                None => {
                    if slot.take() {
                        answer(self.shared, index, Err(&malformed().to_bytes()));
                    }
                }
            }
        }
        images.sort_by_key(|(_, waiting)| waiting.iter().map(|image| image.ticket).min());
        images
    }

    fn take_part(&mut self, index: usize, target: Target, total: u64, manifest: usize, length: usize) {
        let ticket = self.shared.slots()[index].ticket();
        let bytes = self.shared.read(index, length);
        match self.networks.iter_mut().find(|network| network.target == target) {
            Some(network) => network.take_part(self.shared, (index, ticket), &bytes, total, manifest, &self.wake),
            // It was asked for by a worker that has ended since.
            None => {
                ask(self.shared, index, sketch_model::inference::slot::AGAIN);
            }
        }
    }

    /// Index of a network, which becomes the last one used; a new one if there is room, or one that can be released.
    fn network(&mut self, target: Target) -> Option<usize> {
        match self.networks.iter().position(|network| network.target == target) {
            Some(index) => {
                let network = self.networks.remove(index);
                self.networks.push(network);
            }
            None => {
                while self.networks.len() >= settings::worker_models() {
                    let idle = self.networks.iter().position(|network| network.is_idle(self.shared))?;
                    let released = self.networks.remove(idle);
                    pgrx::log!("pg_sketch released {}", released.describe());
                    drop(released);
                    self.tell();
                }
                self.networks.push(Network::new(target));
            }
        }
        Some(self.networks.len() - 1)
    }

    /// Says which networks there are, for `sketch_status()`.
    fn tell(&self) {
        let lines: Vec<String> = self.networks.iter().filter_map(Network::notice).collect();
        self.shared.notice().write(&lines.join("\n"));
    }

    /// Stops what runs, and waits for it, up to `patience` in all.
    pub fn end(mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        for network in &mut self.networks {
            network.end(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

/// A request that this version's client does not write.
fn malformed() -> SqlError {
    SqlError::new(
        pgrx::PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION,
        "the inference worker was sent a request that it does not understand",
    )
    .hint("Restart the server after an upgrade of pg_sketch.")
}
