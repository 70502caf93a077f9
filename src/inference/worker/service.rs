//! What the worker does in each step: hand out answers, make batches, load and release models.

use super::model::{Model, malformed};
use crate::inference::shared::Shared;
use crate::settings;
use sketch_model::inference::batch::Waiting;
use sketch_model::inference::encoder::is_supported;
use sketch_model::inference::runner::Wake;
use sketch_model::inference::slot::{State, Target};
use std::time::{Duration, Instant};

/// The worker's models and the queue.
pub struct Service {
    shared: Shared,
    wake: Wake,
    /// The last one used last.
    models: Vec<Model>,
}

impl Service {
    pub fn new(shared: Shared, wake: Wake) -> Self {
        Self { shared, wake, models: Vec::new() }
    }

    /// Does all work at hand without waiting; returns when to do the next step if nobody wakes the worker before.
    pub fn step(&mut self) -> Option<Duration> {
        let before = self.models.len();
        self.models.retain(|model| !model.may_retry());
        let mut changed = before != self.models.len();
        for model in &mut self.models {
            changed |= model.poll(self.shared);
        }
        let mut soonest = None;
        for (target, waiting) in self.waiting() {
            let Some(index) = self.model(target) else { continue };
            let rest = self.models[index].submit(self.shared, waiting);
            soonest = soonest.into_iter().chain(rest).min();
        }
        self.models.iter().for_each(|model| model.stop_abandoned(self.shared));
        if changed {
            self.publish_status();
        }
        soonest
    }

    /// The images that wait, by network; the oldest image decides the order of the networks.
    fn waiting(&self) -> Vec<(Target, Vec<Waiting>)> {
        let mut images: Vec<(Target, Vec<Waiting>)> = Vec::new();
        for (index, slot) in self.shared.slots().iter().enumerate() {
            if slot.state() != State::Ready {
                continue;
            }
            // The client may have left, and another have come, since the state was read: whoever takes the slot checks.
            let image = Waiting { slot: index, ticket: slot.ticket(), queued_at: slot.queued_at() };
            match slot.request().map(|request| request.target) {
                Some(target) => match images.iter_mut().find(|(known, _)| *known == target) {
                    Some((_, waiting)) => waiting.push(image),
                    None => images.push((target, vec![image])),
                },
                None if slot.take() => self.shared.answer(index, Err(malformed())),
                None => {}
            }
        }
        images.sort_by_key(|(_, waiting)| waiting.iter().map(|image| image.ticket).min());
        images
    }

    /// Index of a model, which becomes the last one used; a new one if there is room, or one that can be released.
    fn model(&mut self, target: Target) -> Option<usize> {
        match self.models.iter().position(|model| model.target == target) {
            Some(index) => {
                let model = self.models.remove(index);
                self.models.push(model);
            }
            None => {
                // A device that ONNX Runtime does not support fails at once, and takes no other model's place.
                while is_supported(target.device)
                    && self.models.iter().filter(|model| !model.has_failed()).count() >= settings::worker_models()
                {
                    let idle = self.models.iter().position(Model::is_idle)?;
                    let released = self.models.remove(idle);
                    pgrx::log!("pg_sketch released {}", released.describe());
                    drop(released);
                    self.publish_status();
                }
                self.models.push(Model::load(target, &self.wake));
            }
        }
        Some(self.models.len() - 1)
    }

    /// Publishes which models are loaded, for `sketch_status()`.
    fn publish_status(&self) {
        let lines: Vec<String> = self.models.iter().filter_map(Model::status).collect();
        self.shared.notice().write(&lines.join("\n"));
    }

    /// Stops what runs, and waits for it, up to `patience` in all.
    pub fn end(mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        for model in &mut self.models {
            model.end(deadline.saturating_duration_since(Instant::now()));
        }
    }
}
