//! Waiting: for the worker, for a slot, for a thread of this process.

use pgrx::pg_sys;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// What `pg_stat_activity` says of a process that waits.
#[derive(Clone, Copy)]
pub enum WaitEvent {
    /// A connection waits for the worker's answer.
    Worker,
    /// A connection waits for a place in the worker's queue.
    Queue,
    /// A connection waits for its own network.
    Network,
    /// The worker waits for something to do.
    WorkerMain,
}

impl WaitEvent {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    fn number(self) -> u32 {
        // These versions know no names of extensions' own.
        pg_sys::PG_WAIT_EXTENSION
    }

    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    fn number(self) -> u32 {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NUMBERS: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];
        let name = match self {
            Self::Worker => c"PgSketchWorker",
            Self::Queue => c"PgSketchQueue",
            Self::Network => c"PgSketchNetwork",
            Self::WorkerMain => c"PgSketchWorkerMain",
        };
        let number = &NUMBERS[self as usize];
        if number.load(Relaxed) == 0 {
            // SAFETY: a constant, null-terminated name; a name that is known already gives its number again.
            number.store(unsafe { pg_sys::WaitEventExtensionNew(name.as_ptr()) }, Relaxed);
        }
        number.load(Relaxed)
    }
}

/// What a thread rings to wake the process's own thread, which alone may call the server.
pub struct Bell {
    ringer: Arc<UnixStream>,
    listener: UnixStream,
}

impl Bell {
    /// # Errors
    /// If the process has no file descriptors left.
    pub fn new() -> std::io::Result<Self> {
        let (ringer, listener) = UnixStream::pair()?;
        ringer.set_nonblocking(true)?;
        listener.set_nonblocking(true)?;
        Ok(Self { ringer: Arc::new(ringer), listener })
    }

    /// What rings it.
    pub fn ringer(&self) -> Arc<dyn Fn() + Send + Sync> {
        let ringer = self.ringer.clone();
        Arc::new(move || {
            // A pipe that is full has rung.
            let _ = (&*ringer).write(&[1]);
        })
    }

    /// Silences it.
    fn silence(&self) {
        let mut rings = [0; 64];
        while matches!((&self.listener).read(&mut rings), Ok(length) if length == rings.len()) {}
    }
}

fn wait(bell: Option<&Bell>, timeout: Duration, event: WaitEvent) {
    let mut wake = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    if bell.is_some() {
        wake |= pg_sys::WL_SOCKET_READABLE;
    }
    let socket = bell.map_or(pg_sys::PGINVALID_SOCKET, |bell| bell.listener.as_raw_fd());
    // Less than a millisecond would be none.
    let timeout = timeout.as_micros().div_ceil(1000) as std::ffi::c_long;
    // SAFETY: the process's own latch, and a socket that lives longer than the call.
    unsafe {
        pg_sys::WaitLatchOrSocket(pg_sys::MyLatch, wake as i32, socket, timeout, event.number());
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    if let Some(bell) = bell {
        bell.silence();
    }
}

/// Waits until the bell rings, the latch is set or time is over; cancels and terminates as asked.
pub fn wait_for_bell(bell: &Bell, timeout: Duration, event: WaitEvent) {
    wait(Some(bell), timeout, event);
    pgrx::check_for_interrupts!();
}

/// The same without a bell.
pub fn wait_for_latch(timeout: Duration, event: WaitEvent) {
    wait(None, timeout, event);
    pgrx::check_for_interrupts!();
}

/// Waits until a slot may be free, or for so long; cancels and terminates as asked.
pub fn wait_for_slot(shared: super::shared::Shared, timeout: Duration) {
    let timeout = timeout.as_millis().max(1) as std::ffi::c_long;
    // SAFETY: initialised by the postmaster; an ERROR on the way takes the process off the list of those who wait.
    unsafe { pg_sys::ConditionVariableTimedSleep(shared.free_slots(), timeout, WaitEvent::Queue.number()) };
}

/// Ends [`wait_for_slot`], which is called in a loop.
pub fn stop_waiting_for_slot() {
    // SAFETY: does nothing if this process does not wait.
    unsafe {
        pg_sys::ConditionVariableCancelSleep();
    }
}
