//! Loading networks and codebooks into the database.

use crate::catalog::{CodebookName, find_model, first_value};
use crate::error::{Result, SqlError};
use crate::role::as_owner;
use crate::{catalog, codebook, files, inference, settings};
use pgrx::JsonB;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sketch_model::codebook::Codebook;
use sketch_model::digest;
use sketch_model::manifest::Manifest;
use std::ffi::CString;
use std::fs;

/// File name, without its ending, of the network that comes with the extension.
const SHIPPED: &str = "lite2-sketch";
const LONGEST_MODEL_NAME: usize = 63;
/// A gallery's codebook is named after its schema and table.
const LONGEST_CODEBOOK_NAME: usize = 63 + 1 + 63;

#[pg_extern(volatile, parallel_unsafe)]
fn load_shipped_model() -> Result<i64, ErrorReport> {
    if let Some(id) = find_model(None)? {
        return Ok(id.into());
    }
    let read = |ending: &str| {
        let path = files::path(&format!("{SHIPPED}.{ending}"));
        fs::read(&path).map_err(|error| {
            SqlError::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
                format!("could not read the shipped model \"{}\"", path.display()),
            )
            .detail(format!("{error}."))
            .hint("Install pg_sketch again, or load a model with sketch_load_model(name, onnx, manifest).")
        })
    };
    let manifest = Manifest::from_json(&String::from_utf8_lossy(&read("json")?)).map_err(SqlError::from)?;
    Ok(store_model(&manifest.name, &read("onnx")?, &manifest)?)
}

#[pg_extern(volatile, strict, parallel_unsafe)]
fn load_model(name: &str, onnx: &[u8], manifest: JsonB) -> Result<i64, ErrorReport> {
    let manifest = Manifest::from_json(&manifest.0.to_string()).map_err(SqlError::from)?;
    Ok(store_model(name, onnx, &manifest)?)
}

/// Writes a model after a trial run. Returns its id.
fn store_model(name: &str, onnx: &[u8], manifest: &Manifest) -> Result<i64> {
    check_name("model", name, LONGEST_MODEL_NAME)?;
    let digest = manifest.digest(onnx);
    inference::try_out(digest::tag(&digest), onnx, manifest)?;
    let id = i64::from(digest::tag(&digest));
    let manifest: serde_json::Value = serde_json::from_str(&manifest.to_json()).expect("written by ourselves");
    let is_new = insert(
        "INSERT INTO sketch.model (model_id, name, sha256, onnx, manifest) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT DO NOTHING",
        &[id.into(), name.into(), digest.to_vec().into(), onnx.to_vec().into(), JsonB(manifest).into()],
    )?;
    let query = "SELECT name FROM sketch.model WHERE model_id OPERATOR(pg_catalog.=) $1";
    match if is_new { None } else { first_value::<String>(query, &[id.into()])? } {
        Some(known) if known != name => Err(SqlError::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("the same model is loaded already as \"{known}\""),
        )),
        _ => Ok(id),
    }
}

#[pg_extern(volatile, strict, parallel_unsafe)]
fn load_codebook_for(name: &str, codebook: JsonB, owner: &str) -> Result<i64, ErrorReport> {
    let codebook = Codebook::from_json(&codebook.0.to_string()).map_err(SqlError::from)?;
    Ok(store_codebook(name, &codebook, owner)?)
}

/// The codebook in use under a name, as `load_codebook_for` takes it: for another server, whose galleries then compare with
/// those of this one.
#[pg_extern(stable, strict, parallel_safe)]
fn export_codebook(name: &str, owner: &str) -> Result<JsonB, ErrorReport> {
    let model = catalog::model_in_use(settings::model().as_deref())?;
    let name = CodebookName { owner: owner.to_owned(), name: name.to_owned() };
    let id = catalog::find_codebook(&name, model)?.ok_or_else(|| codebook::no_codebook(&name, "current model"))?;
    let text = codebook::codebook(id)?.to_json();
    Ok(JsonB(serde_json::from_str(&text).expect("written by ourselves")))
}

