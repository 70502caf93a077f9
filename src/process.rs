//! The process beside the server's code in it: signals, environment, memory.
//!
//! The server's signal handlers must run on its own thread.

/// More than a batch of images takes, which comes and goes all the time; less than the weights of a network.
#[cfg(target_env = "gnu")]
const LARGE_BLOCK: i32 = 4 << 20;

/// Blocks all signals while it lives; threads that are started meanwhile inherit that.
pub struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    pub fn new() -> Self {
        // SAFETY: both sets are initialised before they are read.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self(before)
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the mask is the one that was in force before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// Keeps ONNX Runtime from sending telemetry: builds from 1.30 on do, from a thread of their own, unless they find this
/// when they are loaded.
pub fn disable_telemetry() {
    if std::env::var_os("ORT_DISABLE_TELEMETRY").is_none() {
        // SAFETY: a process of the server has one thread until ONNX Runtime is loaded, which comes after this.
        unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    }
}

/// Gives large blocks of memory back to the system as soon as they are freed: else each thread keeps what it once needed.
pub fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time; blocks that are there stay as they are.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK);
    }
}

/// Gives memory that is free back to the system: loading a network takes several times its size for a moment.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
