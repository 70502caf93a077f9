//! The worker of a database: embeds what waits in the queue, gallery by gallery, and maintains the galleries.
//!
//! It is connected as a superuser, and acts as the owner of a table whenever it touches it ([`crate::role::Acting`]).

use crate::attempt::attempt;
use crate::error::{Result, SqlError};
use crate::gallery::{Gallery, Step, maintain, queue};
use crate::inference::{WaitEvent, wait_for_latch};
use crate::wakeup::shared;
use crate::{catalog, process, settings};
use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::pg_guard;
use pgrx::prelude::*;
use std::ffi::CString;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// How long a worker stays where there is nothing to do.
const IDLE: Duration = Duration::from_secs(5);
/// Longest sleep: photos may become due that failed.
const SLEEP: Duration = Duration::from_millis(500);
/// How long a worker goes on while other databases wait for one.
const SHARE: Duration = Duration::from_secs(30);
/// How often galleries are maintained that nobody writes to.
const AGAIN: Duration = Duration::from_secs(3600);
/// Maintenance takes at most this share of the time, so that it can be frequent where it is cheap.
const MAINTENANCE: u32 = 20;
/// The fewest new photos for which maintenance does not wait until the queue is empty.
const MANY: usize = 64;
/// Transactions a second from which on writers are busy.
const BUSY: f64 = 40.0;
/// How long busy writers go first.
const COURTESY: Duration = Duration::from_secs(2);
/// How often the worker looks whether they are done.
const LOOK: Duration = Duration::from_millis(50);

/// The postmaster starts the worker here, for the database of this OID.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_sketch_background_main(database: pg_sys::Datum) {
    let database = pg_sys::Oid::from(database.value() as u32);
    // The server's own handler ends the process wherever it checks for interrupts, in the middle of a batch, too.
    // SAFETY: a handler of the server, set before signals are let through.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(pg_sys::SIGTERM as i32, Some(end));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(pg_sys::SIGTERM as i32, Some(end));
    }
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP);
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(database), None);
    process::disable_telemetry();
    let all_due = shared::enter(database);
    if !transaction("looking for galleries", catalog::has_queue) {
        shared::leave(database, false, None);
    } else {
        Worker { database, chores: Vec::new(), all_due, writers: Writers::of(database) }.run();
    }
    // SAFETY: the process holds no locks.
    unsafe { pg_sys::proc_exit(0) };
}

/// The server's handler, in the form that it takes handlers in.
unsafe extern "C-unwind" fn end(signal: i32) {
    // SAFETY: it only sets flags.
    unsafe { pg_sys::die(signal) };
}

struct Worker {
    database: pg_sys::Oid,
    chores: Vec<Chore>,
    /// Galleries have not been looked after for a while.
    all_due: bool,
    writers: Writers,
}

/// Those who write photos. A burst of them has the cores for itself, which embedding would take.
struct Writers {
    database: pg_sys::Oid,
    /// When the worker last looked, how many transactions there had been, and whether there were any since the look before.
    seen: Instant,
    transactions: u64,
    were_there: bool,
    /// How long they have gone first, and when they were busy last.
    waited: Duration,
    busy_at: Instant,
}

impl Writers {
    fn of(database: pg_sys::Oid) -> Self {
        let now = Instant::now();
        Self { database, seen: now, transactions: 0, were_there: false, waited: Duration::ZERO, busy_at: now }
    }

    /// Waits until they are not busy, or have had their time; then the worker works beside them.
    fn go_first(&mut self) {
        loop {
            let transactions = shared::asks(self.database);
            let new = transactions.saturating_sub(std::mem::replace(&mut self.transactions, transactions));
            let elapsed = self.seen.elapsed();
            self.seen += elapsed;
            // The first may be the first of many.
            let is_known = std::mem::replace(&mut self.were_there, new > 0);
            if new == 0 || is_known && (new as f64) < BUSY * elapsed.as_secs_f64() {
                // A moment's calm is not the end of a burst.
                if self.busy_at.elapsed() >= COURTESY {
                    self.waited = Duration::ZERO;
                }
                return;
            }
            if is_known {
                self.busy_at = Instant::now();
            }
            if self.waited >= COURTESY {
                return;
            }
            // Not on the latch: each of them would wake the worker.
            std::thread::sleep(LOOK);
            self.waited += LOOK;
            pgrx::check_for_interrupts!();
        }
    }
}

/// A gallery, and what it needs.
struct Chore {
    relation: pg_sys::Oid,
    owner: pg_sys::Oid,
    name: String,
    maintenance: Option<Step>,
    /// It may lack what is not in the queue.
    is_due: bool,
    /// Photos embedded since the last maintenance, and by all maintenance before.
    new: usize,
    old: usize,
    began: Instant,
    may_begin: Instant,
}

