//! A network that runs in this backend, on a thread of its own: meanwhile the backend prepares the next images, and heeds
//! cancels.

use crate::error::{Result, SqlError};
use crate::process::{self, SignalsBlocked};
use crate::serve::{Bell, WaitEvent, stat_table, wait_for_bell};
use crate::settings;
use half::f16;
use pgrx::pg_guard;
use pgrx::pg_sys;
use pgrx::prelude::*;
use sketch_model::inference::encoder::{Domain, EncoderError, EncoderOptions};
use sketch_model::inference::runner::{Event, Graph, Job, Loaded, Runner, Source};
use sketch_model::inference::stat::{Entry, Key, Place};
use sketch_model::manifest::Manifest;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Longest wait between two looks at the runner, which rings when it has something to say.
const LOOK: Duration = Duration::from_secs(10);
/// How long a backend that ends waits for its networks to stop.
const FAREWELL: Duration = Duration::from_secs(2);

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

/// Stops what runs when its backend no longer waits for it.
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
        let bell = Bell::new().map_err(|error| {
            SqlError::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, "could not make a pair of sockets")
                .detail(format!("{error}."))
        })?;
        let source = Source {
            runtime: settings::onnxruntime(),
            graph: Graph::Onnx(onnx.into()),
            manifest: manifest.clone(),
            options,
            tuning: settings::tuning(manifest),
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

    /// As [`super::Network::embed_all`].
    ///
    /// # Errors
    /// As there.
    pub fn embed_all(
        &mut self,
        domain: Domain,
        next: &mut dyn FnMut() -> Result<Option<Vec<u8>>>,
        done: &mut dyn FnMut(Vec<f16>) -> Result<()>,
    ) -> Result<()> {
        // A run that was given up is still on its way out.
        while self.runner.borrow().is_busy() {
            wait(&self.runner, &self.bell)?;
        }
        let key = Key { model: self.id, device: self.loaded.device, place: Place::Connection };
        let entry = stat_table().entry(key);
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

/// Waits for the runner's next event; cancels and terminates as asked.
fn wait(runner: &RefCell<Runner>, bell: &Bell) -> Result<Event> {
    loop {
        if let Some(event) = runner.borrow_mut().poll().map_err(|_| EncoderError::Stopped)? {
            return Ok(event);
        }
        wait_for_bell(bell, LOOK, WaitEvent::Network);
    }
}

/// Sees to it that the runner has ended before the process does.
fn register(runner: &Rc<RefCell<Runner>>) {
    RUNNERS.with_borrow_mut(|runners| {
        runners.retain(|runner| runner.strong_count() > 0);
        runners.push(Rc::downgrade(runner));
    });
    if !REGISTERED.replace(true) {
        // SAFETY: the callback matches, and takes no argument.
        unsafe { pg_sys::before_shmem_exit(Some(end_all), pg_sys::Datum::null()) };
    }
}

/// Exit handlers of libraries free what threads of ONNX Runtime may still use.
#[pg_guard]
unsafe extern "C-unwind" fn end_all(_code: i32, _arg: pg_sys::Datum) {
    for runner in RUNNERS.take().iter().filter_map(Weak::upgrade) {
        if let Ok(mut runner) = runner.try_borrow_mut() {
            runner.end(FAREWELL);
        }
    }
}
