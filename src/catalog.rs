//! Reading `sketch.model`, `sketch.codebook` and `sketch.bank`: which row is in use, and what it holds.

use crate::error::{Result, SqlError};
use crate::settings;
use ndarray::Array3;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sketch_model::codebook::{Codebook, Hubs, Length};
use sketch_model::digest::Sha256Digest;
use sketch_model::hubs::Bank;
use sketch_model::manifest::Manifest;
use std::ffi::CStr;

/// The first row of a query as three columns, NULLs if there is no row.
///
/// # Errors
/// If the query fails or a column is of another type.
pub fn first_row<A, B, C>(query: &str, args: &[DatumWithOid<'_>]) -> Result<(Option<A>, Option<B>, Option<C>)>
where
    A: FromDatum + IntoDatum,
    B: FromDatum + IntoDatum,
    C: FromDatum + IntoDatum,
{
    // `select` takes no snapshot of its own: these functions are STABLE, and some run in parallel workers.
    Spi::connect(|client| {
        let rows = client.select(query, Some(1), args)?;
        if rows.is_empty() { Ok((None, None, None)) } else { Ok(rows.first().get_three()?) }
    })
}

/// The first value of a query, `None` if it is NULL or there is no row.
///
/// # Errors
/// If the query fails or the value is of another type.
pub fn first_value<A: FromDatum + IntoDatum>(query: &str, args: &[DatumWithOid<'_>]) -> Result<Option<A>> {
    Spi::connect(|client| {
        let rows = client.select(query, Some(1), args)?;
        if rows.is_empty() { Ok(None) } else { Ok(rows.first().get_one()?) }
    })
}

/// The first column of all rows of a query, without NULLs.
///
/// # Errors
/// If the query fails or the value is of another type.
pub fn column<A: FromDatum + IntoDatum>(query: &str, args: &[DatumWithOid<'_>]) -> Result<Vec<A>> {
    Spi::connect(|client| {
        let values = client.select(query, None, args)?.map(|row| row.get(1)).collect::<Result<Vec<Option<A>>, _>>()?;
        Ok(values.into_iter().flatten().collect())
    })
}

/// Whether the SQL in this database is later than version 0.1.0, which had neither `sketch.gallery` nor
/// `sketch.codebook_name`: its triggers told about galleries by their arguments, and a codebook's name was the database's.
pub fn is_later_than_0_1_0() -> bool {
    // SAFETY: plain look-ups in the catalog; no relation is in a schema that does not exist.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"sketch".as_ptr(), true);
        pg_sys::get_relname_relid(c"gallery".as_ptr(), schema) != pg_sys::InvalidOid
    }
}

/// Whether the SQL in this database has `sketch.queue`, the queue of the background worker.
pub fn has_queue() -> bool {
    // SAFETY: as above.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"sketch".as_ptr(), true);
        pg_sys::get_relname_relid(c"queue".as_ptr(), schema) != pg_sys::InvalidOid
    }
}

/// Id of the newest model of that name, or of all if there is no name; `None` if there is none.
///
/// # Errors
/// If the table cannot be read.
pub fn find_model(name: Option<&str>) -> Result<Option<u32>> {
    let id = match name {
        Some(name) => first_value::<i64>(
            "SELECT model_id FROM sketch.model WHERE name OPERATOR(pg_catalog.=) $1 ORDER BY created_at DESC LIMIT 1",
            &[name.into()],
        ),
        None => first_value("SELECT model_id FROM sketch.model ORDER BY created_at DESC LIMIT 1", &[]),
    }?;
    Ok(id.map(|id| id as u32))
}

/// Id of the model of that name, or of the one in use.
///
/// # Errors
/// If there is none.
pub fn model_in_use(name: Option<&str>) -> Result<u32> {
    find_model(name)?.ok_or_else(|| match name {
        Some(name) => {
            SqlError::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("model \"{name}\" does not exist"))
                .hint("Table sketch.model lists the models; sketch_load_model loads one.")
        }
        None => SqlError::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "no model is loaded")
            .hint("SELECT sketch_load_model() loads the one that comes with the extension."),
    })
}

