//! A thread that holds one network and runs batches through it, so that who asks can do something else meanwhile:
//! prepare the next images, handle signals, or stop the run.

use crate::inference::encoder::{Device, Domain, Encoder, EncoderError, EncoderOptions, Optimised, Stop};
use crate::inference::runtime;
use crate::manifest::Manifest;
use crate::simd::to_f16;
use half::f16;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thiserror::Error;

/// What a runner needs to load a network.
#[derive(Clone)]
pub struct Source {
    /// The ONNX Runtime library, if it is not loaded yet.
    pub runtime: PathBuf,
    pub graph: Graph,
    pub manifest: Manifest,
    pub options: EncoderOptions,
}

/// A network's graph.
#[derive(Clone)]
pub enum Graph {
    Onnx(Arc<[u8]>),
    /// Optimised by another runner, whose weights are shared.
    Optimised(Optimised),
}

/// Images to be embedded, as the network takes them: whoever makes a job does so while the one before runs.
pub struct Job {
    /// Of each image: where the caller has it from.
    places: Vec<usize>,
    /// Of each image.
    domains: Vec<Domain>,
    /// Shape `(images, 3, size, size)`, row-major.
    tensor: Vec<f32>,
    stop: Stop,
}

impl Job {
    /// A job without images. The runner that it is for has loaded its network.
    ///
    /// # Errors
    /// [`EncoderError::Run`] if ONNX Runtime is out of memory.
    pub fn new() -> Result<Self, EncoderError> {
        Ok(Self { places: Vec::new(), domains: Vec::new(), tensor: Vec::new(), stop: Stop::new()? })
    }

    /// Adds an image. `place`: where the caller has it from; `pixels`: as [`Manifest::render_photo`] draws them.
    ///
    /// # Errors
    /// [`EncoderError::Batch`] if they are not as many as the network takes; the job is as before.
    pub fn push(
        &mut self,
        place: usize,
        domain: Domain,
        manifest: &Manifest,
        pixels: &[u8],
    ) -> Result<(), EncoderError> {
        let expected = manifest.input_len();
        if pixels.len() != expected {
            return Err(EncoderError::Batch { images: 1, found: pixels.len(), expected });
        }
        manifest.normalise_into(pixels, &mut self.tensor);
        self.places.push(place);
        self.domains.push(domain);
        Ok(())
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.domains.len()
    }

    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }
}

/// What a runner reports.
pub enum Event {
    /// The network is loaded, after so long, or is not.
    Loaded(Result<Loaded, EncoderError>, Duration),
    /// A job is done: for each image its place, and an embedding or an error.
    Done { embeddings: Vec<(usize, Result<Vec<f16>, EncoderError>)>, took: Duration },
}

/// A network that is ready.
#[derive(Clone)]
pub struct Loaded {
    pub device: Device,
    /// Why `auto` fell back to the CPU, if it did.
    pub fallback: Option<String>,
    /// What other runners of the same network share, if its weights can be shared.
    pub optimised: Option<Optimised>,
}

/// The runner's thread is gone.
#[derive(Debug, Error)]
pub enum RunnerError {
    #[error("could not start a thread to run the network")]
    Start(#[source] std::io::Error),
    #[error("thread that runs the network has ended")]
    Ended,
}

/// Called for every event of a runner.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A thread with a network. Dropping it stops what runs, and frees the network.
pub struct Runner {
    jobs: Option<Sender<Job>>,
    events: Receiver<Event>,
    thread: Option<JoinHandle<()>>,
    is_loading: bool,
    /// Of each job without an event so far, the oldest first: what stops it, and where its images come from.
    in_flight: VecDeque<(Stop, Vec<usize>)>,
}

/// Jobs that a runner may have: one that runs, and the next.
const MOST_IN_FLIGHT: usize = 2;

impl Runner {
    /// Starts the thread, which loads the network, reports that, and waits for jobs.
    ///
    /// The thread, and those that ONNX Runtime starts for it, inherit the caller's signal mask. What [`runtime::init`]
    /// asks of the environment is done before.
    ///
    /// # Errors
    /// [`RunnerError::Start`] if there is no thread to be had.
    pub fn start(source: Source, wake: Wake) -> Result<Self, RunnerError> {
        let (jobs, inbox) = channel();
        let (outbox, events) = channel();
        LIVE_THREADS.fetch_add(1, AcqRel);
        let thread = std::thread::Builder::new()
            .name("pg_sketch runner".to_owned())
            .spawn(move || {
                let _end = OnEnd(wake.clone());
                serve(source, &inbox, &outbox, &wake);
            })
            .map_err(|error| {
                LIVE_THREADS.fetch_sub(1, AcqRel);
                RunnerError::Start(error)
            })?;
        Ok(Self { jobs: Some(jobs), events, thread: Some(thread), is_loading: true, in_flight: VecDeque::new() })
    }

    /// Whether the runner still loads the network.
    pub fn is_loading(&self) -> bool {
        self.is_loading
    }

    /// Whether the runner still loads the network, or has a job.
    pub fn is_busy(&self) -> bool {
        self.is_loading || !self.in_flight.is_empty()
    }

    /// Whether the runner takes a job: it has loaded its network, and no job waits for another to end.
    pub fn has_room(&self) -> bool {
        !self.is_loading && self.in_flight.len() < MOST_IN_FLIGHT
    }

