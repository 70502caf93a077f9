//! The memory that connections and the worker share: slots with their bytes, counters, and how to wake each other.

use super::wait::WaitEvent;
use crate::error::Result;
use crate::settings;
use crate::shared_memory::{self, Part};
use half::f16;
use pgrx::pg_sys;
use sketch_model::inference::notice::Notice;
use sketch_model::inference::slot::{Slot, State};
use sketch_model::inference::stat::StatTable;
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::mem::size_of;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64};
use std::time::Duration;

/// The head of the shared memory. Slots follow, then their bytes.
#[repr(C, align(64))]
struct Control {
    slots: usize,
    slot_bytes: usize,
    tickets: AtomicU64,
    /// Latch of the worker; null while there is none.
    worker: AtomicPtr<pg_sys::Latch>,
    /// Processes wait here for a free slot.
    free: UnsafeCell<pg_sys::ConditionVariable>,
    stat: StatTable,
    notice: Notice,
}

/// Written in the postmaster, and inherited by all its children.
static CONTROL: AtomicPtr<Control> = AtomicPtr::new(ptr::null_mut());

/// Requests the shared memory. Only while the postmaster loads its libraries.
pub fn request() {
    shared_memory::request(Part { name: c"pg_sketch", size, lock: None, attach });
}

fn size() -> usize {
    let (slots, slot_bytes) = settings::queue();
    size_of::<Control>() + slots * (size_of::<Slot>() + slot_bytes)
}

/// See [`Part::attach`].
unsafe fn attach(memory: *mut c_void, is_new: bool) {
    let control = memory.cast::<Control>();
    if is_new {
        let (slots, slot_bytes) = settings::queue();
        // SAFETY: the memory has room for it, and nobody else uses it, so that no lock is needed.
        unsafe {
            // Zeroes are what the counters and the notice begin with, and too large to be made on the stack.
            ptr::write_bytes(control, 0, 1);
            (*control).slots = slots;
            (*control).slot_bytes = slot_bytes;
            (*control).tickets = AtomicU64::new(1);
            (*control).stat.reset(now());
            pg_sys::ConditionVariableInit((*control).free.get());
            let first = control.add(1).cast::<Slot>();
            (0..slots).for_each(|index| first.add(index).write(Slot::default()));
        }
    }
    CONTROL.store(control, Release);
}