/// Writes a codebook under a name of `owner`, as the owner of the tables: whoever could add a codebook to another's name
/// would change how that role's photos are fused. Returns its id.
///
/// # Errors
/// If the caller lacks the privileges of `owner`, or the codebook's model is not loaded.
pub fn store_codebook(name: &str, codebook: &Codebook, owner: &str) -> Result<i64> {
    check_name("codebook", name, LONGEST_CODEBOOK_NAME)?;
    check_owner(owner)?;
    check_model(codebook.model())?;
    as_owner(|| write_codebook(name, codebook, owner))
}

fn write_codebook(name: &str, codebook: &Codebook, owner: &str) -> Result<i64> {
    let id = i64::from(codebook.tag());
    let digest = codebook.digest().to_vec();
    let is_new = insert(
        "INSERT INTO sketch.codebook (codebook_id, model_id, dimension, subspaces, prototypes, weight, unit_length, sha256) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        &[
            id.into(),
            i64::from(codebook.model()).into(),
            (codebook.dimension() as i32).into(),
            (codebook.subspaces() as i32).into(),
            (codebook.prototypes() as i32).into(),
            codebook.weight().into(),
            codebook.unit_length().into(),
            digest.clone().into(),
        ],
    )?;
    if is_new {
        for (subspace, prototypes) in codebook.centroids().outer_iter().enumerate() {
            for (prototype, centroid) in prototypes.outer_iter().enumerate() {
                Spi::run_with_args(
                    "INSERT INTO sketch.prototype VALUES ($1, $2, $3, $4)",
                    &[id.into(), (subspace as i32).into(), (prototype as i32).into(), centroid.to_vec().into()],
                )?;
            }
        }
    } else {
        let query = "SELECT sha256 FROM sketch.codebook WHERE codebook_id OPERATOR(pg_catalog.=) $1";
        if first_value::<Vec<u8>>(query, &[id.into()])? != Some(digest) {
            return Err(SqlError::new(
                PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
                format!("another codebook with id {id} is loaded already"),
            )
            .hint("Train this one with another number of prototypes, or on another sample."));
        }
    }
    // Whoever loads it wants it in use, also if it has been before: the newest is.
    insert(
        "INSERT INTO sketch.codebook_name (owner, name, codebook_id) VALUES ($1::pg_catalog.name, $2, $3) \
         ON CONFLICT (owner, name, codebook_id) DO UPDATE SET created_at = excluded.created_at",
        &[owner.into(), name.into(), id.into()],
    )?;
    Ok(id)
}

/// Refuses an owner whose privileges the caller lacks.
fn check_owner(owner: &str) -> Result<()> {
    let role = CString::new(owner).unwrap_or_default();
    // SAFETY: plain look-ups in the catalog; the server raises an error if there is no such role.
    let may = unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), pg_sys::get_role_oid(role.as_ptr(), false)) };
    if may {
        return Ok(());
    }
    Err(SqlError::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("permission denied to load a codebook of role \"{owner}\""),
    )
    .detail(format!("Only roles with privileges of \"{owner}\" may load one.")))
}

/// Refuses a codebook of a model that is not loaded.
fn check_model(model: u32) -> Result<()> {
    let known = first_value::<bool>(
        "SELECT EXISTS (SELECT FROM sketch.model WHERE model_id OPERATOR(pg_catalog.=) $1)",
        &[i64::from(model).into()],
    )?;
    if known == Some(true) {
        return Ok(());
    }
    Err(SqlError::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("model with id {model} does not exist"))
        .detail("The codebook was built for it.")
        .hint("Load the model first, with sketch_load_model."))
}

/// Inserts a row; returns whether it is new.
fn insert(statement: &str, args: &[DatumWithOid<'_>]) -> Result<bool> {
    Ok(Spi::connect_mut(|client| client.update(statement, None, args).map(|rows| rows.len()))? == 1)
}

fn check_name(kind: &str, name: &str, longest: usize) -> Result<()> {
    if (1..=longest).contains(&name.len()) {
        return Ok(());
    }
    Err(SqlError::new(
        PgSqlErrorCode::ERRCODE_INVALID_NAME,
        format!("name of a {kind} must have 1 to {longest} bytes, has {}", name.len()),
    ))
}
