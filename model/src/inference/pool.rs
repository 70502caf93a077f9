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
    /// What the others are made of, until one has loaded whose weights they share.
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
        let alone = Self::start_alone(Source { options, ..source.clone() }, wake.clone())?;
        Ok(Self { spare: Some((source, wake)), ..alone })
    }

    /// Starts to load a network with one runner, which has all threads; [`Pool::grow`] adds the others.
    ///
    /// # Errors
    /// [`RunnerError::Start`] if there is no thread to be had.
    pub fn start_alone(source: Source, wake: Wake) -> Result<Self, RunnerError> {
        Ok(Self { runners: vec![Runner::start(source, wake)?], spare: None, loaded: None })
    }

    /// Starts to load runners that share the cores, if there are several, for a network on the CPU. They take jobs as soon as
    /// they have loaded.
    ///
    /// # Errors
    /// [`RunnerError::Start`] if there is no thread to be had.
    pub fn grow(&mut self, source: Source, wake: Wake) -> Result<(), RunnerError> {
        if threads(&source) == 1 {
            return Ok(());
        }
        let options = EncoderOptions { share_weights: true, ..sharing(&source) };
        self.runners.push(Runner::start(Source { options, ..source.clone() }, wake.clone())?);
        self.spare = Some((source, wake));
        Ok(())
    }

    /// Whether some runner has a job.
    pub fn has_jobs(&self) -> bool {
        self.in_flight().next().is_some()
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
        if sharing.iter().all(Runner::is_loading) || (waiting == 1 && !self.has_jobs()) {
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

    /// The next event, if there is one. The network is loaded when all runners have loaded it, and again when it has grown.
    /// A runner that could not be added is gone.
    ///
    /// # Errors
    /// [`RunnerError::Ended`] if a thread is gone.
    pub fn poll(&mut self) -> Result<Option<Event>, RunnerError> {
        for index in 0..self.runners.len() {
            match self.runners[index].poll()? {
                Some(Event::Loaded(Ok(loaded), took)) => {
                    if let Some((source, wake)) = self.spare.take() {
                        self.share(&loaded, &source, &wake);
                    }
                    let (first, all) = self.loaded.get_or_insert((loaded, Duration::ZERO));
                    *all += took;
                    if !self.runners.iter().any(Runner::is_loading) {
                        return Ok(Some(Event::Loaded(Ok(first.clone()), *all)));
                    }
                }
                Some(Event::Loaded(Err(error), took)) => {
                    if index > 0 {
                        self.runners.remove(index);
                        self.spare = None;
                    }
                    return Ok(Some(Event::Loaded(Err(error), took)));
                }
                None => {}
                event => return Ok(event),
            }
        }
        Ok(None)
    }

    /// Starts the runners that share the cores and are not there yet, if the device is one that has several: as many as there
    /// are threads to be had.
    fn share(&mut self, loaded: &Loaded, source: &Source, wake: &Wake) {
        if loaded.device != Device::Cpu || threads(source) == 1 {
            return;
        }
        let graph = loaded.optimised.clone().map_or_else(|| source.graph.clone(), Graph::Optimised);
        let shared = Source { graph, options: sharing(source), ..source.clone() };
        while self.runners.len() <= sharing_runners(source)
            && let Ok(runner) = Runner::start(shared.clone(), wake.clone())
        {
            self.runners.push(runner);
        }
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
        let deadline = Instant::now() + patience;
        // All are told before the first is waited for.
        for runner in &mut self.runners {
            runner.end(Duration::ZERO);
        }
        self.runners.iter_mut().all(|runner| runner.end(deadline.saturating_duration_since(Instant::now())))
    }
}

/// Number of runners that share the cores.
fn sharing_runners(source: &Source) -> usize {
    threads(source).min(MOST_SHARING)
}

/// How each of them runs.
fn sharing(source: &Source) -> EncoderOptions {
    let threads = threads(source) / sharing_runners(source);
    EncoderOptions { device: Device::Cpu, threads, ..source.options }
}

/// Threads that a network has on the CPU.
fn threads(source: &Source) -> usize {
    match source.options.threads {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        threads => threads,
    }
}