/// The shared memory, as this process sees it.
#[derive(Clone, Copy)]
pub struct Shared(&'static Control);

impl Shared {
    /// The shared memory; `None` if there is none, for the library was not preloaded, or without a worker.
    pub fn get() -> Option<Self> {
        // SAFETY: once it is set, the memory is initialised and stays for as long as the process.
        unsafe { CONTROL.load(Acquire).as_ref() }.map(Self)
    }

    pub fn slots(self) -> &'static [Slot] {
        // SAFETY: so many slots follow the head, initialised by the postmaster.
        unsafe { std::slice::from_raw_parts(ptr::from_ref(self.0).add(1).cast::<Slot>(), self.0.slots) }
    }

    /// Bytes of each slot.
    pub fn slot_bytes(self) -> usize {
        self.0.slot_bytes
    }

    /// The bytes of a slot.
    fn bytes(self, index: usize) -> *mut u8 {
        assert!(index < self.0.slots);
        let first = self.slots().as_ptr_range().end.cast::<u8>().cast_mut();
        // SAFETY: the bytes of all slots follow the last slot.
        unsafe { first.add(index * self.0.slot_bytes) }
    }

    /// Writes the first bytes of a slot; what does not fit is left out. Returns how many were written.
    ///
    /// The caller owns the slot: it has claimed or taken it.
    pub fn write(self, index: usize, bytes: &[u8]) -> usize {
        let length = bytes.len().min(self.0.slot_bytes);
        // SAFETY: the length is in range; the slot's state gives its bytes to one process at a time.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.bytes(index), length) };
        length
    }

    /// Reads the first bytes of a slot, or as many as it has.
    ///
    /// The caller owns the slot: it has taken it, or the worker has answered.
    pub fn read(self, index: usize, length: usize) -> Vec<u8> {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.bytes(index), length.min(self.0.slot_bytes)) }.to_vec()
    }

    /// Answers a taken slot, and wakes its client or, if that has left, a process that waits for a slot.
    pub fn answer(self, index: usize, outcome: Result<&[f16]>) {
        let is_embedding = outcome.is_ok();
        let bytes = match outcome {
            Ok(embedding) => embedding.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Err(error) => error.to_bytes(),
        };
        let length = self.write(index, &bytes);
        if self.slots()[index].answer(is_embedding, length) {
            self.wake_client(index);
        } else {
            self.slot_freed();
        }
    }

    /// Claims a free slot for this process; returns its index.
    pub fn claim(self) -> Option<usize> {
        let free = |slot: &Slot| slot.state() == State::Free;
        if !self.slots().iter().any(free) {
            return None;
        }
        let ticket = self.0.tickets.fetch_add(1, Relaxed);
        // SAFETY: a plain pointer, set when the process started.
        let me = unsafe { pg_sys::MyLatch } as u64;
        self.slots().iter().position(|slot| slot.claim(ticket, me))
    }

    /// Wakes the client of a slot.
    fn wake_client(self, index: usize) {
        let latch = self.slots()[index].client() as *mut pg_sys::Latch;
        // SAFETY: the latch lies in shared memory for as long as the server runs; if it has another owner by now, that
        // one wakes up once for nothing.
        unsafe { pg_sys::SetLatch(latch) };
    }

    /// Wakes the worker; returns whether there is one.
    pub fn wake_worker(self) -> bool {
        let latch = self.0.worker.load(Acquire);
        if !latch.is_null() {
            // SAFETY: as above.
            unsafe { pg_sys::SetLatch(latch) };
        }
        !latch.is_null()
    }

    /// Whether the worker runs.
    pub fn has_worker(self) -> bool {
        !self.0.worker.load(Acquire).is_null()
    }

    /// Makes this process the worker; returns whether there was none.
    pub fn become_worker(self) -> bool {
        // SAFETY: a plain pointer, set when the process started.
        let me = unsafe { pg_sys::MyLatch };
        self.0.worker.compare_exchange(ptr::null_mut(), me, AcqRel, Acquire).is_ok()
    }

    /// The worker ends.
    pub fn resign(self) {
        self.0.worker.store(ptr::null_mut(), Release);
    }

    /// Waits until a slot may be free or the time is over; handles cancels and terminations.
    pub fn wait_for_slot(self, timeout: Duration) {
        let timeout = timeout.as_millis().max(1) as std::ffi::c_long;
        // SAFETY: initialised by the postmaster; an ERROR on the way takes this process off the list of waiters.
        unsafe { pg_sys::ConditionVariableTimedSleep(self.0.free.get(), timeout, WaitEvent::Queue.number()) };
    }

    /// Ends [`wait_for_slot`](Self::wait_for_slot), which is called in a loop.
    pub fn stop_waiting_for_slot(self) {
        // SAFETY: does nothing if this process does not wait.
        unsafe {
            pg_sys::ConditionVariableCancelSleep();
        }
    }

    /// Wakes one process that waits for a slot.
    pub fn slot_freed(self) {
        // SAFETY: initialised by the postmaster.
        unsafe { pg_sys::ConditionVariableSignal(self.0.free.get()) };
    }

    /// What the worker reports: a line for each network.
    pub fn notice(self) -> &'static Notice {
        &self.0.notice
    }

    /// The counters of all processes.
    pub fn stat(self) -> &'static StatTable {
        &self.0.stat
    }
}

/// Microseconds since the server's epoch; all processes read the same clock.
pub fn now() -> u64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }.max(0) as u64
}
