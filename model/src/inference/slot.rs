//! A slot: one image on its way to the service and its embedding on the way back.
//!
//! One request, one answer. The state of a slot says who owns it, and only its owner writes its fields and the bytes that
//! belong to it:
//!
//! | state | owner | next |
//! | --- | --- | --- |
//! | `Free` | nobody | a client claims it |
//! | `Claimed` | the client | it writes its request, and publishes it |
//! | `Ready` | nobody | the service takes it; or the client leaves |
//! | `Taken` | the service | it answers; if the client leaves meanwhile, the service frees it |
//! | `Done`, `Failed` | the client | it reads the answer, and leaves |
//!
//! A client may leave at any moment, and never waits for that. No slot is lost when it does: its last owner frees it.

use crate::digest::Sha256Digest;
use crate::inference::device::Device;
use crate::inference::encoder::Domain;
#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, AtomicU64};

/// State of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    Free = 0,
    Claimed = 1,
    Ready = 2,
    Taken = 3,
    Done = 4,
    Failed = 5,
    /// Taken, and its client has left.
    Left = 6,
}

impl State {
    fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Free,
            1 => Self::Claimed,
            2 => Self::Ready,
            3 => Self::Taken,
            4 => Self::Done,
            5 => Self::Failed,
            _ => Self::Left,
        }
    }
}

/// An image to embed; its pixels are the bytes of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub target: Target,
    pub domain: Domain,
    /// Number of bytes.
    pub length: usize,
    /// Whether it is the first image of its call.
    pub is_first: bool,
}

/// Which network, and the device to run it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Digest of graph and manifest.
    pub model: Sha256Digest,
    pub device: Device,
}

/// One slot.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Slot {
    state: AtomicU32,
    domain: AtomicU32,
    device: AtomicU32,
    is_first: AtomicU32,
    length: AtomicU64,
    ticket: AtomicU64,
    queued_at: AtomicU64,
    client: AtomicU64,
    model: [AtomicU64; 4],
}

/// What a client left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// A free slot.
    Freed,
    /// A slot that the service will free.
    ToService,
}

impl Slot {
    pub fn state(&self) -> State {
        State::from_code(self.state.load(Acquire))
    }

    fn change(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u32, to as u32, AcqRel, Acquire).is_ok()
    }

    /// Claims a free slot for a client; returns whether it was free.
    ///
    /// `ticket`: larger than those of all earlier claims; `client`: a number by which the service wakes the client.
    pub fn claim(&self, ticket: u64, client: u64) -> bool {
        if !self.change(State::Free, State::Claimed) {
            return false;
        }
        self.ticket.store(ticket, Relaxed);
        self.client.store(client, Relaxed);
        true
    }

    /// Writes a request into a claimed slot and hands it to the service. `now`: microseconds.
    ///
    /// The bytes of the slot are written before.
    pub fn publish(&self, request: &Request, now: u64) {
        self.is_first.store(u32::from(request.is_first), Relaxed);
        self.domain.store(request.domain as u32, Relaxed);
        self.length.store(request.length as u64, Relaxed);
        self.device.store(request.target.device.code(), Relaxed);
        for (word, bytes) in self.model.iter().zip(request.target.model.chunks_exact(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().expect("8 bytes")), Relaxed);
        }
        self.queued_at.store(now, Relaxed);
        let published = self.change(State::Claimed, State::Ready);
        debug_assert!(published, "only the owner of a slot publishes it");
    }

    /// The request; `None` for one that no client writes. Call it on a slot that is ready or taken.
    pub fn request(&self) -> Option<Request> {
        let mut model = [0; 32];
        for (word, bytes) in self.model.iter().zip(model.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        let domain = match self.domain.load(Relaxed) {
            0 => Domain::Sketch,
            1 => Domain::Photo,
            _ => return None,
        };
        let target = Target { model, device: Device::from_code(self.device.load(Relaxed))? };
        Some(Request { target, domain, length: self.length(), is_first: self.is_first.load(Relaxed) != 0 })
    }

    /// Number of bytes of the request or the answer.
    pub fn length(&self) -> usize {
        self.length.load(Relaxed) as usize
    }

    pub fn ticket(&self) -> u64 {
        self.ticket.load(Relaxed)
    }

    pub fn client(&self) -> u64 {
        self.client.load(Relaxed)
    }

    /// When the request was published, in microseconds.
    pub fn queued_at(&self) -> u64 {
        self.queued_at.load(Relaxed)
    }

    /// Takes a ready slot for the service; returns whether it was ready.
    pub fn take(&self) -> bool {
        self.change(State::Ready, State::Taken)
    }

    /// Puts a taken slot back into the queue. Returns whether the client is still there; if not, the slot is free.
    pub fn put_back(&self) -> bool {
        self.release(State::Ready)
    }

    /// Answers a taken slot: `length` bytes were written, an embedding or an error. Returns whether the client is still
    /// there; if not, the slot is free.
    pub fn answer(&self, is_embedding: bool, length: usize) -> bool {
        self.length.store(length as u64, Relaxed);
        self.release(if is_embedding { State::Done } else { State::Failed })
    }

    fn release(&self, to: State) -> bool {
        if self.change(State::Taken, to) {
            return true;
        }
        let freed = self.change(State::Left, State::Free);
        debug_assert!(freed, "only the service releases a taken slot");
        false
    }

    /// Whether the client of a taken slot has left.
    pub fn is_left(&self) -> bool {
        self.state() == State::Left
    }

    /// The client leaves its slot, whatever state it is in.
    pub fn leave(&self) -> Leaving {
        loop {
            let state = self.state();
            let (to, leaving) = match state {
                State::Taken => (State::Left, Leaving::ToService),
                State::Claimed | State::Ready | State::Done | State::Failed => (State::Free, Leaving::Freed),
                State::Free | State::Left => {
                    debug_assert!(false, "a client leaves a slot once");
                    return Leaving::ToService;
                }
            };
            // Otherwise the service took or answered it at this moment: look again.
            if self.change(state, to) {
                return leaving;
            }
        }
    }
}

#[cfg(test)]
mod tests;