    /// Gives the runner a job, which begins at once or when the one that runs has ended; events come in the same order.
    ///
    /// # Errors
    /// [`RunnerError::Ended`] if its thread is gone.
    pub fn run(&mut self, job: Job) -> Result<(), RunnerError> {
        debug_assert!(self.has_room(), "the runner has as many jobs as it takes");
        self.in_flight.push_back((job.stop.clone(), job.places.clone()));
        let jobs = self.jobs.as_ref().ok_or(RunnerError::Ended)?;
        jobs.send(job).map_err(|_| RunnerError::Ended)
    }

    /// Where the images of each job come from, the oldest first.
    pub fn in_flight(&self) -> impl Iterator<Item = &[usize]> {
        self.in_flight.iter().map(|(_, places)| places.as_slice())
    }

    /// Stops the jobs for whose places `is_abandoned` is true: their images end as [`EncoderError::Stopped`], unless they
    /// were done just then.
    pub fn stop_if(&self, is_abandoned: impl Fn(&[usize]) -> bool) {
        let abandoned = self.in_flight.iter().filter(|(_, places)| is_abandoned(places));
        abandoned.for_each(|(stop, _)| stop.stop());
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    /// [`RunnerError::Ended`] if the thread is gone.
    pub fn poll(&mut self) -> Result<Option<Event>, RunnerError> {
        match self.events.try_recv() {
            Ok(event) => {
                match event {
                    Event::Loaded(..) => self.is_loading = false,
                    Event::Done { .. } => drop(self.in_flight.pop_front()),
                }
                Ok(Some(event))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(RunnerError::Ended),
        }
    }

    /// Waits up to `patience` for the thread to end after its jobs were stopped; returns whether it has ended.
    pub fn end(&mut self, patience: Duration) -> bool {
        self.jobs = None;
        self.stop_if(|_| true);
        let deadline = Instant::now() + patience;
        while let Some(thread) = &self.thread {
            if thread.is_finished() {
                self.thread = None;
            } else if Instant::now() >= deadline {
                return false;
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        true
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.jobs = None;
        self.stop_if(|_| true);
    }
}

/// Threads of all runners of this process that have not ended, dropped runners included.
pub fn live_threads() -> usize {
    LIVE_THREADS.load(Acquire)
}

static LIVE_THREADS: AtomicUsize = AtomicUsize::new(0);

/// What a thread does last, even after a panic: it wakes whoever waits for it.
struct OnEnd(Wake);

impl Drop for OnEnd {
    fn drop(&mut self) {
        (self.0)();
        LIVE_THREADS.fetch_sub(1, Release);
    }
}

fn serve(source: Source, inbox: &Receiver<Job>, outbox: &Sender<Event>, wake: &Wake) {
    // Returns whether the runner is still there.
    let send = |event| {
        let sent = outbox.send(event).is_ok();
        wake();
        sent
    };
    let started = Instant::now();
    let Source { runtime, graph, manifest, options } = source;
    let load = || -> Result<Encoder, EncoderError> {
        runtime::init(&runtime)?;
        match &graph {
            Graph::Onnx(onnx) => Encoder::load(onnx, &manifest, &options),
            Graph::Optimised(optimised) => Encoder::load_optimised(optimised, &manifest, &options),
        }
    };
    let loaded = catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(panicked);
    drop(graph);
    let mut encoder = match loaded {
        Ok(encoder) => encoder,
        Err(error) => {
            send(Event::Loaded(Err(error), started.elapsed()));
            return;
        }
    };
    let ready = Loaded {
        device: encoder.device(),
        fallback: encoder.fallback().map(str::to_owned),
        optimised: encoder.optimised().cloned(),
    };
    if !send(Event::Loaded(Ok(ready), started.elapsed())) {
        return;
    }
    while let Ok(job) = inbox.recv() {
        let started = Instant::now();
        let embeddings = job.places.iter().copied().zip(embed(&mut encoder, &job)).collect();
        if !send(Event::Done { embeddings, took: started.elapsed() }) {
            return;
        }
    }
}

/// What a panic in ONNX Runtime's binding, or in our own code, becomes.
fn panicked<T>(_: Box<dyn std::any::Any + Send>) -> Result<T, EncoderError> {
    Err(EncoderError::Run(ort::Error::new("the runner panicked")))
}

/// Embeds the images of a job together; if that fails, each for itself, so that one cannot spoil the others.
fn embed(encoder: &mut Encoder, job: &Job) -> Vec<Result<Vec<f16>, EncoderError>> {
    match embed_batch(encoder, &job.domains, &job.tensor, &job.stop) {
        Ok(embeddings) => embeddings,
        Err(error) if job.len() == 1 => vec![Err(error)],
        Err(_) => {
            let alone = |(domain, image): (&Domain, &[f32])| {
                let embeddings = embed_batch(encoder, &[*domain], image, &job.stop);
                embeddings.and_then(|mut embeddings| embeddings.pop().unwrap_or(Err(EncoderError::NotFinite)))
            };
            job.domains.iter().zip(job.tensor.chunks_exact(job.tensor.len() / job.len())).map(alone).collect()
        }
    }
}

fn embed_batch(
    encoder: &mut Encoder,
    domains: &[Domain],
    tensor: &[f32],
    stop: &Stop,
) -> Result<Vec<Result<Vec<f16>, EncoderError>>, EncoderError> {
    let run = || encoder.encode_stoppable(domains, tensor, stop);
    let rows = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(panicked)?;
    let half = |row: ndarray::ArrayView1<'_, f32>| {
        if row.iter().all(|x| x.is_finite()) {
            Ok(to_f16(row.to_slice().expect("row-major")))
        } else {
            Err(EncoderError::NotFinite)
        }
    };
    Ok(rows.outer_iter().map(half).collect())
}
