//! Sorting of coded rows by list, in memory or on disk, by one process or several.

use crate::error::Result;
use pgrx::prelude::*;
use sketch_model::index::{Origin, RowId};
use std::slice;

/// The `<` of real; that of integer is `Int4LessOperator`.
const FLOAT4_LESS: u32 = 622;
/// Bytes in front of a coded row: block, offset, model, codebook.
const PREFIX: usize = 4 + 2 + 4 + 4;

/// `maintenance_work_mem`, in kB.
pub fn memory() -> i32 {
    // SAFETY: a setting, read by the server's only thread.
    unsafe { pg_sys::maintenance_work_mem }
}

/// Rows that are being sorted: `list` integer, `order` real, the rest as bytea.
pub struct Sort {
    state: *mut pg_sys::Tuplesortstate,
    put: *mut pg_sys::TupleTableSlot,
    payload: Vec<u8>,
}

impl Sort {
    /// `memory`: kB; `part`: of a sort that several processes share.
    pub fn new(memory: i32, part: Option<pg_sys::SortCoordinateData>) -> Self {
        let mut part = part;
        let coordinate = part.as_mut().map_or(std::ptr::null_mut(), |part| &raw mut *part);
        let mut columns = [1, 2];
        let mut operators = [pg_sys::Oid::from(pg_sys::Int4LessOperator), pg_sys::Oid::from(FLOAT4_LESS)];
        let mut collations = [pg_sys::InvalidOid; 2];
        let mut nulls_first = [false; 2];
        // SAFETY: the arrays have an entry for each key; the server copies what it is passed.
        unsafe {
            let row = Self::describe();
            let state = pg_sys::tuplesort_begin_heap(
                row,
                2,
                columns.as_mut_ptr(),
                operators.as_mut_ptr(),
                collations.as_mut_ptr(),
                nulls_first.as_mut_ptr(),
                memory,
                coordinate,
                pg_sys::TUPLESORT_NONE as i32,
            );
            let put = pg_sys::MakeSingleTupleTableSlot(row, &raw const pg_sys::TTSOpsVirtual);
            Self { state, put, payload: Vec::new() }
        }
    }

    fn describe() -> pg_sys::TupleDesc {
        // SAFETY: three columns are made and filled.
        unsafe {
            let row = pg_sys::CreateTemplateTupleDesc(3);
            pg_sys::TupleDescInitEntry(row, 1, c"list".as_ptr(), pg_sys::INT4OID, -1, 0);
            pg_sys::TupleDescInitEntry(row, 2, c"order".as_ptr(), pg_sys::FLOAT4OID, -1, 0);
            pg_sys::TupleDescInitEntry(row, 3, c"payload".as_ptr(), pg_sys::BYTEAOID, -1, 0);
            row
        }
    }

    /// Adds a coded row.
    pub fn put(&mut self, list: u32, order: f32, row: RowId, origin: Origin, bytes: &[u8]) {
        let size = pg_sys::VARHDRSZ + PREFIX + bytes.len();
        self.payload.clear();
        self.payload.reserve(size);
        self.payload.extend([0; pg_sys::VARHDRSZ]);
        self.payload.extend(row.block.to_ne_bytes());
        self.payload.extend(row.offset.to_ne_bytes());
        self.payload.extend(origin.model.to_ne_bytes());
        self.payload.extend(origin.codebook.to_ne_bytes());
        self.payload.extend(bytes);
        // SAFETY: the slot has three columns; the sort copies them. The length word lies in the first four bytes of the
        // payload, where the server reads it without regard to alignment or, by the allocator, aligned.
        unsafe {
            let payload = self.payload.as_mut_ptr();
            pgrx::varlena::set_varsize_4b(payload.cast(), size as i32);
            pg_sys::ExecClearTuple(self.put);
            let values = (*self.put).tts_values;
            *values = pg_sys::Datum::from(list as i32);
            *values.add(1) = pg_sys::Datum::from(order.to_bits());
            *values.add(2) = pg_sys::Datum::from(payload);
            slice::from_raw_parts_mut((*self.put).tts_isnull, 3).fill(false);
            pg_sys::ExecStoreVirtualTuple(self.put);
            pg_sys::tuplesort_puttupleslot(self.state, self.put);
        }
    }

    /// Sorts what was put; in a part of a shared sort, hands it to the leader.
    pub fn perform(&mut self) {
        // SAFETY: the sort is in progress.
        unsafe { pg_sys::tuplesort_performsort(self.state) };
    }

    /// Calls `each` for all rows in ascending order of `(list, order)`.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn drain(self, mut each: impl FnMut(u32, RowId, Origin, &[u8]) -> Result<()>) -> Result<()> {
        // SAFETY: the sort is performed; a row is read before the next one takes its place.
        unsafe {
            let slot = pg_sys::MakeSingleTupleTableSlot(Self::describe(), &raw const pg_sys::TTSOpsMinimalTuple);
            while pg_sys::tuplesort_gettupleslot(self.state, true, false, slot, std::ptr::null_mut()) {
                pg_sys::slot_getallattrs(slot);
                let values = (*slot).tts_values;
                let list = (*values).value() as u32;
                let payload = pgrx::varlena::varlena_to_byte_slice((*values.add(2)).cast_mut_ptr());
                let (row, origin) = parse(payload);
                each(list, row, origin, &payload[PREFIX..])?;
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
        Ok(())
    }
}

fn parse(payload: &[u8]) -> (RowId, Origin) {
    let word = |start| u32::from_ne_bytes(payload[start..start + 4].try_into().expect("four bytes"));
    let offset = u16::from_ne_bytes([payload[4], payload[5]]);
    (RowId { block: word(0), offset }, Origin { model: word(6), codebook: word(10) })
}

impl Drop for Sort {
    fn drop(&mut self) {
        // An error leaves memory and files to the end of the transaction.
        if !std::thread::panicking() {
            // SAFETY: both were made by `new`.
            unsafe {
                pg_sys::tuplesort_end(self.state);
                pg_sys::ExecDropSingleTupleTableSlot(self.put);
            }
        }
    }
}
