use super::*;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Release;
use std::thread;

const TARGET: Target = Target { model: [7; 32], device: Device::Cuda(3) };

fn image(length: usize) -> Request {
    Request { target: TARGET, domain: Domain::Photo, length, is_first: true }
}

#[test]
fn a_request_is_read_as_it_was_written() {
    let slot = Slot::default();
    for request in [image(42), Request { domain: Domain::Sketch, is_first: false, ..image(1 << 40) }] {
        assert!(slot.claim(1, 2));
        slot.publish(&request, 3);
        assert_eq!(slot.request(), Some(request));
        assert_eq!((slot.ticket(), slot.client(), slot.queued_at()), (1, 2, 3));
        assert_eq!(slot.leave(), Leaving::Freed);
    }
}

#[test]
fn a_slot_that_is_put_back_is_taken_again_with_its_request() {
    let slot = Slot::default();
    assert!(slot.claim(1, 2) && !slot.claim(2, 3));
    slot.publish(&image(42), 0);
    assert!(slot.take() && !slot.take());
    assert!(slot.put_back());
    assert_eq!((slot.state(), slot.request()), (State::Ready, Some(image(42))));
    assert!(slot.take() && slot.answer(true, 4));
    assert_eq!((slot.state(), slot.length()), (State::Done, 4));
    assert_eq!(slot.leave(), Leaving::Freed);
    assert_eq!(slot.state(), State::Free);
}

#[test]
fn a_client_may_leave_in_every_state() {
    let steps: [&dyn Fn(&Slot); 4] = [
        &|slot| assert!(slot.claim(1, 1)),
        &|slot| slot.publish(&image(1), 0),
        &|slot| assert!(slot.take()),
        &|slot| assert!(slot.answer(true, 0)),
    ];
    for reached in 1..=steps.len() {
        for release in [|slot: &Slot| slot.answer(false, 0), Slot::put_back] {
            let slot = Slot::default();
            steps[..reached].iter().for_each(|step| step(&slot));
            let leaving = slot.leave();
            if reached == 3 {
                assert_eq!(leaving, Leaving::ToService);
                assert!(slot.is_left() && !release(&slot));
            } else {
                assert_eq!(leaving, Leaving::Freed);
            }
            assert_eq!(slot.state(), State::Free);
        }
    }
}

/// Clients that leave at any moment, and a service that answers: nobody gets another's answer, and no slot is lost.
#[test]
fn no_slot_is_lost_and_no_answer_goes_astray() {
    const CLIENTS: u64 = 4;
    const REQUESTS: u64 = 2_000;
    let slots: Vec<Slot> = (0..3).map(|_| Slot::default()).collect();
    let tickets = AtomicU64::new(1);
    let over = AtomicBool::new(false);
    let answered = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Acquire) {
                for slot in slots.iter().filter(|slot| slot.take()) {
                    // The answer is the request, so that the client knows its own.
                    slot.answer(true, slot.length() + 1);
                }
            }
        });
        let client = |number: u64| {
            let (slots, tickets) = (&slots, &tickets);
            move || {
                let mut answered = 0u64;
                for request in 0..REQUESTS {
                    let slot = loop {
                        let ticket = tickets.fetch_add(1, Relaxed);
                        match slots.iter().find(|slot| slot.claim(ticket, number)) {
                            Some(slot) => break slot,
                            None => thread::yield_now(),
                        }
                    };
                    let mine = (number << 32 | request) as usize;
                    slot.publish(&image(mine), 0);
                    let patience = request % 5;
                    let mut looked = 0;
                    while slot.state() != State::Done && (patience == 0 || looked < patience) {
                        looked += 1;
                        thread::yield_now();
                    }
                    if slot.state() == State::Done {
                        assert_eq!((slot.client(), slot.length()), (number, mine + 1));
                        answered += 1;
                    }
                    slot.leave();
                }
                answered
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(client(number))).collect();
        let answered: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        // What was left behind is freed by the service.
        while slots.iter().any(|slot| slot.state() != State::Free) {
            thread::yield_now();
        }
        over.store(true, Release);
        answered
    });
    assert!(answered >= CLIENTS * REQUESTS / 5, "those that waited to the end were answered: {answered}");
}
