//! Loading networks and codebooks into the database.

use crate::catalog::{find_model, first_row, first_value};
use crate::error::{Result, SqlError};
use crate::network;
use pgrx::JsonB;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sketch_model::codebook::Codebook;
use sketch_model::digest;
use sketch_model::manifest::Manifest;
use std::ffi::CStr;
use std::fs;
use std::path::PathBuf;

/// File name, without its ending, of the network that comes with the extension.
const SHIPPED: &str = "lite2-sketch";

#[pg_extern(volatile, parallel_unsafe)]
fn load_shipped_model() -> Result<i64, ErrorReport> {
    if let Some(id) = find_model(None)? {
        return Ok(id.into());
    }
    let read = |ending: &str| {
        let path = share_path().join(format!("{SHIPPED}.{ending}"));
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

/// Folder of the files that come with the extension.
fn share_path() -> PathBuf {
    let mut path = [0; pg_sys::MAXPGPATH as usize];
    // SAFETY: the server wrote its own path at its start; the buffer is as long as the function asks for.
    let share = unsafe {
        pg_sys::get_share_path((&raw const pg_sys::my_exec_path).cast(), path.as_mut_ptr());
        CStr::from_ptr(path.as_ptr())
    };
    PathBuf::from(share.to_string_lossy().as_ref()).join("pg_sketch")
}

#[pg_extern(volatile, strict, parallel_unsafe)]
fn load_model(name: &str, onnx: &[u8], manifest: JsonB) -> Result<i64, ErrorReport> {
    let manifest = Manifest::from_json(&manifest.0.to_string()).map_err(SqlError::from)?;
    Ok(store_model(name, onnx, &manifest)?)
}

/// Writes a model after a trial run. Returns its id.
fn store_model(name: &str, onnx: &[u8], manifest: &Manifest) -> Result<i64> {
    check_name("model", name)?;
    let digest = manifest.digest(onnx);
    network::try_out(digest::tag(&digest), onnx, manifest)?;
    let id = i64::from(digest::tag(&digest));
    let manifest: serde_json::Value = serde_json::from_str(&manifest.to_json()).expect("written by ourselves");
    insert_once(
        "model",
        name,
        "INSERT INTO sketch.model (model_id, name, sha256, onnx, manifest) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT DO NOTHING",
        id,
        &[id.into(), name.into(), digest.to_vec().into(), onnx.to_vec().into(), JsonB(manifest).into()],
    )?;
    Ok(id)
}

#[pg_extern(volatile, strict, parallel_unsafe)]
fn load_codebook(name: &str, codebook: JsonB) -> Result<i64, ErrorReport> {
    let codebook = Codebook::from_json(&codebook.0.to_string()).map_err(SqlError::from)?;
    Ok(store_codebook(name, &codebook)?)
}

/// Writes a codebook. Returns its id.
fn store_codebook(name: &str, codebook: &Codebook) -> Result<i64> {
    check_name("codebook", name)?;
    check_model(codebook.model())?;
    let owner = codebook_owner(name)?;
    let id = i64::from(codebook.tag());
    let is_new = insert_once(
        "codebook",
        name,
        "INSERT INTO sketch.codebook (codebook_id, name, owner, model_id, dimension, subspaces, prototypes, weight, unit_length, sha256) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
        id,
        &[
            id.into(),
            name.into(),
            owner.into(),
            i64::from(codebook.model()).into(),
            (codebook.dimension() as i32).into(),
            (codebook.subspaces() as i32).into(),
            (codebook.prototypes() as i32).into(),
            codebook.weight().into(),
            codebook.unit_length().into(),
            codebook.digest().to_vec().into(),
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
    }
    Ok(id)
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

/// Owner of the codebooks of that name: who loaded the first, or else the caller.
///
/// Whoever could add a codebook to another's name would change how his photos are fused.
///
/// # Errors
/// If the name belongs to a role that the caller is no member of.
fn codebook_owner(name: &str) -> Result<String> {
    // SAFETY: a plain read. The loading functions run as the extension's owner; this is who called them.
    let caller = unsafe { pg_sys::GetOuterUserId() };
    let (caller_name, owner, is_member) = first_row::<String, String, bool>(
        "SELECT caller.rolname::pg_catalog.text, owner.name::pg_catalog.text, \
                caller.rolsuper OR pg_catalog.pg_has_role(caller.oid, role.oid, 'MEMBER') \
         FROM pg_catalog.pg_roles AS caller \
         LEFT JOIN (SELECT c.owner AS name FROM sketch.codebook AS c WHERE c.name OPERATOR(pg_catalog.=) $2 \
                    ORDER BY created_at LIMIT 1) AS owner ON true \
         LEFT JOIN pg_catalog.pg_roles AS role ON role.rolname OPERATOR(pg_catalog.=) owner.name \
         WHERE caller.oid OPERATOR(pg_catalog.=) $1",
        &[caller.into(), name.into()],
    )?;
    match (owner, is_member) {
        (None, _) => Ok(caller_name.unwrap_or_default()),
        (Some(owner), Some(true)) => Ok(owner),
        (Some(owner), _) => Err(SqlError::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("must be member of role \"{owner}\" to load a newer codebook \"{name}\""),
        )),
    }
}

/// Inserts a row whose id is its content's; returns whether it is new.
///
/// # Errors
/// If the same content is there under another name.
fn insert_once(kind: &str, name: &str, insert: &str, id: i64, args: &[DatumWithOid<'_>]) -> Result<bool> {
    let inserted = Spi::connect_mut(|client| client.update(insert, None, args).map(|rows| rows.len()))?;
    if inserted == 1 {
        return Ok(true);
    }
    let query = format!("SELECT name FROM sketch.{kind} WHERE {kind}_id OPERATOR(pg_catalog.=) $1");
    match first_value::<String>(&query, &[id.into()])? {
        Some(known) if known == name => Ok(false),
        known => Err(SqlError::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("the same {kind} is loaded already as \"{}\"", known.unwrap_or_default()),
        )),
    }
}

fn check_name(kind: &str, name: &str) -> Result<()> {
    if (1..64).contains(&name.len()) {
        return Ok(());
    }
    Err(SqlError::new(
        PgSqlErrorCode::ERRCODE_INVALID_NAME,
        format!("name of a {kind} must have 1 to 63 bytes, has {}", name.len()),
    ))
}
