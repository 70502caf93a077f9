//! Coding of rows by several processes: they share a scan of the table and a sort.

use super::super::pages::IndexPages;
use super::super::raise;
use super::sort::{self, Sort};
use super::{Build, Counts, Phase, code_rows, enter};
use pgrx::prelude::*;
use sketch_model::index::Quantizer;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Keys of what is in the memory that the processes share.
const KEY_SHARED: u64 = 0x1f1e_0001;
const KEY_SCAN: u64 = 0x1f1e_0002;
const KEY_SORT: u64 = 0x1f1e_0003;
/// Alignment of an entry there, ALIGNOF_BUFFER.
const ALIGNMENT: usize = 32;

/// What leader and workers tell each other.
#[repr(C)]
struct Shared {
    heap: pg_sys::Oid,
    index: pg_sys::Oid,
    concurrent: bool,
    /// Of each process for its part of the sort, in kB.
    memory: i32,
    finished: AtomicU32,
    heap_rows: AtomicU64,
    index_rows: AtomicU64,
    broken_hot_chain: AtomicBool,
    one_more_finished: pg_sys::ConditionVariable,
}

/// A leader and its workers.
pub struct Team {
    context: *mut pg_sys::ParallelContext,
    shared: NonNull<Shared>,
    scan: pg_sys::ParallelTableScanDesc,
    sort: *mut pg_sys::Sharedsort,
    snapshot: pg_sys::Snapshot,
    participants: u32,
}

impl Team {
    /// Starts as many workers as the server grants; `None` if there are none. The quantizer is written already.
    pub fn start(build: Build) -> Option<Self> {
        // SAFETY: the relations are open; the steps are those that the server documents for a parallel context.
        unsafe {
            let concurrent = (*build.info).ii_Concurrent;
            let (heap, index) = ((*build.heap).rd_id, (*build.index).rd_id);
            let workers = pg_sys::plan_create_index_workers(heap, index);
            if workers == 0 {
                return None;
            }
            pg_sys::EnterParallelMode();
            let context =
                pg_sys::CreateParallelContext(c"pg_sketch".as_ptr(), c"ivfexact_build_worker".as_ptr(), workers);
            let snapshot = if concurrent {
                pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot())
            } else {
                &raw mut pg_sys::SnapshotAnyData
            };
            let scan_size = pg_sys::table_parallelscan_estimate(build.heap, snapshot);
            let sort_size = pg_sys::tuplesort_estimate_shared(workers + 1);
            for size in [size_of::<Shared>(), scan_size, sort_size] {
                (*context).estimator.space_for_chunks += size.next_multiple_of(ALIGNMENT);
                (*context).estimator.number_of_keys += 1;
            }
            pg_sys::InitializeParallelDSM(context);
            if (*context).seg.is_null() {
                end(context, snapshot);
                return None;
            }

            let shared: *mut Shared = allocate(context, KEY_SHARED, size_of::<Shared>());
            shared.write(Shared {
                heap,
                index,
                concurrent,
                memory: sort::memory() / (workers + 1),
                finished: AtomicU32::new(0),
                heap_rows: AtomicU64::new(0),
                index_rows: AtomicU64::new(0),
                broken_hot_chain: AtomicBool::new(false),
                one_more_finished: Default::default(),
            });
            pg_sys::ConditionVariableInit(&raw mut (*shared).one_more_finished);
            let scan = allocate(context, KEY_SCAN, scan_size);
            pg_sys::table_parallelscan_initialize(build.heap, scan, snapshot);
            let sort = allocate(context, KEY_SORT, sort_size);
            pg_sys::tuplesort_initialize_shared(sort, workers + 1, (*context).seg);

            pg_sys::LaunchParallelWorkers(context);
            let participants = (*context).nworkers_launched as u32 + 1;
            if participants == 1 {
                end(context, snapshot);
                return None;
            }
            let shared = NonNull::new(shared).expect("was allocated");
            let team = Self { context, shared, scan, sort, snapshot, participants };
            // While the leader codes, a worker that fails to start would be noticed by nobody.
            pg_sys::WaitForParallelWorkersToAttach(context);
            debug1!("ivfexact builds with {} workers", participants - 1);
            Some(team)
        }
    }

    /// Codes the rows of the table. The sort that is returned is to be dropped before [`Team::finish`].
    pub fn code_rows(&self, build: Build, quantizer: &Quantizer) -> (Counts, Sort) {
        // SAFETY: the shared memory lives until `finish`.
        unsafe {
            participate(build, quantizer, self.shared, self.scan, self.sort);
            let shared = self.shared.as_ref();
            while shared.finished.load(Ordering::Acquire) < self.participants {
                pg_sys::ConditionVariableSleep(
                    (&raw const shared.one_more_finished).cast_mut(),
                    pg_sys::WaitEventIPC::WAIT_EVENT_PARALLEL_CREATE_INDEX_SCAN,
                );
            }
            pg_sys::ConditionVariableCancelSleep();
            if shared.broken_hot_chain.load(Ordering::Relaxed) {
                (*build.info).ii_BrokenHotChain = true;
            }
            enter(Phase::Sort);
            let whole = pg_sys::SortCoordinateData {
                isWorker: false,
                nParticipants: self.participants as i32,
                sharedsort: self.sort,
            };
            let mut sort = Sort::new(sort::memory(), Some(whole));
            sort.perform();
            let counts = Counts {
                heap: shared.heap_rows.load(Ordering::Relaxed) as f64,
                index: shared.index_rows.load(Ordering::Relaxed),
            };
            (counts, sort)
        }
    }

    /// Dismisses the workers.
    pub fn finish(self) {
        // SAFETY: nobody uses the shared memory any more.
        unsafe {
            pg_sys::WaitForParallelWorkersToFinish(self.context);
            end(self.context, self.snapshot);
        }
    }
}