/// Graph and manifest of a model.
///
/// # Errors
/// If there is no such row or its manifest is of a later version.
pub fn read_model(id: u32) -> Result<(Vec<u8>, Manifest)> {
    let (onnx, manifest, _) = first_row::<Vec<u8>, String, bool>(
        "SELECT onnx, manifest::pg_catalog.text, true FROM sketch.model WHERE model_id OPERATOR(pg_catalog.=) $1",
        &[i64::from(id).into()],
    )?;
    match (onnx, manifest) {
        (Some(onnx), Some(manifest)) => Ok((onnx, Manifest::from_json(&manifest)?)),
        _ => Err(no_model(id)),
    }
}

/// Digest and manifest of a model, without its graph.
///
/// # Errors
/// As [`read_model`].
pub fn read_manifest(id: u32) -> Result<(Sha256Digest, Manifest)> {
    let (digest, manifest, _) = first_row::<Vec<u8>, String, bool>(
        "SELECT sha256, manifest::pg_catalog.text, true FROM sketch.model WHERE model_id OPERATOR(pg_catalog.=) $1",
        &[i64::from(id).into()],
    )?;
    match (digest.and_then(|digest| digest.try_into().ok()), manifest) {
        (Some(digest), Some(manifest)) => Ok((digest, Manifest::from_json(&manifest)?)),
        _ => Err(no_model(id)),
    }
}

fn no_model(id: u32) -> SqlError {
    SqlError::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("model with id {id} does not exist"))
}

/// What a codebook is called: names are their owner's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodebookName {
    pub owner: String,
    pub name: String,
}

/// Id of the newest codebook of that name for a model; `None` if there is none.
///
/// # Errors
/// If the table cannot be read.
pub fn find_codebook(codebook: &CodebookName, model: u32) -> Result<Option<u32>> {
    let (name, model) = (codebook.name.as_str().into(), i64::from(model).into());
    let id = if is_later_than_0_1_0() {
        first_value::<i64>(
            "SELECT n.codebook_id FROM sketch.codebook_name AS n \
             JOIN sketch.codebook AS c ON c.codebook_id OPERATOR(pg_catalog.=) n.codebook_id \
             WHERE n.name OPERATOR(pg_catalog.=) $1 AND c.model_id OPERATOR(pg_catalog.=) $2 \
             AND n.owner OPERATOR(pg_catalog.=) $3::pg_catalog.name ORDER BY n.created_at DESC LIMIT 1",
            &[name, model, codebook.owner.as_str().into()],
        )
    } else {
        first_value(
            "SELECT codebook_id FROM sketch.codebook WHERE name OPERATOR(pg_catalog.=) $1 \
             AND model_id OPERATOR(pg_catalog.=) $2 ORDER BY created_at DESC LIMIT 1",
            &[name, model],
        )
    }?;
    Ok(id.map(|id| id as u32))
}

/// A codebook, checked against its digest.
///
/// # Errors
/// If there is no such row, or its prototypes are not those that were loaded.
pub fn read_codebook(id: u32) -> Result<Codebook> {
    let damaged = || {
        SqlError::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "codebook is damaged")
            .detail(format!("The rows of sketch.prototype for codebook_id {id} are not those of its digest."))
    };
    Spi::connect(|client| {
        let later = if is_later_than_0_1_0() { "channel, hubs, bank_id" } else { "false, 0::real, NULL::bigint" };
        let query = format!(
            "SELECT model_id, subspaces, prototypes, dimension, weight, unit_length, {later} FROM sketch.codebook \
             WHERE codebook_id OPERATOR(pg_catalog.=) $1"
        );
        let row = client.select(&query, Some(1), &[i64::from(id).into()])?.first();
        let model: i64 = row.get(1)?.ok_or_else(damaged)?;
        let size = |column| -> Result<usize> { Ok(row.get::<i32>(column)?.ok_or_else(damaged)? as usize) };
        let (subspaces, prototypes, dimension) = (size(2)?, size(3)?, size(4)?);
        let weight: f32 = row.get(5)?.ok_or_else(damaged)?;
        let length = match (row.get(6)?.ok_or_else(damaged)?, row.get(7)?.ok_or_else(damaged)?) {
            (false, _) => Length::Own,
            (true, false) => Length::Scaled,
            (true, true) => Length::Completed,
        };
        let hubs = Hubs { strength: row.get(8)?.ok_or_else(damaged)?, bank: row.get::<i64>(9)?.unwrap_or(0) as u32 };
        let mut values: Vec<f32> = Vec::with_capacity(prototypes * dimension);
        let rows = client.select(
            "SELECT centroid FROM sketch.prototype WHERE codebook_id OPERATOR(pg_catalog.=) $1 \
             ORDER BY subspace, prototype",
            None,
            &[i64::from(id).into()],
        )?;
        for row in rows {
            values.extend(row.get::<Vec<f32>>(1)?.ok_or_else(damaged)?);
        }
        let shape = (subspaces, prototypes, dimension / subspaces.max(1));
        let centroids = Array3::from_shape_vec(shape, values).map_err(|_| damaged())?;
        let codebook = Codebook::new(centroids, weight, model as u32)?.with_length(length).with_hubs(hubs)?;
        if codebook.tag() == id { Ok(codebook) } else { Err(damaged()) }
    })
}

