//! A thread that holds one network and runs batches through it, so that who asks can do something else meanwhile:
//! prepare the next images, heed signals, or stop the run.

use crate::distance::to_f16;
use crate::encoder::{Device, Domain, Encoder, EncoderError, EncoderOptions, Stop, Tuning};
use crate::manifest::Manifest;
use crate::runtime;
use half::f16;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thiserror::Error;

/// What a runner needs to load a network.
pub struct Source {
    /// The ONNX Runtime library, if it is not loaded yet.
    pub runtime: PathBuf,
    pub onnx: Vec<u8>,
    pub manifest: Manifest,
    pub options: EncoderOptions,
    pub tuning: Tuning,
}

/// Images of one domain to be embedded.
pub struct Job {
    pub domain: Domain,
    /// Pixels of each image, as [`Manifest::render_photo`] draws them.
    pub images: Vec<Vec<u8>>,
}

/// What a runner has to say.
pub enum Event {
    /// The network is loaded, after so long, or is not.
    Loaded(Result<Loaded, EncoderError>, Duration),
    /// A job is done: one embedding or error for each image.
    Done { embeddings: Vec<Result<Vec<f16>, EncoderError>>, took: Duration },
}

/// A network that is ready.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub device: Device,
    /// Why `auto` fell back to the CPU, if it did.
    pub fallback: Option<String>,
}

/// The runner's thread is gone.
#[derive(Debug, Error)]
pub enum RunnerError {
    #[error("could not start a thread to run the network")]
    Start(#[source] std::io::Error),
    #[error("thread that runs the network has ended")]
    Ended,
}

/// Told whenever a runner has something to say.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A thread with a network. Dropping it stops what runs, and frees the network.
pub struct Runner {
    jobs: Option<Sender<Job>>,
    events: Receiver<Event>,
    stop: Arc<OnceLock<Stop>>,
    thread: Option<JoinHandle<()>>,
    is_busy: bool,
}

impl Runner {
    /// Starts the thread, which loads the network and says so, and then waits for jobs.
    ///
    /// The thread, and those that ONNX Runtime starts for it, inherit the caller's signal mask. What [`runtime::init`]
    /// asks of the environment is done before.
    ///
    /// # Errors
    /// [`RunnerError::Start`] if there is no thread to be had.
    pub fn start(source: Source, wake: Wake) -> Result<Self, RunnerError> {
        let (jobs, inbox) = channel();
        let (outbox, events) = channel();
        let stop = Arc::new(OnceLock::new());
        let shared = stop.clone();
        let thread = std::thread::Builder::new()
            .name("pg_sketch runner".to_owned())
            .spawn(move || {
                // Whoever waits is told of the end, too, however it comes.
                let _farewell = Farewell(wake.clone());
                serve(source, &inbox, &outbox, &shared, &wake);
            })
            .map_err(RunnerError::Start)?;
        Ok(Self { jobs: Some(jobs), events, stop, thread: Some(thread), is_busy: true })
    }

    /// Whether the runner still loads the network, or runs a job.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Gives the runner a job; one at a time.
    ///
    /// # Errors
    /// [`RunnerError::Ended`] if its thread is gone.
    pub fn run(&mut self, job: Job) -> Result<(), RunnerError> {
        debug_assert!(!self.is_busy, "a runner has one job at a time");
        // Who stopped the last job did so before it saw its end.
        if let Some(stop) = self.stop.get() {
            stop.rearm();
        }
        let jobs = self.jobs.as_ref().ok_or(RunnerError::Ended)?;
        jobs.send(job).map_err(|_| RunnerError::Ended)?;
        self.is_busy = true;
        Ok(())
    }

    /// Stops the job that runs: its images end as [`EncoderError::Stopped`], unless they were done just then.
    pub fn stop(&self) {
        if let Some(stop) = self.stop.get() {
            stop.stop();
        }
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    /// [`RunnerError::Ended`] if the thread is gone.
    pub fn poll(&mut self) -> Result<Option<Event>, RunnerError> {
        match self.events.try_recv() {
            Ok(event) => {
                self.is_busy = false;
                Ok(Some(event))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(RunnerError::Ended),
        }
    }

    /// Waits up to `patience` for the thread to end after its job was stopped; returns whether it has ended.
    pub fn end(&mut self, patience: Duration) -> bool {
        self.jobs = None;
        self.stop();
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
        self.stop();
    }
}

struct Farewell(Wake);

impl Drop for Farewell {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn serve(source: Source, inbox: &Receiver<Job>, outbox: &Sender<Event>, shared: &OnceLock<Stop>, wake: &Wake) {
    let say = |event| {
        let heard = outbox.send(event).is_ok();
        wake();
        heard
    };
    let started = Instant::now();
    let Source { runtime, onnx, manifest, options, tuning } = source;
    let load = || -> Result<(Encoder, Stop), EncoderError> {
        runtime::init(&runtime)?;
        Ok((Encoder::load_tuned(&onnx, &manifest, &options, &tuning)?, Stop::new()?))
    };
    let loaded = load();
    drop(onnx);
    let (mut encoder, stop) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            say(Event::Loaded(Err(error), started.elapsed()));
            return;
        }
    };
    let _ = shared.set(stop.clone());
    let ready = Loaded { device: encoder.device(), fallback: encoder.fallback().map(str::to_owned) };
    if !say(Event::Loaded(Ok(ready), started.elapsed())) {
        return;
    }
    while let Ok(job) = inbox.recv() {
        let started = Instant::now();
        let embeddings = embed(&mut encoder, &manifest, &job, &stop);
        if !say(Event::Done { embeddings, took: started.elapsed() }) {
            return;
        }
    }
}

/// Embeds the images of a job together; if that fails, each for itself, so that one cannot spoil the others.
fn embed(encoder: &mut Encoder, manifest: &Manifest, job: &Job, stop: &Stop) -> Vec<Result<Vec<f16>, EncoderError>> {
    let together: Vec<&[u8]> = job.images.iter().map(Vec::as_slice).collect();
    match embed_batch(encoder, manifest, job.domain, &together, stop) {
        Ok(embeddings) => embeddings,
        Err(error) if together.len() == 1 => vec![Err(error)],
        Err(_) => {
            let alone = |image| {
                let embeddings = embed_batch(encoder, manifest, job.domain, &[image], stop);
                embeddings.and_then(|mut embeddings| embeddings.pop().unwrap_or(Err(EncoderError::NotFinite)))
            };
            together.into_iter().map(alone).collect()
        }
    }
}

fn embed_batch(
    encoder: &mut Encoder,
    manifest: &Manifest,
    domain: Domain,
    images: &[&[u8]],
    stop: &Stop,
) -> Result<Vec<Result<Vec<f16>, EncoderError>>, EncoderError> {
    let run = || {
        let mut tensor = Vec::with_capacity(images.len() * manifest.input_len());
        images.iter().for_each(|image| manifest.normalise_into(image, &mut tensor));
        encoder.encode_stoppable(domain, tensor, images.len(), stop)
    };
    let panicked = |_| Err(EncoderError::Run(ort::Error::new("the runner panicked")));
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