impl Worker {
    fn run(mut self) {
        let started = Instant::now();
        let mut last_work = Instant::now();
        loop {
            pgrx::check_for_interrupts!();
            if BackgroundWorker::sighup_received() {
                // SAFETY: between two steps, nothing depends on what a setting was.
                unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
            }
            self.writers.go_first();
            self.find_galleries();
            let mut has_worked = false;
            for chore in &mut self.chores {
                has_worked |= chore.step();
            }
            if self.all_due && !self.chores.iter().any(|chore| chore.is_due || chore.maintenance.is_some()) {
                self.all_due = false;
                shared::maintained(self.database, AGAIN);
            }
            if settings::background_workers() == 0 || started.elapsed() > SHARE && shared::is_any_due() {
                return shared::give_way(self.database);
            }
            if has_worked {
                last_work = Instant::now();
            } else if last_work.elapsed() < IDLE && !self.chores.is_empty() {
                wait_for_latch(SLEEP, WaitEvent::Background);
            } else if shared::leave(self.database, !self.chores.is_empty(), self.rest()) {
                return;
            } else {
                last_work = Instant::now();
            }
        }
    }

    /// How long until galleries may be maintained that have changed since they were.
    fn rest(&self) -> Option<Duration> {
        let changed = self.chores.iter().filter(|chore| chore.new > 0 || chore.is_due);
        changed.map(|chore| chore.may_begin.saturating_duration_since(Instant::now())).min()
    }

    fn find_galleries(&mut self) {
        let found = transaction("looking for galleries", || {
            if self.all_due {
                report(queue::purge(), "could not clean the queue");
            }
            Gallery::in_background().unwrap_or_else(|error| {
                error.warn();
                Vec::new()
            })
        });
        self.chores.retain(|chore| found.iter().any(|(relation, ..)| *relation == chore.relation));
        for (relation, owner, name) in found {
            match self.chores.iter_mut().find(|chore| chore.relation == relation) {
                Some(chore) => (chore.owner, chore.name) = (owner, name),
                None => {
                    let now = Instant::now();
                    let chore = Chore {
                        relation,
                        owner,
                        name,
                        maintenance: None,
                        is_due: self.all_due,
                        new: 0,
                        old: 0,
                        began: now,
                        may_begin: now,
                    };
                    self.chores.push(chore);
                }
            }
        }
    }
}

impl Chore {
    /// Does a bit of work in a transaction; returns whether there was any.
    fn step(&mut self) -> bool {
        match self.maintenance {
            Some(step) => self.maintain(step),
            None => self.drain(),
        }
        .unwrap_or_else(|error| {
            SqlError::new(PgSqlErrorCode::ERRCODE_WARNING, format!("could not look after gallery \"{}\"", self.name))
                .detail(error.text())
                .warn();
            // A pause, and then from the beginning.
            (self.maintenance, self.is_due) = (None, true);
            self.may_begin = Instant::now() + Duration::from_secs(60);
            false
        })
    }

    fn drain(&mut self) -> Result<bool> {
        let (relation, owner) = (self.relation, self.owner);
        let drained = transaction(&format!("embedding photos of {}", self.name), || {
            attempt(|| queue::drain(&Gallery::of(relation)?, Some(owner)))
        })?;
        self.new += drained.done;
        // Rows that are not where they were: somebody deleted them, or all rows have moved.
        self.is_due |= drained.gone > 0;
        let enough = self.new >= MANY.max(self.old / 2) || drained.entries == 0 && (self.new > 0 || self.is_due);
        if enough && Instant::now() >= self.may_begin {
            self.maintenance = Some(if self.is_due { Step::Missing } else { Step::Codebook });
            self.began = Instant::now();
            return Ok(true);
        }
        Ok(drained.entries > 0)
    }

    fn maintain(&mut self, step: Step) -> Result<bool> {
        let (relation, owner) = (self.relation, self.owner);
        let next = transaction(&format!("maintaining {}", self.name), || {
            attempt(|| maintain::step(&Gallery::of(relation)?, step, Some(owner)))
        })?;
        self.maintenance = match next {
            // The queue comes first anyway.
            Some(Step::Embed) => {
                self.is_due = false;
                None
            }
            Some(next) => Some(next),
            None => {
                self.old += std::mem::take(&mut self.new);
                self.may_begin = Instant::now() + MAINTENANCE * self.began.elapsed();
                None
            }
        };
        if step == Step::Missing {
            // Not only what was missing counts.
            self.new = self.new.max(1);
        }
        Ok(true)
    }
}

/// Runs `f` in a transaction; `pg_stat_activity` shows what for.
fn transaction<T>(activity: &str, f: impl FnOnce() -> T) -> T {
    let activity = CString::new(activity).unwrap_or_default();
    // SAFETY: the server copies the text; no transaction is in progress at the end.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr());
        let result = BackgroundWorker::transaction(AssertUnwindSafe(f));
        pg_sys::pgstat_report_stat(true);
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
        result
    }
}

fn report(result: Result<()>, what: &str) {
    if let Err(error) = result {
        error.within(what).warn();
    }
}
