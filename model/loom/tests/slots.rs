//! Client and service at one slot, in every order: no answer goes astray, no slot is lost, and nobody reads or writes bytes
//! that belong to another.

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;
use sketch_slots::inference::{device::Device, encoder::Domain};
use sketch_slots::slot::{Leaving, Request, Slot, State, Target};

/// A slot with the bytes that belong to its owner. loom panics at two accesses that no order of the slot's state separates.
#[derive(Default)]
struct Place {
    slot: Slot,
    bytes: UnsafeCell<u64>,
}

// SAFETY: loom checks what the compiler cannot: that the accesses have an order.
unsafe impl Sync for Place {}

impl Place {
    fn read(&self) -> u64 {
        // SAFETY: loom ends the test at a write of another thread that may happen meanwhile.
        self.bytes.with(|bytes| unsafe { *bytes })
    }

    fn write(&self, value: u64) {
        // SAFETY: as above, for all accesses.
        self.bytes.with_mut(|bytes| unsafe { *bytes = value });
    }
}

const LENGTH: usize = 8;

/// Claims the slot and publishes a request; returns whether it was free.
fn request(place: &Place, client: u64) -> bool {
    if !place.slot.claim(client, client) {
        return false;
    }
    place.write(client);
    let target = Target { model: [client as u8; 32], device: Device(client as u32) };
    place.slot.publish(&Request { target, domain: Domain::Photo, length: LENGTH, is_first: true }, 0);
    true
}

/// Looks once for an answer, and leaves.
fn look_and_leave(place: &Place, client: u64) -> Leaving {
    if place.slot.state() == State::Done {
        assert_eq!((place.slot.client(), place.read(), place.slot.length()), (client, client + 100, 1));
    }
    place.slot.leave()
}

/// Takes the slot if it is ready; `put_back` gives it back once before it answers.
fn serve(place: &Place, put_back: bool) {
    if !place.slot.take() {
        return;
    }
    if put_back && (!place.slot.put_back() || !place.slot.take()) {
        return;
    }
    let client = place.slot.client();
    let request = place.slot.request().expect("a request of this version");
    assert_eq!(request.target, Target { model: [client as u8; 32], device: Device(client as u32) });
    assert_eq!((request.length, place.read()), (LENGTH, client));
    place.write(client + 100);
    place.slot.answer(true, 1);
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    // Threads that the scheduler interrupts more often find nothing new here, and take hours.
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn a_client_that_leaves_at_any_moment() {
    check(|| {
        let place = Arc::new(Place::default());
        assert!(request(&place, 1));
        let service = {
            let place = place.clone();
            thread::spawn(move || serve(&place, false))
        };
        let leaving = look_and_leave(&place, 1);
        service.join().unwrap();
        assert_eq!(place.slot.state(), State::Free, "after {leaving:?}");
    });
}

#[test]
fn a_request_that_is_put_back() {
    check(|| {
        let place = Arc::new(Place::default());
        assert!(request(&place, 1));
        let service = {
            let place = place.clone();
            thread::spawn(move || serve(&place, true))
        };
        look_and_leave(&place, 1);
        service.join().unwrap();
        assert_eq!(place.slot.state(), State::Free);
    });
}

#[test]
fn two_clients_and_one_slot() {
    check(|| {
        let place = Arc::new(Place::default());
        let service = {
            let place = place.clone();
            thread::spawn(move || {
                serve(&place, false);
                serve(&place, false);
            })
        };
        let other = {
            let place = place.clone();
            thread::spawn(move || {
                if request(&place, 2) {
                    look_and_leave(&place, 2);
                }
            })
        };
        if request(&place, 1) {
            look_and_leave(&place, 1);
        }
        other.join().unwrap();
        service.join().unwrap();
        assert_eq!(place.slot.state(), State::Free);
    });
}
