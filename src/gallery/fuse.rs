//! `sketch_fuse_photos`: one codebook for all photos of a table.

use super::Gallery;
use crate::catalog::CodebookName;
use crate::codebook::{self, Choice, Sample};
use crate::error::{Result, SqlError};
use crate::{catalog, load};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sketch_model::codebook::{CodebookError, Length};

/// The fewest photos for a codebook. With fewer, the prototypes would be the photos themselves.
pub const ENOUGH: usize = 64;
/// The most embeddings for a codebook: the default of sketch_build_codebook.
pub const SAMPLE: usize = 10_000;

/// Builds the codebook of a table if there is none and the photos suffice, and fuses all photos that it has not fused.
///
/// All rows change in one statement: distances to fused and to plain embeddings do not rank together.
#[pg_extern(volatile, strict, parallel_unsafe)]
fn sketch_fuse_photos(photos: pg_sys::Oid) -> Result<i64, ErrorReport> {
    Ok(fuse_photos(photos)?)
}

pub fn fuse_photos(photos: pg_sys::Oid) -> Result<i64> {
    let gallery = Gallery::of(photos)?;
    let (table, schema) = (catalog::relation_name(photos)?, catalog::quoted_extension_schema()?);
    let (embedding, fused, model) = (gallery.embedding.quoted(), gallery.fused.quoted(), gallery.model);
    Spi::run(&format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))?;
    let embedded = format!("{schema}.sketch_model_id({embedding}) OPERATOR(pg_catalog.=) {model}");
    let few = format!("SELECT pg_catalog.count(*) FROM (SELECT FROM {table} WHERE {embedded} LIMIT {ENOUGH}) AS few");
    let count = catalog::first_value::<i64>(&few, &[])?.unwrap_or(0);
    if count < ENOUGH as i64 {
        let notice = format!("table \"{table}\" has {count} embedded photos, too few for a codebook");
        unfused(notice, ENOUGH.to_string()).notice();
        return correct(gallery, &table, &schema, &embedded);
    }
    let known = catalog::find_codebook(&gallery.codebook, model)?;
    let codebook = match known {
        Some(id) => {
            hint_at_rebuilding(id, &gallery)?;
            id
        }
        None => {
            let column = gallery.embedding.name().unwrap_or_default();
            let sample = codebook::read_sample(photos, &column, SAMPLE, Some(model))?;
            match build(&table, &gallery.codebook, sample, Choice::default())? {
                Some(id) => id,
                None => return correct(gallery, &table, &schema, &embedded),
            }
        }
    };
    let update = format!(
        "UPDATE {table} SET {fused} = {schema}.sketch_fuse({embedding}, $1, $3) WHERE {embedded} \
         AND COALESCE({schema}.sketch_codebook_id({fused}) OPERATOR(pg_catalog.<>) $2 \
         OR {schema}.sketch_model_id({fused}) OPERATOR(pg_catalog.<>) {model}, true)"
    );
    let args =
        [gallery.codebook.name.as_str().into(), i64::from(codebook).into(), gallery.codebook.owner.as_str().into()];
    let fused = Spi::connect_mut(|client| client.update(&update, None, &args).map(|rows| rows.len()))?;
    if known.is_none() {
        gallery.record_built(codebook)?;
    }
    Ok(fused as i64)
}

/// Builds the codebook of a table; `None`, with a notice, if too many of its photos are the same.
///
/// # Errors
/// If the caller may not load a codebook under that name.
pub fn build(table: &str, name: &CodebookName, sample: Sample, choice: Choice) -> Result<Option<u32>> {
    match codebook::train(sample, choice)? {
        Ok(codebook) => {
            load::store_codebook(&name.name, &codebook, &name.owner)?;
            Ok(Some(codebook.tag()))
        }
        Err(CodebookError::TooFewDistinct { distinct, prototypes, .. }) => {
            let error = format!("table \"{table}\" has too few different photos for a codebook");
            unfused(error, format!("{prototypes} different ones"))
                .detail(format!("A codebook of {prototypes} prototypes needs as many that differ, found {distinct}."))
                .notice();
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Corrects the photos of a gallery without a codebook for hubs, all or none: a photo that is not corrected stands before those
/// that are. Returns 0: nothing was fused.
fn correct(mut gallery: Gallery, table: &str, schema: &str, embedded: &str) -> Result<i64> {
    if catalog::find_codebook(&gallery.codebook, gallery.model)?.is_some() {
        return Ok(0);
    }
    let bank = catalog::find_bank(gallery.model)?;
    if gallery.bank != bank {
        gallery.bank = bank;
        gallery.write()?;
    }
    let (embedding, fused) = (gallery.embedding.quoted(), gallery.fused.quoted());
    let expected = gallery.form()?.dimension(0);
    Spi::run(&format!(
        "UPDATE {table} SET {fused} = {schema}.sketch_correct({embedding}) WHERE {embedded} \
         AND COALESCE({schema}.sketch_dimension({fused}) OPERATOR(pg_catalog.-) {schema}.sketch_dimension({embedding}) \
         OPERATOR(pg_catalog.<>) {expected}, true)"
    ))?;
    Ok(0)
}

/// Tells whoever has a codebook of an earlier version what a new one would bring.
fn hint_at_rebuilding(codebook: u32, gallery: &Gallery) -> Result<()> {
    if catalog::read_codebook(codebook)?.length() == Length::Scaled {
        let CodebookName { name, .. } = &gallery.codebook;
        SqlError::new(
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("codebook \"{name}\" was built by an earlier version of pg_sketch"),
        )
        .hint("Build it anew with sketch_build_codebook and call sketch_fuse_photos: drawings will find more.")
        .notice();
    }
    Ok(())
}

fn unfused(message: String, wanted: String) -> SqlError {
    SqlError::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message).hint(format!(
        "Photos are ranked by their embeddings alone until CALL sketch_embed_photos finds {wanted} or more."
    ))
}
