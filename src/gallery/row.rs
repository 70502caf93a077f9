//! The row that a trigger is to change.

use super::{Gallery, protocol};
use crate::embedding::Embedding;
use crate::error::{Result, SqlError};
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::prelude::*;
use pgrx::{AllocatedByPostgres, PgRelation, PgTupleDesc};
use std::ffi::CStr;
use std::marker::PhantomData;
use std::num::NonZeroUsize;

/// Characters of a row's name in a message.
const NAME_LENGTH: usize = 120;

/// Number of a column, from 1.
pub type Column = NonZeroUsize;

/// A row on its way into a table.
pub struct Row<'a> {
    relation: PgRelation,
    new: pg_sys::HeapTuple,
    old: Option<pg_sys::HeapTuple>,
    tuples: PhantomData<&'a pg_sys::HeapTupleData>,
}

impl<'a> Row<'a> {
    /// # Errors
    /// If the trigger is not fired before an INSERT or UPDATE of each row.
    pub fn of(trigger: &'a PgTrigger<'a>) -> Result<Self> {
        let relation = trigger.relation().map_err(protocol)?;
        let data = trigger.trigger_data();
        let (new, old) = match (trigger.when(), trigger.level(), trigger.op()) {
            (Ok(PgTriggerWhen::Before), PgTriggerLevel::Row, Ok(PgTriggerOperation::Insert)) => {
                (data.tg_trigtuple, None)
            }
            (Ok(PgTriggerWhen::Before), PgTriggerLevel::Row, Ok(PgTriggerOperation::Update)) => {
                (data.tg_newtuple, Some(data.tg_trigtuple))
            }
            _ => {
                return Err(SqlError::new(
                    PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                    "sketch_trigger must be fired BEFORE INSERT OR UPDATE, FOR EACH ROW",
                ));
            }
        };
        Ok(Self { relation, new, old, tuples: PhantomData })
    }

    /// Name of the table.
    pub fn table(&self) -> &str {
        self.relation.name()
    }

    /// The column of this name.
    ///
    /// # Errors
    /// If there is none, or it is of another type than `type_oid`.
    pub fn column(&self, name: &str, type_oid: pg_sys::Oid) -> Result<Column> {
        let columns = self.relation.tuple_desc();
        let found = columns.iter().find(|column| !column.is_dropped() && column.name() == name);
        match found.map(|column| (column.num(), column.type_oid().value())) {
            Some((number, found)) if found == type_oid => {
                Ok(Column::new(number as usize).expect("columns count from 1"))
            }
            found => {
                let problem = if found.is_some() { "is of another type" } else { "does not exist" };
                Err(SqlError::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("column \"{name}\" of table \"{}\" {problem}", self.table()),
                )
                .hint("Call sketch_disable and sketch_enable to prepare the table anew."))
            }
        }
    }

    /// A value of the new row, `None` if it is NULL.
    pub fn new_value<T: FromDatum>(&self, column: Column) -> Option<T> {
        // SAFETY: the tuple is the server's; `column` has checked the type.
        unsafe { T::from_datum(self.raw(self.new, column)?, false) }
    }

    /// Whether a column of variable length is what it was, or the row is new.
    pub fn is_unchanged(&self, column: Column) -> bool {
        let Some(old) = self.old else { return true };
        match (self.raw(old, column), self.raw(self.new, column)) {
            // SAFETY: both are datums of the same variable-length type.
            (Some(old), Some(new)) => unsafe { same_bytes(old, new) },
            (old, new) => old.is_none() && new.is_none(),
        }
    }

    /// The new row with two columns replaced.
    pub fn with(&self, changes: [(Column, Option<Embedding<'_>>); 2]) -> PgHeapTuple<'a, AllocatedByPostgres> {
        let mut columns = changes.map(|(column, _)| column.get() as i32);
        let mut values = changes.map(|(_, value)| value.map_or(pg_sys::Datum::null(), Embedding::datum));
        let mut nulls = changes.map(|(_, value)| value.is_none());
        // SAFETY: three arrays of one length; `column` has checked that these columns are of type embedding.
        unsafe {
            let changed = pg_sys::heap_modify_tuple_by_cols(
                self.new,
                self.relation.rd_att,
                changes.len() as i32,
                columns.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            PgHeapTuple::from_heap_tuple(PgTupleDesc::from_pg_copy(self.relation.rd_att), changed)
        }
    }

    /// The row by its primary key, or else by all that the gallery does not own: `row (id)=(17)`.
    pub fn name(&self, gallery: &Gallery) -> String {
        let key = self.primary_key();
        let own = [&gallery.image, &gallery.embedding, &gallery.fused];
        let columns = self.relation.tuple_desc();
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for column in columns.iter().filter(|column| !column.is_dropped()) {
            let named = if key.is_empty() {
                !own.iter().any(|name| *name == column.name())
            } else {
                key.contains(&i32::from(column.num()))
            };
            if named {
                names.push(column.name().to_owned());
                values.push(self.printed(column.num()));
            }
        }
        if names.is_empty() {
            return "a row".to_owned();
        }
        let name = format!("row ({})=({})", names.join(", "), values.join(", "));
        match name.char_indices().nth(NAME_LENGTH) {
            Some((end, _)) => format!("{}...", &name[..end]),
            None => name,
        }
    }

    fn printed(&self, number: i16) -> String {
        // SAFETY: the column exists; the server prints it with the type's own output function.
        unsafe {
            let text = pg_sys::SPI_getvalue(self.new, self.relation.rd_att, number.into());
            if text.is_null() { "null".to_owned() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }

    /// Numbers of the columns of the primary key.
    fn primary_key(&self) -> Vec<i32> {
        // SAFETY: the relation is open and locked by the statement that fired the trigger.
        unsafe {
            let bitmap = pg_sys::RelationGetIndexAttrBitmap(
                self.relation.as_ptr(),
                pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_PRIMARY_KEY,
            );
            std::iter::successors(Some(-1), |member| Some(pg_sys::bms_next_member(bitmap, *member)))
                .skip(1)
                .take_while(|member| *member >= 0)
                .map(|member| member + pg_sys::FirstLowInvalidHeapAttributeNumber)
                .collect()
        }
    }

    fn raw(&self, tuple: pg_sys::HeapTuple, column: Column) -> Option<pg_sys::Datum> {
        // SAFETY: the tuple is of this relation, and the column one of its.
        unsafe { pgrx::htup::heap_getattr_raw(tuple, column, self.relation.rd_att) }
    }
}

/// Whether two variable-length values are the same; what was not touched is not read.
unsafe fn same_bytes(a: pg_sys::Datum, b: pg_sys::Datum) -> bool {
    // SAFETY: the caller passes two varlenas.
    unsafe {
        let as_stored = |datum: pg_sys::Datum| {
            let varlena = datum.cast_mut_ptr::<pg_sys::varlena>();
            std::slice::from_raw_parts(varlena.cast::<u8>(), pgrx::varlena::varsize_any(varlena))
        };
        as_stored(a) == as_stored(b)
            || pg_sys::toast_raw_datum_size(a) == pg_sys::toast_raw_datum_size(b)
                && <&[u8]>::from_datum(a, false) == <&[u8]>::from_datum(b, false)
    }
}
