//! The type `embedding`.
//!
//! | bytes | hold |
//! | --- | --- |
//! | 0 to 3 | length word of every variable-length value of Postgres |
//! | 4 to 5 | dimension `d`, 1 to 16,000 |
//! | 6 to 7 | version of this layout, 0 |
//! | 8 to 11 | tag of the model, 0 for none |
//! | 12 to 15 | tag of the codebook, 0 for not fused |
//! | 16 on | `d` IEEE half-precision values |
//!
//! 512 dimensions take 1 KiB and stay in the row, where a sequential scan reads them without a detour.

mod average;
mod distance;
mod io;

pub use sketch_model::origin::Origin;

use crate::catalog;
use crate::error::{Result, SqlError};
use half::f16;
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use std::borrow::Cow;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;

/// Version of the layout above.
const LAYOUT: u16 = 0;
const HEADER: usize = size_of::<Header>();

thread_local! {
    /// OID of the type, as last looked up.
    static TYPE: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::InvalidOid) };
}

#[repr(C)]
struct Header {
    length_word: u32,
    dimension: u16,
    layout: u16,
    model: u32,
    codebook: u32,
}

/// An embedding in the server's memory, aligned and not compressed.
#[derive(Clone, Copy)]
pub struct Embedding<'a> {
    header: NonNull<Header>,
    memory: PhantomData<&'a Header>,
}

impl<'a> Embedding<'a> {
    /// Allocates an embedding in the current memory context.
    ///
    /// # Errors
    /// If there are no values, too many, or one is not finite in half precision.
    pub fn new(values: &[f16], origin: Origin) -> Result<Self> {
        sketch_model::embedding::check(values)?;
        Ok(Self::allocate(values, origin))
    }

    fn allocate(values: &[f16], Origin { model, codebook }: Origin) -> Self {
        let size = HEADER + size_of_val(values);
        // SAFETY: palloc returns `size` bytes, aligned for any type, or raises; header and values fit in them exactly.
        unsafe {
            let header = pg_sys::palloc(size).cast::<Header>();
            header.write(Header { length_word: 0, dimension: values.len() as u16, layout: LAYOUT, model, codebook });
            pgrx::varlena::set_varsize_4b(header.cast(), size as i32);
            header.add(1).cast::<f16>().copy_from_nonoverlapping(values.as_ptr(), values.len());
            Self { header: NonNull::new_unchecked(header), memory: PhantomData }
        }
    }

    /// A copy in the current memory context.
    pub fn copy(&self) -> Embedding<'static> {
        Embedding::allocate(self.values(), self.origin())
    }

    /// The values, shape `(d,)`.
    pub fn values(&self) -> &'a [f16] {
        // SAFETY: as many values lie behind the header as it says: we wrote them, or `from_datum` compared the sizes.
        unsafe {
            let header = self.header.as_ptr();
            slice::from_raw_parts(header.add(1).cast(), usize::from((*header).dimension))
        }
    }

    /// Tags of model and codebook.
    pub fn origin(&self) -> Origin {
        // SAFETY: the header is initialised and lives as long as `'a`.
        let header = unsafe { self.header.as_ref() };
        Origin { model: header.model, codebook: header.codebook }
    }

    /// Whether the last value is the hub channel of a photo ([`sketch_model::hubs`]) that `other` lacks.
    #[inline]
    pub fn has_hub_channel_beside(&self, other: Self) -> bool {
        self.values().len() == other.values().len() + 1 && self.origin().model != 0
    }

    /// The values of a row as an index of `dimension` channels takes them.
    ///
    /// A hub channel that the row lacks is zero. One that the index lacks is left out: the distance can only grow by it, so
    /// that a bound without it is a bound still.
    pub fn values_for_index(&self, dimension: usize) -> Cow<'a, [f16]> {
        match self.origin().model {
            0 => Cow::Borrowed(self.values()),
            _ => self.query_for_index(dimension),
        }
    }

    /// The same of a query, which may lack the tag that tells a hub channel from other values.
    pub fn query_for_index(&self, dimension: usize) -> Cow<'a, [f16]> {
        let values = self.values();
        if values.len() + 1 == dimension {
            Cow::Owned([values, &[f16::ZERO]].concat())
        } else if values.len() == dimension + 1 && self.origin().model != 0 {
            Cow::Borrowed(&values[..dimension])
        } else {
            Cow::Borrowed(values)
        }
    }

    /// The embedding as Postgres passes it.
    pub fn datum(self) -> pg_sys::Datum {
        self.header.as_ptr().into()
    }
}

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_dimension(embedding: Embedding<'_>) -> i32 {
    embedding.values().len() as i32
}

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_model_id(embedding: Embedding<'_>) -> Option<i64> {
    tag_id(embedding.origin().model)
}

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_codebook_id(embedding: Embedding<'_>) -> Option<i64> {
    tag_id(embedding.origin().codebook)
}

