//! A network that runs in this connection, on a thread of its own: meanwhile the connection prepares the next images, and
//! handles cancels.

use super::stat;
use super::wait::{Bell, WaitEvent, wait_for_bell};
use crate::error::Result;
use crate::process::{self, SignalsBlocked};
use crate::settings;
use half::f16;
use pgrx::pg_guard;
use pgrx::pg_sys;
use sketch_model::inference::encoder::{Domain, EncoderError, EncoderOptions};
use sketch_model::inference::runner::{self, Event, Graph, Job, Loaded, Runner, Source};
use sketch_model::inference::stat::{Entry, Key, Place};
use sketch_model::manifest::Manifest;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Longest wait between two polls of the runner, which rings for every event.
const POLL: Duration = Duration::from_secs(10);
/// How long a connection that ends waits for its networks to stop.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// What the process ends with.
static EXIT_CODE: AtomicI32 = AtomicI32::new(0);

thread_local! {
    /// All runners of this process, so that none runs when it ends.
    static RUNNERS: RefCell<Vec<Weak<RefCell<Runner>>>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// A loaded network.
pub struct Local {
    id: u32,
    runner: Rc<RefCell<Runner>>,
    bell: Bell,
    manifest: Manifest,
    loaded: Loaded,
}

/// Stops the run when its connection no longer waits for it.
struct Running<'a>(&'a RefCell<Runner>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Ok(runner) = self.0.try_borrow()
            && runner.is_busy()
        {
            runner.stop_if(|_| true);
        }
    }
}

impl Local {
    /// Loads a graph, after the ONNX Runtime library if that is not there yet.
    ///
    /// # Errors
    /// If the library or the device is missing, or the graph does not load.
    pub fn load(id: u32, onnx: Vec<u8>, manifest: &Manifest, options: EncoderOptions) -> Result<Self> {
        let bell = Bell::new()?;
        let source = Source {
            runtime: settings::onnxruntime(),
            graph: Graph::Onnx(onnx.into()),
            manifest: manifest.clone(),
            options,
        };
        process::disable_telemetry();
        let runner = {
            let _signals = SignalsBlocked::new();
            Rc::new(RefCell::new(Runner::start(source, bell.ringer())?))
        };
        register(&runner);
        match wait(&runner, &bell)? {
            Event::Loaded(outcome, _) => {
                process::release_free_memory();
                Ok(Self { id, loaded: outcome?, manifest: manifest.clone(), runner, bell })
            }
            Event::Done { .. } => unreachable!("a runner loads first"),
        }
    }

    pub fn loaded(&self) -> Loaded {
        self.loaded.clone()
    }

    /// As [`super::Embedder::embed_all`].
    ///
    /// # Errors
    /// As there.
    pub fn embed_all(
        &mut self,
        domain: Domain,
        next: &mut dyn FnMut() -> Result<Option<Vec<u8>>>,
        done: &mut dyn FnMut(Vec<f16>) -> Result<()>,
    ) -> Result<()> {
        // An abandoned run has not ended yet.
        while self.runner.borrow().is_busy() {
            wait(&self.runner, &self.bell)?;
        }
        let key = Key { model: self.id, device: self.loaded.device, place: Place::Connection };
        let entry = stat::table().entry(key);
        Entry::add(&entry.requests, 1);
        let max_batch = settings::batch_policy().max_batch;
        let manifest = &self.manifest;
        let mut fill = || -> Result<Job> {
            let mut job = Job::new()?;
            while job.len() < max_batch
                && let Some(pixels) = next()?
            {
                job.push(job.len(), domain, manifest, &pixels)?;
            }
            Ok(job)
        };
        let mut job = fill()?;
        while !job.is_empty() {
            let running = Running(&self.runner);
            self.runner.borrow_mut().run(job)?;
            // While one batch runs, the next is prepared.
            job = fill()?;
            let event = wait(&self.runner, &self.bell)?;
            drop(running);
            let Event::Done { embeddings, took } = event else { unreachable!("a runner loads once") };
            Entry::add(&entry.batches, 1);
            Entry::add(&entry.run, took.as_micros() as u64);
            for (_, embedding) in embeddings {
                let counter = if embedding.is_ok() { &entry.images } else { &entry.errors };
                Entry::add(counter, 1);
                done(embedding?)?;
            }
        }
        Ok(())
    }
}

/// Waits for the runner's next event; handles cancels and terminations.
fn wait(runner: &RefCell<Runner>, bell: &Bell) -> Result<Event> {
    loop {
        if let Some(event) = runner.borrow_mut().poll().map_err(|_| EncoderError::Stopped)? {
            return Ok(event);
        }
        wait_for_bell(bell, POLL, WaitEvent::Network);
    }
}

/// Makes sure that the runner ends before the process does.
fn register(runner: &Rc<RefCell<Runner>>) {
    RUNNERS.with_borrow_mut(|runners| {
        runners.retain(|runner| runner.strong_count() > 0);
        runners.push(Rc::downgrade(runner));
    });
    if !REGISTERED.replace(true) {
        // SAFETY: the callback matches, and takes no argument.
        unsafe { pg_sys::on_proc_exit(Some(stop_runners), pg_sys::Datum::null()) };
    }
}

/// Stops all runners. The process holds no lock any more, and waits for them last of all.
#[pg_guard]
unsafe extern "C-unwind" fn stop_runners(code: i32, _arg: pg_sys::Datum) {
    for runner in RUNNERS.take().iter().filter_map(Weak::upgrade) {
        if let Ok(mut runner) = runner.try_borrow_mut() {
            runner.end(Duration::ZERO);
        }
    }
    EXIT_CODE.store(code, Relaxed);
    // SAFETY: the callback matches. It runs before those that libraries registered when they were loaded.
    unsafe { libc::atexit(exit_without_handlers) };
}

/// Ends the process at once if a network does not stop in time: exit handlers of ONNX Runtime would free what its threads
/// still use.
extern "C" fn exit_without_handlers() {
    let deadline = Instant::now() + SHUTDOWN;
    while runner::live_threads() > 0 {
        if Instant::now() >= deadline {
            // SAFETY: ends the process; the server has done all that it does at exit.
            unsafe { libc::_exit(EXIT_CODE.load(Relaxed)) };
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
