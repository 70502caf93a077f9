//! A row of a gallery: a new one in the trigger, or a stored one.

use super::Gallery;
use super::column::Column;
use crate::embedding::Embedding;
use crate::error::{Result, SqlError};
use pgrx::PgRelation;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::num::NonZeroUsize;

/// Characters of a row's name in a message.
const NAME_LENGTH: usize = 120;

/// Number of a column, from 1, whose type is known.
pub type RowColumn = NonZeroUsize;

/// A row and, in an UPDATE, the row that it replaces.
pub struct Row<'a> {
    relation: PgRelation,
    new: pg_sys::HeapTuple,
    old: Option<pg_sys::HeapTuple>,
    tuples: PhantomData<&'a pg_sys::HeapTupleData>,
}

/// What the trigger returns: the row to store.
pub struct NewRow(pg_sys::HeapTuple);

// SAFETY: the tuple is in memory of a context that outlives the call.
unsafe impl BoxRet for NewRow {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: as above; a trigger returns a pointer to its tuple.
        unsafe { fcinfo.return_raw_datum(self.0.into()) }
    }
}

// SAFETY: SQL declares functions that return it so.
unsafe impl SqlTranslatable for NewRow {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(NewRow);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("trigger"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("trigger")));
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
            _ => return Err(not_fired()),
        };
        Ok(Self { relation, new, old, tuples: PhantomData })
    }

    /// The row that a statement has written.
    ///
    /// # Errors
    /// If the trigger is not fired after an INSERT or UPDATE of each row.
    pub fn written(trigger: &'a PgTrigger<'a>) -> Result<Self> {
        let relation = trigger.relation().map_err(protocol)?;
        let data = trigger.trigger_data();
        let (new, old) = match (trigger.when(), trigger.level(), trigger.op()) {
            (Ok(PgTriggerWhen::After), PgTriggerLevel::Row, Ok(PgTriggerOperation::Insert)) => {
                (data.tg_trigtuple, None)
            }
            (Ok(PgTriggerWhen::After), PgTriggerLevel::Row, Ok(PgTriggerOperation::Update)) => {
                (data.tg_newtuple, Some(data.tg_trigtuple))
            }
            _ => {
                return Err(SqlError::new(
                    PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                    "sketch_queue_trigger must be fired AFTER INSERT OR UPDATE, FOR EACH ROW",
                ));
            }
        };
        Ok(Self { relation, new, old, tuples: PhantomData })
    }

    /// Where the row is stored.
    pub fn tid(&self) -> pg_sys::ItemPointerData {
        // SAFETY: the tuple is the server's.
        unsafe { (*self.new).t_self }
    }

    /// Whether the statement has inserted it.
    pub fn is_new(&self) -> bool {
        self.old.is_none()
    }

    /// Whether a value of the new row is NULL.
    pub fn is_null(&self, column: RowColumn) -> bool {
        self.raw(self.new, column).is_none()
    }

    /// The stored row at a place; `None` if the active snapshot does not see it.
    pub fn read(relation: PgRelation, mut tid: pg_sys::ItemPointerData) -> Option<Self> {
        // SAFETY: the relation is open, and has storage; the copy lives as long as the memory context of the call.
        let new = unsafe {
            let slot = pg_sys::table_slot_create(relation.as_ptr(), std::ptr::null_mut());
            let snapshot = pg_sys::GetActiveSnapshot();
            let found = pg_sys::table_tuple_fetch_row_version(relation.as_ptr(), &mut tid, snapshot, slot);
            let tuple = found.then(|| pg_sys::ExecCopySlotHeapTuple(slot));
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            tuple?
        };
        Some(Self { relation, new, old: None, tuples: PhantomData })
    }

    /// Name of the table.
    pub fn table(&self) -> &str {
        self.relation.name()
    }

    /// OID of the table.
    pub fn table_oid(&self) -> pg_sys::Oid {
        self.relation.oid()
    }

    /// The number of a column of the gallery in this table.
    ///
    /// # Errors
    /// If it was dropped, or its type is no longer `type_oid`.
    pub fn column(&self, column: Column, type_oid: pg_sys::Oid) -> Result<RowColumn> {
        let columns = self.relation.tuple_desc();
        let number = column.number_in(self.table_oid()).unwrap_or_default();
        match columns.iter().find(|found| found.num() == number && !found.is_dropped()) {
            Some(found) if found.type_oid().value() == type_oid => {
                Ok(RowColumn::new(number as usize).expect("columns count from 1"))
            }
            found => {
                let problem = match found {
                    Some(found) => {
                        format!("column \"{}\" of table \"{}\" is of another type", found.name(), self.table())
                    }
                    None => format!("a column of the gallery \"{}\" was dropped", self.table()),
                };
                Err(SqlError::new(PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN, problem)
                    .hint("Call sketch_disable and sketch_enable to prepare the table anew."))
            }
        }
    }

    /// A value of the new row, `None` if it is NULL.
    pub fn new_value<T: FromDatum>(&self, column: RowColumn) -> Option<T> {
        // SAFETY: the tuple is the server's; `column` has checked the type.
        unsafe { T::from_datum(self.raw(self.new, column)?, false) }
    }

    /// Whether the row that is replaced has a value in a column.
    pub fn had_value(&self, column: RowColumn) -> bool {
        self.old.is_some_and(|old| self.raw(old, column).is_some())
    }

    /// Whether a column of variable length is what it was, or the row is new.
    pub fn is_unchanged(&self, column: RowColumn) -> bool {
        let Some(old) = self.old else { return true };
        match (self.raw(old, column), self.raw(self.new, column)) {
            // SAFETY: both are datums of the same variable-length type.
            (Some(old), Some(new)) => unsafe { same_bytes(old, new) },
            (old, new) => old.is_none() && new.is_none(),
        }
    }

    /// The new row with two columns replaced.
    pub fn with(&self, changes: [(RowColumn, Option<Embedding<'_>>); 2]) -> NewRow {
        let mut columns = changes.map(|(column, _)| column.get() as i32);
        let mut values = changes.map(|(_, value)| value.map_or(pg_sys::Datum::null(), Embedding::datum));
        let mut nulls = changes.map(|(_, value)| value.is_none());
        // SAFETY: three arrays of one length; `column` has checked that these columns are of type embedding.
        unsafe {
            NewRow(pg_sys::heap_modify_tuple_by_cols(
                self.new,
                self.relation.rd_att,
                changes.len() as i32,
                columns.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            ))
        }
    }

    /// The new row as it is.
    pub fn unchanged(&self) -> NewRow {
        NewRow(self.new)
    }

    /// The row by its primary key, or else by all columns that the gallery does not own: `row (id)=(17)`.
    ///
    /// Like the server's own messages, it shows only columns that the user may select, and none if row security applies.
    pub fn name(&self, gallery: &Gallery) -> String {
        let key = self.primary_key();
        let own = [gallery.image, gallery.embedding, gallery.fused].map(|column| column.number_in(self.table_oid()));
        let columns = self.relation.tuple_desc();
        let named = columns.iter().filter(|column| !column.is_dropped()).filter(|column| {
            if key.is_empty() { !own.contains(&Some(column.num())) } else { key.contains(&i32::from(column.num())) }
        });
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for column in named.filter(|column| self.may_read(column.num())) {
            names.push(column.name().to_owned());
            values.push(self.printed(column.num()));
        }
        if names.is_empty() || names.len() < key.len() {
            return "a row".to_owned();
        }
        let name = format!("row ({})=({})", names.join(", "), values.join(", "));
        match name.char_indices().nth(NAME_LENGTH) {
            Some((end, _)) => format!("{}...", &name[..end]),
            None => name,
        }
    }

    /// Whether the user may read a column of this row.
    fn may_read(&self, number: i16) -> bool {
        let table = self.table_oid();
        // SAFETY: plain look-ups in the catalog.
        unsafe {
            let secured = pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true);
            let (user, select) = (pg_sys::GetUserId(), pg_sys::ACL_SELECT as pg_sys::AclMode);
            let granted = pg_sys::AclResult::ACLCHECK_OK;
            secured != pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
                && (pg_sys::pg_class_aclcheck(table, user, select) == granted
                    || pg_sys::pg_attribute_aclcheck(table, number, user, select) == granted)
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

    fn raw(&self, tuple: pg_sys::HeapTuple, column: RowColumn) -> Option<pg_sys::Datum> {
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

/// The error of a call that is no trigger's, or of a trigger that fires at another time.
pub fn not_fired() -> SqlError {
    SqlError::new(
        PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
        "sketch_trigger must be fired BEFORE INSERT OR UPDATE, FOR EACH ROW",
    )
}

fn protocol(error: PgTriggerError) -> SqlError {
    SqlError::new(PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED, error.to_string())
}
