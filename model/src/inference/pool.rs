//! The runners of one network: on a CPU several sessions with few threads do more together than one with all of them,
//! whose threads wait for each other at every node of the graph. They share its weights.

use super::runner::{Event, Graph, Job, Loaded, Runner, RunnerError, Source, Wake};
use crate::inference::encoder::{Device, EncoderOptions};
use std::num::NonZero;
use std::time::{Duration, Instant};

/// Most runners that share the cores; each has memory for what a batch becomes on its way through the network.
const MOST_SHARING: usize = 4;

/// A network that is loaded once or several times. Dropping it stops what runs, and frees the network.
pub struct Pool {
    /// The first has all threads, for an image that comes alone; the others, if there are any, share the cores.
    runners: Vec<Runner>,
    /// What the others are made of, until the first has loaded.
    spare: Option<(Source, Wake)>,
    /// What the first said, and how long those took that have loaded.
    loaded: Option<(Loaded, Duration)>,
}

/// A runner that takes a job now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    runner: usize,
    /// How many images it should take, so that other runners that have nothing to do get theirs.
    pub share: usize,
    /// Whether it runs another job first.
    pub is_ahead: bool,
}

impl Pool {
    /// Starts to load the network. Threads are started as by [`Runner::start`], here and in [`Pool::poll`].
    ///
    /// # Errors
    /// [`RunnerError::Start`] if there is no thread to be had.
    pub fn start(source: Source, wake: Wake) -> Result<Self, RunnerError> {
        let options = EncoderOptions { share_weights: threads(&source) > 1, ..source.options };
        let first = Runner::start(Source { options, ..source.clone() }, wake.clone())?;
        Ok(Self { runners: vec![first], spare: Some((source, wake)), loaded: None })
    }

    /// Whether the network still loads, or some runner has a job.
    pub fn is_busy(&self) -> bool {
        self.runners.iter().any(Runner::is_busy)
    }

    /// Which runner takes the next job, if `waiting` images wait; `None` if none has room, or nothing waits.
    pub fn room(&self, waiting: usize) -> Option<Room> {
        let [first, sharing @ ..] = self.runners.as_slice() else { return None };
        if waiting == 0 {
            return None;
        }
        if sharing.is_empty() || (waiting == 1 && !self.is_busy()) {
            return first.has_room().then(|| Room { runner: 0, share: waiting, is_ahead: first.is_busy() });
        }
        let idle = sharing.iter().filter(|runner| !runner.is_busy()).count();
        let runner = 1 + match idle {
            0 => sharing.iter().position(Runner::has_room)?,
            _ => sharing.iter().position(|runner| !runner.is_busy())?,
        };
        Some(Room { runner, share: waiting.div_ceil(idle.max(1)), is_ahead: idle == 0 })
    }

    /// Gives a job to the runner that has room for it.
    ///
    /// # Errors
    /// [`RunnerError::Ended`] if its thread is gone.
    pub fn run(&mut self, room: Room, job: Job) -> Result<(), RunnerError> {
        self.runners[room.runner].run(job)
    }

    /// The next event, if there is one. The network is loaded when all runners have loaded it.
    ///
    /// # Errors
    /// [`RunnerError::Ended`] if a thread is gone, [`RunnerError::Start`] if there is none to be had.
    pub fn poll(&mut self) -> Result<Option<Event>, RunnerError> {
        for index in 0..self.runners.len() {
            match self.runners[index].poll()? {
                Some(Event::Loaded(Ok(loaded), took)) => {
                    if let Some((source, wake)) = self.spare.take() {
                        self.share(&loaded, &source, &wake)?;
                    }
                    let (first, before) = self.loaded.take().unwrap_or((loaded, Duration::ZERO));
                    let all = before + took;
                    if self.runners.iter().all(|runner| !runner.is_busy()) {
                        return Ok(Some(Event::Loaded(Ok(first), all)));
                    }
                    self.loaded = Some((first, all));
                }
                None => {}
                event => return Ok(event),
            }
        }
        Ok(None)
    }

    /// Starts the runners that share the cores, if the device is one that has several.
    fn share(&mut self, loaded: &Loaded, source: &Source, wake: &Wake) -> Result<(), RunnerError> {
        let threads = threads(source);
        if loaded.device != Device::Cpu || threads == 1 {
            return Ok(());
        }
        let count = threads.min(MOST_SHARING);
        let options = EncoderOptions { device: Device::Cpu, threads: threads / count, ..source.options };
        let graph = loaded.optimised.clone().map_or_else(|| source.graph.clone(), Graph::Optimised);
        for _ in 0..count {
            self.runners.push(Runner::start(Source { graph: graph.clone(), options, ..source.clone() }, wake.clone())?);
        }
        Ok(())
    }

    /// Where the images of all jobs come from, by job.
    pub fn in_flight(&self) -> impl Iterator<Item = &[usize]> {
        self.runners.iter().flat_map(Runner::in_flight)
    }

    /// Stops the jobs for whose places `is_abandoned` is true.
    pub fn stop_if(&self, is_abandoned: impl Fn(&[usize]) -> bool) {
        self.runners.iter().for_each(|runner| runner.stop_if(&is_abandoned));
    }

    /// Waits up to `patience` for the threads to end after their jobs were stopped; returns whether all have ended.
    pub fn end(&mut self, patience: Duration) -> bool {
        self.stop_if(|_| true);
        let deadline = Instant::now() + patience;
        self.runners.iter_mut().all(|runner| runner.end(deadline.saturating_duration_since(Instant::now())))
    }
}

/// Threads that a network has on the CPU.
fn threads(source: &Source) -> usize {
    match source.options.threads {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        threads => threads,
    }
}
