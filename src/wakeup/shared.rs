//! The memory that launcher, workers and connections share: one place for each database with background galleries.

use super::Wanted;
use crate::shared_memory::{self, Part};
use pgrx::pg_sys;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

/// Databases that can have background galleries.
const PLACES: usize = 512;
/// How often the launcher has a look at a database that has background galleries and did not ask for one: what a prepared
/// transaction left in its queue, and what is to be retried.
const LOOK: Duration = Duration::from_secs(60);
/// How long a database waits for a new worker after one has failed.
const RESTART: Duration = Duration::from_secs(2);
/// How many workers of a database may fail in a row before it waits for [`LOOK`].
const FAILURES: u32 = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A worker is to be started at [`Place::start_at`].
    Waiting,
    Started,
}

#[derive(Clone, Copy)]
struct Place {
    /// 0 in a free place.
    database: pg_sys::Oid,
    state: State,
    start_at: pg_sys::TimestampTz,
    /// When galleries are to be maintained although nobody has written to them.
    maintain_at: pg_sys::TimestampTz,
    /// Somebody has asked since the worker looked.
    asked: bool,
    /// How often anybody has.
    asks: u64,
    failures: u32,
    worker: *mut pg_sys::Latch,
}

const FREE: Place = Place {
    database: pg_sys::InvalidOid,
    state: State::Waiting,
    start_at: 0,
    maintain_at: 0,
    asked: false,
    asks: 0,
    failures: 0,
    worker: ptr::null_mut(),
};

struct Control {
    lock: *mut pg_sys::LWLock,
    launcher: *mut pg_sys::Latch,
    places: [Place; PLACES],
}

/// Written in the postmaster, and inherited by all its children.
static CONTROL: AtomicPtr<Control> = AtomicPtr::new(ptr::null_mut());

/// Name of the lock, as `pg_stat_activity` shows it.
const LOCK: &CStr = c"pg_sketch_background";

/// Requests the shared memory. Only while the postmaster loads its libraries.
pub fn request() {
    shared_memory::request(Part {
        name: c"pg_sketch background",
        size: || size_of::<Control>(),
        lock: Some(LOCK),
        attach,
    });
}

/// See [`Part::attach`].
unsafe fn attach(memory: *mut c_void, is_new: bool) {
    let control = memory.cast::<Control>();
    if is_new {
        // SAFETY: the memory has room for it, and nobody else uses it.
        unsafe {
            (&raw mut (*control).lock).write(shared_memory::lock(LOCK));
            (&raw mut (*control).launcher).write(ptr::null_mut());
            let first = (&raw mut (*control).places).cast::<Place>();
            (0..PLACES).for_each(|index| first.add(index).write(FREE));
        }
    }
    CONTROL.store(control, Release);
}

/// Whether the server has a launcher.
pub fn is_there() -> bool {
    !CONTROL.load(Acquire).is_null()
}

/// Runs `f`, which raises no error, while no other process changes the shared memory; `None` if there is none.
fn with<R>(f: impl FnOnce(&mut Control) -> R) -> Option<R> {
    let control = CONTROL.load(Acquire);
    // SAFETY: once it is set, the memory is initialised and stays for as long as the process; the lock makes this the only
    // reference.
    unsafe {
        let lock = control.as_ref()?.lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let result = f(&mut *control);
        pg_sys::LWLockRelease(lock);
        Some(result)
    }
}

impl Control {
    fn place(&mut self, database: pg_sys::Oid) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.database == database)
    }
}

