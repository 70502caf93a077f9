//! Embeddings to be written later: in memory up to `maintenance_work_mem`, beyond that on disk.

use super::bulk::Version;
use crate::embedding::{Embedding, Origin};
use crate::error::Result;
use half::f16;
use pgrx::prelude::*;

const COLUMNS: usize = 4;

/// A tuplestore of table, ctid, xmin, embedding.
pub struct Store {
    tuples: *mut pg_sys::Tuplestorestate,
    description: pg_sys::TupleDesc,
    slot: *mut pg_sys::TupleTableSlot,
    count: usize,
}

impl Store {
    pub fn new() -> Self {
        let types = [pg_sys::OIDOID, pg_sys::TIDOID, pg_sys::XIDOID, Embedding::type_oid()];
        // SAFETY: everything lives as long as the memory context of the call.
        unsafe {
            let description = pg_sys::CreateTemplateTupleDesc(COLUMNS as i32);
            for (number, type_oid) in (1..).zip(types) {
                pg_sys::TupleDescInitEntry(description, number, c"".as_ptr(), type_oid, -1, 0);
            }
            Self {
                tuples: pg_sys::tuplestore_begin_heap(true, false, pg_sys::maintenance_work_mem),
                description,
                slot: pg_sys::MakeSingleTupleTableSlot(description, &raw const pg_sys::TTSOpsMinimalTuple),
                count: 0,
            }
        }
    }

    /// Number of embeddings.
    pub fn len(&self) -> usize {
        self.count
    }

    /// # Errors
    /// As [`Embedding::new`].
    pub fn push(&mut self, table: pg_sys::Oid, row: Version, values: &[f16], origin: Origin) -> Result<()> {
        let embedding = Embedding::new(values, origin)?;
        let mut tid = row.tid;
        let mut values: [pg_sys::Datum; COLUMNS] =
            [table.into(), (&raw mut tid).into(), pg_sys::Datum::from(row.xmin.into_inner()), embedding.datum()];
        // SAFETY: values of the types of the description, none NULL; they are copied, and the embedding is not used afterwards.
        unsafe {
            pg_sys::tuplestore_putvalues(
                self.tuples,
                self.description,
                values.as_mut_ptr(),
                [false; COLUMNS].as_mut_ptr(),
            );
            pg_sys::pfree(embedding.datum().cast_mut_ptr());
        }
        self.count += 1;
        Ok(())
    }

    /// Restarts at the first embedding.
    pub fn rewind(&mut self) {
        // SAFETY: begun with random access.
        unsafe { pg_sys::tuplestore_rescan(self.tuples) };
    }

    /// The next embedding, valid until the next call; `None` at the end.
    pub fn next(&mut self) -> Result<Option<(pg_sys::Oid, Version, Embedding<'_>)>> {
        // SAFETY: `push` wrote tuples of four columns of these types, none NULL.
        unsafe {
            if !pg_sys::tuplestore_gettupleslot(self.tuples, true, false, self.slot) {
                return Ok(None);
            }
            pg_sys::slot_getallattrs(self.slot);
            let values = std::slice::from_raw_parts((*self.slot).tts_values, COLUMNS);
            let tid = *values[1].cast_mut_ptr::<pg_sys::ItemPointerData>();
            let xmin = pg_sys::TransactionId::from(values[2].value() as u32);
            let embedding = Embedding::from_datum(values[3], false).expect("not NULL");
            Ok(Some((pg_sys::Oid::from(values[0].value() as u32), Version { tid, xmin }, embedding)))
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: made by `new`.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                pg_sys::tuplestore_end(self.tuples);
            }
        }
    }
}
