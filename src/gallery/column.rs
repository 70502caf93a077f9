//! The type `sketch.regcolumn`: a column of a table, stored by its number and printed by its name.
//!
//! Like `regclass`, it survives renames, and a dump holds names. A restore turns them into the numbers of the new table,
//! which differ if the old one had dropped columns.

use crate::catalog;
use crate::error::{Result, SqlError};
use pgrx::PgList;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};
use std::ptr;

/// A column of a table. As a datum: the table's OID, then 16 bits of the column's number.
#[derive(Clone, Copy)]
pub struct Column {
    table: pg_sys::Oid,
    number: pg_sys::AttrNumber,
}

impl Column {
    /// The column of this name, `None` if the table has none.
    pub fn find(table: pg_sys::Oid, name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: a plain look-up in the catalog.
        let number = unsafe { pg_sys::get_attnum(table, name.as_ptr()) };
        (number > 0).then_some(Self { table, number })
    }

    /// The column's name, `None` if the column or its table is gone.
    pub fn name(self) -> Option<String> {
        // SAFETY: plain look-ups in the catalog. `get_attnum` does not find a dropped column by the name it still has.
        unsafe {
            let name = pg_sys::get_attname(self.table, self.number, true);
            (!name.is_null() && pg_sys::get_attnum(self.table, name) == self.number)
                .then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
        }
    }

    /// The column's name, quoted for a statement.
    pub fn quoted(self) -> String {
        pgrx::spi::quote_identifier(self.name().unwrap_or_default())
    }

    /// Number of the column in its table or in a partition, which may number it differently; `None` if it is gone.
    pub fn number_in(self, table: pg_sys::Oid) -> Option<pg_sys::AttrNumber> {
        if table == self.table { Some(self.number) } else { Self::find(table, &self.name()?).map(|found| found.number) }
    }

    /// OID of the column's type, `InvalidOid` if the column is gone.
    pub fn value_type(self) -> pg_sys::Oid {
        // SAFETY: a plain look-up in the catalog.
        unsafe { pg_sys::get_atttype(self.table, self.number) }
    }

    fn bits(self) -> i64 {
        i64::from(self.table.to_u32()) << 16 | i64::from(self.number as u16)
    }

    fn from_bits(bits: i64) -> Self {
        Self { table: pg_sys::Oid::from((bits >> 16) as u32), number: bits as u16 as pg_sys::AttrNumber }
    }
}

impl FromDatum for Column {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then(|| Self::from_bits(datum.value() as i64))
    }
}

impl IntoDatum for Column {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        self.bits().into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        // SAFETY: plain look-ups in the catalog.
        unsafe { catalog::type_oid(pg_sys::get_namespace_oid(c"sketch".as_ptr(), true), c"regcolumn") }
    }
}

/// Reads `table.column`.
#[pg_extern(stable, strict, parallel_safe)]
fn regcolumn_in(text: &CStr) -> Result<i64, ErrorReport> {
    // SAFETY: the server's parser of qualified names returns a list of at least one string.
    let (table, name) = unsafe {
        #[cfg(feature = "pg15")]
        let names = pg_sys::stringToQualifiedNameList(text.as_ptr());
        #[cfg(not(feature = "pg15"))]
        let names = pg_sys::stringToQualifiedNameList(text.as_ptr(), ptr::null_mut());
        let mut names = PgList::<pg_sys::String>::from_pg(names);
        let name = names.pop().map(|name| CStr::from_ptr((*name).sval));
        if names.is_empty() {
            return Err(SqlError::new(
                PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
                format!("invalid input syntax for type regcolumn: \"{}\"", text.to_string_lossy()),
            )
            .into());
        }
        let table = pg_sys::RangeVarGetRelidExtended(
            pg_sys::makeRangeVarFromNameList(names.as_ptr()),
            pg_sys::NoLock as pg_sys::LOCKMODE,
            0,
            None,
            ptr::null_mut(),
        );
        (table, name.unwrap_or_default().to_string_lossy())
    };
    let column = Column::find(table, &name).ok_or_else(|| {
        SqlError::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!(
                "column \"{name}\" of table \"{}\" does not exist",
                catalog::relation_name(table).unwrap_or_default()
            ),
        )
    })?;
    Ok(column.bits())
}

/// Prints `table.column`, or OID and number if the column is gone; the latter cannot be read back.
#[pg_extern(stable, strict, parallel_safe)]
fn regcolumn_out(column: i64) -> Result<CString, ErrorReport> {
    let column = Column::from_bits(column);
    let text = match column.name() {
        Some(_) => format!("{}.{}", catalog::relation_name(column.table)?, column.quoted()),
        None => format!("{}.{}", column.table.to_u32(), column.number),
    };
    Ok(CString::new(text).expect("names have no null bytes"))
}

#[pg_extern(stable, strict, parallel_safe)]
fn column_name(column: i64) -> Option<CString> {
    Column::from_bits(column).name().and_then(|name| CString::new(name).ok())
}

#[pg_extern(immutable, strict, parallel_safe)]
fn column_number(column: i64) -> i16 {
    Column::from_bits(column).number
}
