//! Loading networks, banks and codebooks into the database.

use crate::catalog::{CodebookName, find_bank, find_model, first_value};
use crate::error::{Result, SqlError};
use crate::role::as_owner;
use crate::{catalog, codebook, files, inference, settings};
use pgrx::JsonB;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sketch_model::codebook::{Codebook, Length};
use sketch_model::digest;
use sketch_model::hubs::Bank;
use sketch_model::manifest::Manifest;
use std::ffi::CString;
use std::fs;

/// File name, without its ending, of the network that comes with the extension.
const SHIPPED: &str = "lite2-sketch-2";
const LONGEST_MODEL_NAME: usize = 63;
/// A gallery's codebook is named after its schema and table.
const LONGEST_CODEBOOK_NAME: usize = 63 + 1 + 63;

#[pg_extern(volatile, parallel_unsafe)]
fn load_shipped_model() -> Result<i64, ErrorReport> {
    if let Some(id) = find_model(None)? {
        add_shipped_bank(id)?;
        return Ok(id.into());
    }
    Ok(store_shipped()?)
}

/// Loads the network that ships beside older ones, which galleries may still have.
#[pg_extern(volatile, parallel_unsafe)]
fn update_model() -> Result<i64, ErrorReport> {
    Ok(store_shipped()?)
}

/// Writes the network that ships, and its bank. Returns its id.
fn store_shipped() -> Result<i64> {
    let manifest = Manifest::from_json(&String::from_utf8_lossy(&read_shipped("json")?))?;
    let id = store_model(&manifest.name, &read_shipped("onnx")?, &manifest)?;
    add_shipped_bank(id as u32)?;
    Ok(id)
}

/// Loads the bank that comes with the extension, if it belongs to this model and the model has none.
fn add_shipped_bank(model: u32) -> Result<()> {
    if catalog::is_later_than_0_1_0() && find_bank(model)?.is_none() {
        let bytes = read_shipped("bank")?;
        let bank = Bank::from_bytes(&bytes)?;
        if bank.model() == model {
            store_bank(&bank, bytes)?;
        }
    }
    Ok(())
}

fn read_shipped(ending: &str) -> Result<Vec<u8>> {
    let path = files::path(&format!("{SHIPPED}.{ending}"));
    fs::read(&path).map_err(|error| {
        SqlError::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
            format!("could not read the shipped model \"{}\"", path.display()),
        )
        .detail(format!("{error}."))
        .hint("Install pg_sketch again, or load a model with sketch_load_model(name, onnx, manifest).")
    })
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
fn load_bank(drawings: &[u8]) -> Result<i64, ErrorReport> {
    let bank = Bank::from_bytes(drawings).map_err(SqlError::from)?;
    Ok(store_bank(&bank, drawings.to_vec())?)
}

/// Writes a bank, which its model must precede. Returns its id.
fn store_bank(bank: &Bank, bytes: Vec<u8>) -> Result<i64> {
    check_model(bank.model(), "bank")?;
    let id = i64::from(bank.tag());
    insert(
        "INSERT INTO sketch.bank (bank_id, model_id, sha256, drawings) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        &[id.into(), i64::from(bank.model()).into(), bank.digest().to_vec().into(), bytes.into()],
    )?;
    Ok(id)
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
    let text = catalog::read_codebook(id)?.to_json();
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
    check_model(codebook.model(), "codebook")?;
    check_bank(codebook.hubs().bank)?;
    as_owner(|| write_codebook(name, codebook, owner))
}

fn write_codebook(name: &str, codebook: &Codebook, owner: &str) -> Result<i64> {
    let id = i64::from(codebook.tag());
    let digest = codebook.digest().to_vec();
    let is_new = insert(
        "INSERT INTO sketch.codebook (codebook_id, model_id, dimension, subspaces, prototypes, weight, unit_length, sha256, \
         channel, hubs, bank_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
        &[
            id.into(),
            i64::from(codebook.model()).into(),
            (codebook.dimension() as i32).into(),
            (codebook.subspaces() as i32).into(),
            (codebook.prototypes() as i32).into(),
            codebook.weight().into(),
            (codebook.length() != Length::Own).into(),
            digest.clone().into(),
            (codebook.length() == Length::Completed).into(),
            codebook.hubs().strength.into(),
            Some(i64::from(codebook.hubs().bank)).filter(|bank| *bank != 0).into(),
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

/// Refuses what belongs to a model that is not loaded.
fn check_model(model: u32, what: &str) -> Result<()> {
    let known = first_value::<bool>(
        "SELECT EXISTS (SELECT FROM sketch.model WHERE model_id OPERATOR(pg_catalog.=) $1)",
        &[i64::from(model).into()],
    )?;
    if known == Some(true) {
        return Ok(());
    }
    Err(SqlError::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("model with id {model} does not exist"))
        .detail(format!("The {what} was built for it."))
        .hint("Load the model first, with sketch_load_model."))
}

/// Refuses a codebook that names a bank which is not loaded; 0 names none.
fn check_bank(bank: u32) -> Result<()> {
    let known = first_value::<bool>(
        "SELECT $1 OPERATOR(pg_catalog.=) 0 OR EXISTS (SELECT FROM sketch.bank WHERE bank_id OPERATOR(pg_catalog.=) $1)",
        &[i64::from(bank).into()],
    )?;
    if known == Some(true) {
        return Ok(());
    }
    Err(SqlError::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("bank of drawings with id {bank} does not exist"),
    )
    .detail("The codebook corrects hubs with it.")
    .hint("Load the bank first, with sketch_load_bank."))
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