/// Makes an entry of the shared memory.
unsafe fn allocate<T>(context: *mut pg_sys::ParallelContext, key: u64, size: usize) -> *mut T {
    // SAFETY: the size was announced; the server raises an error if there is no room.
    unsafe {
        let entry = pg_sys::shm_toc_allocate((*context).toc, size);
        pg_sys::shm_toc_insert((*context).toc, key, entry);
        entry.cast()
    }
}

unsafe fn end(context: *mut pg_sys::ParallelContext, snapshot: pg_sys::Snapshot) {
    // SAFETY: no worker runs.
    unsafe {
        if snapshot != &raw mut pg_sys::SnapshotAnyData {
            pg_sys::UnregisterSnapshot(snapshot);
        }
        pg_sys::DestroyParallelContext(context);
        pg_sys::ExitParallelMode();
    }
}

/// Codes this process's share of the rows and hands them over, sorted.
///
/// # Safety
/// The pointers lead to the entries that the leader made.
unsafe fn participate(
    build: Build,
    quantizer: &Quantizer,
    shared: NonNull<Shared>,
    scan: pg_sys::ParallelTableScanDesc,
    sort: *mut pg_sys::Sharedsort,
) {
    // SAFETY: the caller's promise; what is written by several is atomic.
    unsafe {
        let shared = shared.as_ref();
        let part = pg_sys::SortCoordinateData { isWorker: true, nParticipants: -1, sharedsort: sort };
        let sort = Sort::new(shared.memory, Some(part));
        let (counts, sort) = code_rows(build, quantizer, sort, pg_sys::table_beginscan_parallel(build.heap, scan));
        drop(sort);
        shared.heap_rows.fetch_add(counts.heap as u64, Ordering::Relaxed);
        shared.index_rows.fetch_add(counts.index, Ordering::Relaxed);
        if (*build.info).ii_BrokenHotChain {
            shared.broken_hot_chain.store(true, Ordering::Relaxed);
        }
        shared.finished.fetch_add(1, Ordering::Release);
        pg_sys::ConditionVariableBroadcast((&raw const shared.one_more_finished).cast_mut());
    }
}

/// Where a worker starts; the server looks it up by its name.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn ivfexact_build_worker(segment: *mut pg_sys::dsm_segment, toc: *mut pg_sys::shm_toc) {
    // SAFETY: the leader made these entries, and waits until we are done.
    unsafe {
        let shared: *mut Shared = pg_sys::shm_toc_lookup(toc, KEY_SHARED, false).cast();
        let scan = pg_sys::shm_toc_lookup(toc, KEY_SCAN, false).cast();
        let sort = pg_sys::shm_toc_lookup(toc, KEY_SORT, false).cast();
        let concurrent = (*shared).concurrent;
        // The locks that the leader holds.
        let (heap_lock, index_lock) = if concurrent {
            (pg_sys::ShareUpdateExclusiveLock as i32, pg_sys::RowExclusiveLock as i32)
        } else {
            (pg_sys::ShareLock as i32, pg_sys::AccessExclusiveLock as i32)
        };
        let heap = pg_sys::table_open((*shared).heap, heap_lock);
        let index = pg_sys::index_open((*shared).index, index_lock);
        let info = pg_sys::BuildIndexInfo(index);
        (*info).ii_Concurrent = concurrent;
        let quantizer = raise(Quantizer::load(&IndexPages::build(index, pg_sys::ForkNumber::MAIN_FORKNUM)));
        pg_sys::tuplesort_attach_shared(sort, segment);
        let build = Build { heap, index, info };
        participate(build, &quantizer, NonNull::new(shared).expect("was found"), scan, sort);
        pg_sys::index_close(index, index_lock);
        pg_sys::table_close(heap, heap_lock);
    }
}