/// Id of the newest bank of a model; `None` if there is none.
///
/// # Errors
/// If the table cannot be read.
pub fn find_bank(model: u32) -> Result<Option<u32>> {
    if !is_later_than_0_1_0() {
        return Ok(None);
    }
    let id = first_value::<i64>(
        "SELECT bank_id FROM sketch.bank WHERE model_id OPERATOR(pg_catalog.=) $1 ORDER BY created_at DESC LIMIT 1",
        &[i64::from(model).into()],
    )?;
    Ok(id.map(|id| id as u32))
}

/// A bank, checked against its digest.
///
/// # Errors
/// If there is no such row, or its bytes are not those that were loaded.
pub fn read_bank(id: u32) -> Result<Bank> {
    let bytes = first_value::<Vec<u8>>(
        "SELECT drawings FROM sketch.bank WHERE bank_id OPERATOR(pg_catalog.=) $1",
        &[i64::from(id).into()],
    )?;
    let bank = bytes.and_then(|bytes| Bank::from_bytes(&bytes).ok()).filter(|bank| bank.tag() == id);
    bank.ok_or_else(|| {
        SqlError::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "bank of drawings is missing or damaged")
            .detail(format!("Table sketch.bank has no bank with id {id}, or not the one of its digest."))
            .hint("Load the bank again, with sketch_load_bank.")
    })
}

/// Name of a relation, quoted, and qualified where the search path asks for it.
///
/// # Errors
/// If there is none.
pub fn relation_name(oid: pg_sys::Oid) -> Result<String> {
    // SAFETY: a plain look-up in the catalog. `regclass` would print the number of what does not exist.
    if unsafe { pg_sys::get_rel_name(oid) }.is_null() {
        let missing = format!("relation with OID {} does not exist", oid.to_u32());
        return Err(SqlError::new(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, missing));
    }
    let name = first_value::<String>("SELECT $1::pg_catalog.regclass::pg_catalog.text", &[oid.into()])?;
    Ok(name.unwrap_or_default())
}

/// OID of a type by its schema and name, `InvalidOid` if there is none.
pub fn type_oid(schema: pg_sys::Oid, name: &CStr) -> pg_sys::Oid {
    // SAFETY: a plain look-up in the catalog.
    unsafe {
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::TYPENAMENSP as i32,
            pg_sys::Anum_pg_type_oid as i16,
            name.as_ptr().into(),
            schema.into(),
            0.into(),
            0.into(),
        )
    }
}

/// The schema that `CREATE EXTENSION` put functions and type `embedding` into.
///
/// # Errors
/// If the catalog cannot be read.
pub fn extension_schema() -> Result<pg_sys::Oid> {
    let schema = first_value(
        "SELECT extnamespace FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_sketch'",
        &[],
    )?;
    Ok(schema.unwrap_or(pg_sys::InvalidOid))
}

/// Name of that schema, quoted for a statement.
///
/// # Errors
/// As [`extension_schema`].
pub fn quoted_extension_schema() -> Result<String> {
    let name =
        first_value::<String>("SELECT $1::pg_catalog.regnamespace::pg_catalog.text", &[extension_schema()?.into()])?;
    Ok(name.unwrap_or_default())
}

#[pg_extern(stable, parallel_safe)]
fn current_model() -> Result<Option<i64>, ErrorReport> {
    Ok(find_model(settings::model().as_deref())?.map(i64::from))
}

#[pg_extern(stable, strict, parallel_safe)]
fn current_codebook_of(name: &str, owner: &str) -> Result<Option<i64>, ErrorReport> {
    let Some(model) = find_model(settings::model().as_deref())? else { return Ok(None) };
    let codebook = CodebookName { owner: owner.to_owned(), name: name.to_owned() };
    Ok(find_codebook(&codebook, model)?.map(i64::from))
}