fn tag_id(tag: u32) -> Option<i64> {
    (tag != 0).then_some(tag.into())
}

/// Refuses bytes that are no embedding: a cast that a superuser made, or damage, may bring them.
#[cold]
fn damaged(size: usize) {
    let error = SqlError::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "embedding is damaged")
        .detail(format!("Its {size} bytes are more or fewer than its dimension says."));
    ErrorReport::from(error).report(PgLogLevel::ERROR);
}

/// Refuses an embedding that a later version wrote.
#[cold]
fn unknown_layout(layout: u16) {
    let error = SqlError::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("embedding has layout {layout}, expected {LAYOUT}"),
    )
    .hint("Install the version of pg_sketch that wrote it, or a later one.");
    ErrorReport::from(error).report(PgLogLevel::ERROR);
}

impl FromDatum for Embedding<'_> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        let varlena = datum.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: a datum of type embedding points to a varlena. The plain form, all that a scan of inline values
        // meets, is used where it lies: a call into the server would cost more than the distance.
        unsafe {
            let plain = pgrx::varlena::varatt_is_4b_u(varlena);
            let value = if plain { varlena } else { pg_sys::pg_detoast_datum(varlena) };
            let header = value.cast::<Header>();
            let size = pgrx::varlena::varsize_4b(value);
            if size >= HEADER && (*header).layout != LAYOUT {
                unknown_layout((*header).layout);
            }
            if size < HEADER || size != HEADER + 2 * usize::from((*header).dimension) {
                damaged(size);
            }
            NonNull::new(header).map(|header| Self { header, memory: PhantomData })
        }
    }
}

impl IntoDatum for Embedding<'_> {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.datum())
    }

    /// The type in the extension's schema. A look-up by name alone would follow the caller's `search_path`.
    fn type_oid() -> pg_sys::Oid {
        let known = TYPE.get();
        // SAFETY: a plain look-up in the catalog. The type has a new OID after DROP and CREATE EXTENSION.
        if unsafe { pg_sys::get_typisdefined(known) } {
            return known;
        }
        let found =
            catalog::extension_schema().map_or(pg_sys::InvalidOid, |schema| catalog::type_oid(schema, c"embedding"));
        TYPE.set(found);
        found
    }
}

// SAFETY: the arguments that SQL declares as embedding reach us as datums of that type.
unsafe impl<'fcx> ArgAbi<'fcx> for Embedding<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        let index = arg.index();
        // SAFETY: as above; strict functions get no NULL, others take `Option`.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or_else(|| panic!("argument {index} must not be null"))
    }
}

// SAFETY: the datum points to memory of a context that outlives the call.
unsafe impl BoxRet for Embedding<'_> {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: as above.
        unsafe { fcinfo.return_raw_datum(self.datum()) }
    }
}

// SAFETY: the SQL type has this name.
unsafe impl SqlTranslatable for Embedding<'_> {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Embedding);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("embedding"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("embedding")));
}
