//! The parts of the server's shared memory that are ours: the postmaster reserves and initialises them.

use pgrx::pg_guard;
use pgrx::pg_sys;
use std::ffi::{CStr, c_void};
use std::sync::Mutex;

/// A part of the shared memory.
#[derive(Clone, Copy)]
pub struct Part {
    pub name: &'static CStr,
    /// Bytes, once the settings are known.
    pub size: fn() -> usize,
    /// Name of the tranche of its one LWLock, if it needs one.
    pub lock: Option<&'static CStr>,
    /// Takes its address, in the postmaster: at the start, and again after a crash of one of its children, when all shared
    /// memory is new.
    ///
    /// # Safety
    /// The memory is as long as `size`, aligned to cache lines, and to be written before it is read if `is_new`. No other
    /// process is there yet.
    pub attach: unsafe fn(memory: *mut c_void, is_new: bool),
}

static PARTS: Mutex<Vec<Part>> = Mutex::new(Vec::new());
static mut PREVIOUS_REQUEST_HOOK: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP_HOOK: pg_sys::shmem_startup_hook_type = None;

/// Adds a part. Only while the postmaster loads its libraries.
pub fn request(part: Part) {
    let mut parts = PARTS.lock().expect("nobody panics with it");
    if parts.is_empty() {
        // SAFETY: the postmaster has one thread, and calls each hook once its library is loaded.
        unsafe {
            PREVIOUS_REQUEST_HOOK = pg_sys::shmem_request_hook;
            pg_sys::shmem_request_hook = Some(request_hook);
            PREVIOUS_STARTUP_HOOK = pg_sys::shmem_startup_hook;
            pg_sys::shmem_startup_hook = Some(startup_hook);
        }
    }
    parts.push(part);
}

fn parts() -> Vec<Part> {
    PARTS.lock().expect("nobody panics with it").clone()
}

#[pg_guard]
unsafe extern "C-unwind" fn request_hook() {
    // SAFETY: the server calls this hook when it is ready for requests.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST_HOOK {
            previous();
        }
        for part in parts() {
            pg_sys::RequestAddinShmemSpace((part.size)());
            if let Some(tranche) = part.lock {
                pg_sys::RequestNamedLWLockTranche(tranche.as_ptr(), 1);
            }
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn startup_hook() {
    // SAFETY: the server calls this hook when its shared memory is there.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP_HOOK {
            previous();
        }
        for part in parts() {
            let mut found = false;
            let memory = pg_sys::ShmemInitStruct(part.name.as_ptr(), (part.size)(), &mut found);
            (part.attach)(memory, !found);
        }
    }
}

/// The LWLock of a part.
///
/// # Safety
/// The part has asked for it, and is being attached.
pub unsafe fn lock(tranche: &CStr) -> *mut pg_sys::LWLock {
    // SAFETY: a tranche has as many locks as were asked for.
    unsafe { &raw mut (*pg_sys::GetNamedLWLockTranche(tranche.as_ptr())).lock }
}
