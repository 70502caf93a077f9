//! Waiting for another process or for a thread of this one.

use crate::error::{Result, SqlError};
use pgrx::pg_sys;
use pgrx::prelude::*;
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
    /// A connection waits for a free slot of the worker's queue.
    Queue,
    /// A connection waits for its own network.
    Network,
    /// The worker waits for something to do.
    WorkerMain,
    /// The background worker waits for photos, or a connection for the background worker.
    Background,
}

impl WaitEvent {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    pub fn number(self) -> u32 {
        // These versions do not let an extension name its events.
        pg_sys::PG_WAIT_EXTENSION
    }

    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    pub fn number(self) -> u32 {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NUMBERS: [AtomicU32; 5] = [const { AtomicU32::new(0) }; 5];
        let name = match self {
            Self::Worker => c"PgSketchWorker",
            Self::Queue => c"PgSketchQueue",
            Self::Network => c"PgSketchNetwork",
            Self::WorkerMain => c"PgSketchWorkerMain",
            Self::Background => c"PgSketchBackground",
        };
        let number = &NUMBERS[self as usize];
        if number.load(Relaxed) == 0 {
            // SAFETY: a constant, null-terminated name; a known name returns its number again.
            number.store(unsafe { pg_sys::WaitEventExtensionNew(name.as_ptr()) }, Relaxed);
        }
        number.load(Relaxed)
    }
}

/// Wakes the process's main thread, which alone may call the server, from any other.
pub struct Bell {
    ringer: Arc<UnixStream>,
    listener: UnixStream,
}

impl Bell {
    /// # Errors
    /// If the process has no file descriptors left.
    pub fn new() -> Result<Self> {
        let pair = || {
            let (ringer, listener) = UnixStream::pair()?;
            ringer.set_nonblocking(true)?;
            listener.set_nonblocking(true)?;
            Ok(Self { ringer: Arc::new(ringer), listener })
        };
        pair().map_err(|error: std::io::Error| {
            SqlError::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, "could not create a pair of sockets")
                .detail(format!("{error}."))
        })
    }

    /// The function that rings it.
    pub fn ringer(&self) -> Arc<dyn Fn() + Send + Sync> {
        let ringer = self.ringer.clone();
        Arc::new(move || {
            // If the socket is full, it has rung already.
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
    // Rounded up: 0 would not wait at all.
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

/// Waits until the bell rings, the latch is set or the time is over; handles cancels and terminations.
pub fn wait_for_bell(bell: &Bell, timeout: Duration, event: WaitEvent) {
    wait(Some(bell), timeout, event);
    pgrx::check_for_interrupts!();
}

/// Waits as [`wait_for_bell`], without a bell.
pub fn wait_for_latch(timeout: Duration, event: WaitEvent) {
    wait(None, timeout, event);
    pgrx::check_for_interrupts!();
}