fn now() -> pg_sys::TimestampTz {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

fn later(delay: Duration) -> pg_sys::TimestampTz {
    now() + delay.as_micros() as i64
}

fn wake(latch: *mut pg_sys::Latch) {
    if !latch.is_null() {
        // SAFETY: the latch lies in shared memory for as long as the server runs; if it has another owner by now, that one
        // wakes up once for nothing.
        unsafe { pg_sys::SetLatch(latch) };
    }
}

/// Wakes the worker of a database, or has one started.
pub fn ask(database: pg_sys::Oid, wanted: Wanted) {
    with(|control| {
        let launcher = control.launcher;
        // If all places are taken, the launcher finds the database after the next restart of the server.
        let known = control.places.iter().position(|place| place.database == database);
        let index = known.or_else(|| control.places.iter().position(|place| place.database == pg_sys::InvalidOid));
        let Some(place) = index.map(|index| &mut control.places[index]) else { return };
        let is_new = place.database != database;
        if is_new {
            *place = Place { database, ..FREE };
        }
        if wanted == Wanted::Galleries {
            place.maintain_at = 0;
        }
        place.asks += 1;
        match place.state {
            State::Started => {
                place.asked = true;
                wake(place.worker);
            }
            // One that is due already is only waiting for room.
            State::Waiting if is_new || place.failures == 0 && place.start_at != 0 => {
                place.start_at = 0;
                wake(launcher);
            }
            State::Waiting => {}
        }
    });
}

/// Makes this process the launcher, which nobody else is: the postmaster starts one.
pub fn become_launcher() {
    // SAFETY: a plain pointer, set when the process started.
    let me = unsafe { pg_sys::MyLatch };
    with(|control| control.launcher = me);
}

/// Databases whose time has come, the one that waits longest first; and how long until the next.
pub fn due() -> (Vec<pg_sys::Oid>, Option<Duration>) {
    let waiting = with(|control| {
        let waits = |place: &&Place| place.database != pg_sys::InvalidOid && place.state == State::Waiting;
        control.places.iter().filter(waits).map(|place| (place.start_at, place.database)).collect::<Vec<_>>()
    });
    let mut waiting = waiting.unwrap_or_default();
    waiting.sort_by_key(|(start_at, database)| (*start_at, database.to_u32()));
    let now = now();
    let next = waiting.iter().find(|(start_at, _)| *start_at > now).map(|(start_at, _)| start_at - now);
    let due = waiting.iter().filter(|(start_at, _)| *start_at <= now).map(|(_, database)| *database).collect();
    (due, next.map(|rest| Duration::from_micros(rest as u64)))
}

/// A worker was started.
pub fn started(database: pg_sys::Oid) {
    with(|control| {
        if let Some(place) = control.place(database) {
            place.state = State::Started;
            place.asked = false;
        }
    });
}

/// A worker could not be started, or ended without [`leave`].
pub fn failed(database: pg_sys::Oid) {
    with(|control| {
        let Some(place) = control.place(database).filter(|place| place.state == State::Started) else { return };
        place.failures += 1;
        place.worker = ptr::null_mut();
        place.state = State::Waiting;
        place.start_at = later(if place.failures > FAILURES { LOOK } else { RESTART });
    });
}

/// The database is gone.
pub fn forget(database: pg_sys::Oid) {
    with(|control| control.place(database).map(|place| *place = FREE));
}

/// This process is the worker of its database. Returns whether it is to maintain all galleries, too.
pub fn enter(database: pg_sys::Oid) -> bool {
    // SAFETY: a plain pointer, set when the process started.
    let me = unsafe { pg_sys::MyLatch };
    let entered = with(|control| {
        let place = control.place(database)?;
        place.worker = me;
        place.asked = false;
        Some(place.maintain_at <= now())
    });
    entered.flatten().unwrap_or(false)
}

/// How many transactions have asked for the worker of a database.
pub fn asks(database: pg_sys::Oid) -> u64 {
    with(|control| control.place(database).map_or(0, |place| place.asks)).unwrap_or(0)
}

/// The worker has maintained all galleries, and does so again after a while.
pub fn maintained(database: pg_sys::Oid, again: Duration) {
    with(|control| control.place(database).map(|place| place.maintain_at = later(again)));
}

/// The worker ends, unless somebody has asked for it meanwhile. A database without galleries gets none before it asks; `again`: how
/// long until galleries are to be maintained, if that is before it was to be done anyway.
pub fn leave(database: pg_sys::Oid, has_galleries: bool, again: Option<Duration>) -> bool {
    let left = with(|control| {
        let Some(place) = control.place(database) else { return true };
        if std::mem::take(&mut place.asked) {
            return false;
        }
        let maintain_at = again.map_or(place.maintain_at, |rest| place.maintain_at.min(later(rest)));
        *place = match has_galleries {
            true => Place { database, start_at: later(LOOK), maintain_at, ..FREE },
            false => FREE,
        };
        true
    });
    left.unwrap_or(true)
}

/// Whether a database waits for a worker.
pub fn is_any_due() -> bool {
    !due().0.is_empty()
}

/// The worker ends before its work is done: other databases wait, or there are to be no workers.
pub fn give_way(database: pg_sys::Oid) {
    with(|control| {
        if let Some(place) = control.place(database) {
            *place = Place { database, start_at: now(), maintain_at: place.maintain_at, ..FREE };
        }
        wake(control.launcher);
    });
}
