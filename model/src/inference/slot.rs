//! A slot: one image on its way to the service and its embedding on the way back.
//!
//! The state of a slot says whose it is, and only who has it writes the slot's fields and the bytes that belong to it:
//!
//! | state | whose | next |
//! | --- | --- | --- |
//! | `Free` | nobody's | a client claims it |
//! | `Claimed` | the client's | it writes its request, and publishes it |
//! | `Ready` | nobody's | the service takes it; or the client leaves |
//! | `Taken` | the service's | it answers; if the client leaves meanwhile, the service frees it |
//! | `Asked` | the client's | the service wants a part of the model; the client resumes, or leaves |
//! | `Done`, `Failed` | the client's | it reads the answer, and leaves |
//!
//! A client may leave at any moment, and never waits for that. No state is lost when it does: whoever has the slot last
//! frees it.

use crate::digest::Sha256Digest;
use crate::inference::device::Device;
use crate::inference::encoder::Domain;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// State of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    Free = 0,
    Claimed = 1,
    Ready = 2,
    Taken = 3,
    Asked = 4,
    Done = 5,
    Failed = 6,
    /// Taken, and its client has left.
    Left = 7,
}

impl State {
    fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Free,
            1 => Self::Claimed,
            2 => Self::Ready,
            3 => Self::Taken,
            4 => Self::Asked,
            5 => Self::Done,
            6 => Self::Failed,
            _ => Self::Left,
        }
    }
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// An image embedded; its pixels are the slot's bytes. Of the images of one call one is the first.
    Image { target: Target, domain: Domain, length: usize, is_first: bool },
    /// Nothing: here is a part of the model that the service asked for, at the offset that it asked for.
    Part { target: Target, length: usize, total: u64, manifest: usize },
}

/// Which network, and where it is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Digest of graph and manifest.
    pub model: Sha256Digest,
    pub device: Device,
}

impl Request {
    pub fn target(&self) -> Target {
        match self {
            Self::Image { target, .. } | Self::Part { target, .. } => *target,
        }
    }
}

/// Offset by which the service asks for the image again.
pub const AGAIN: u64 = u64::MAX;

/// One slot.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Slot {
    state: AtomicU32,
    domain: AtomicU32,
    device: AtomicU32,
    is_part: AtomicU32,
    is_first: AtomicU32,
    length: AtomicU64,
    total: AtomicU64,
    manifest: AtomicU64,
    offset: AtomicU64,
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
    /// A free slot, and maybe a service that waits for a part of the model.
    Unanswered,
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

    /// Takes possession of a free slot for a client; returns whether it was free.
    ///
    /// `ticket`: larger than those of all that came before; `client`: who it is, as a number that the service knows what
    /// to do with.
    pub fn claim(&self, ticket: u64, client: u64) -> bool {
        if !self.change(State::Free, State::Claimed) {
            return false;
        }
        self.ticket.store(ticket, Relaxed);
        self.client.store(client, Relaxed);
        true
    }

    /// Writes a request into a slot that was claimed, or asked, and hands it to the service. `now`: microseconds.
    ///
    /// The bytes of the slot are written before.
    pub fn publish(&self, request: &Request, now: u64) {
        let (target, length) = match *request {
            Request::Image { target, domain, length, is_first } => {
                self.is_first.store(u32::from(is_first), Relaxed);
                self.domain.store(domain as u32, Relaxed);
                self.is_part.store(0, Relaxed);
                (target, length)
            }
            Request::Part { target, length, total, manifest } => {
                self.is_part.store(1, Relaxed);
                self.total.store(total, Relaxed);
                self.manifest.store(manifest as u64, Relaxed);
                (target, length)
            }
        };
        self.length.store(length as u64, Relaxed);
        self.device.store(target.device.code(), Relaxed);
        for (word, bytes) in self.model.iter().zip(target.model.chunks_exact(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().expect("8 bytes")), Relaxed);
        }
        self.queued_at.store(now, Relaxed);
        let published = self.change(State::Claimed, State::Ready);
        debug_assert!(published, "only who has a slot publishes it");
    }

    /// Takes possession of an asked slot again; returns the offset that the service asked for.
    pub fn resume(&self) -> Option<u64> {
        let offset = self.offset.load(Relaxed);
        self.change(State::Asked, State::Claimed).then_some(offset)
    }

    /// What is requested; `None` for what no client writes. Call it on a slot that is ready or taken.
    pub fn request(&self) -> Option<Request> {
        let mut model = [0; 32];
        for (word, bytes) in self.model.iter().zip(model.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        let target = Target { model, device: Device::from_code(self.device.load(Relaxed))? };
        let length = self.length();
        if self.is_part.load(Relaxed) != 0 {
            let (total, manifest) = (self.total.load(Relaxed), self.manifest.load(Relaxed) as usize);
            return Some(Request::Part { target, length, total, manifest });
        }
        let domain = match self.domain.load(Relaxed) {
            0 => Domain::Sketch,
            1 => Domain::Photo,
            _ => return None,
        };
        Some(Request::Image { target, domain, length, is_first: self.is_first.load(Relaxed) != 0 })
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

    /// Takes possession of a ready slot for the service; returns whether it was ready.
    pub fn take(&self) -> bool {
        self.change(State::Ready, State::Taken)
    }

    /// Gives a taken slot back: the service wants the model's bytes from `offset` on, or, with [`AGAIN`], the image that
    /// these bytes have overwritten. Returns whether the client is still there; if not, the slot is free.
    pub fn ask(&self, offset: u64) -> bool {
        self.offset.store(offset, Relaxed);
        self.give_back(State::Asked)
    }

    /// Answers a taken slot: `length` bytes were written, an embedding or an error. Returns whether the client is still
    /// there; if not, the slot is free.
    pub fn answer(&self, is_embedding: bool, length: usize) -> bool {
        self.length.store(length as u64, Relaxed);
        self.give_back(if is_embedding { State::Done } else { State::Failed })
    }

    fn give_back(&self, to: State) -> bool {
        if self.change(State::Taken, to) {
            return true;
        }
        let freed = self.change(State::Left, State::Free);
        debug_assert!(freed, "only taken slots are answered");
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
                State::Claimed | State::Asked => (State::Free, Leaving::Unanswered),
                State::Ready | State::Done | State::Failed => (State::Free, Leaving::Freed),
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
