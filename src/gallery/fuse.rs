//! `sketch_fuse_photos`: one codebook for all photos of a table.

use super::Gallery;
use crate::error::{Result, SqlError};
use crate::{catalog, settings};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// The fewest photos for a codebook. With fewer, the prototypes would be the photos themselves.
pub const ENOUGH: usize = 64;

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
    let (embedding, fused) = (gallery.embedding.quoted(), gallery.fused.quoted());
    Spi::run(&format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))?;
    let few = format!(
        "SELECT pg_catalog.count(*) FROM (SELECT FROM {table} WHERE {embedding} IS NOT NULL LIMIT {ENOUGH}) AS few"
    );
    let count = catalog::first_value::<i64>(&few, &[])?.unwrap_or(0);
    if count < ENOUGH as i64 {
        SqlError::new(
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("table \"{table}\" has {count} embedded photos, too few for a codebook"),
        )
        .hint(format!(
            "Photos are ranked by their embeddings alone until CALL sketch_embed_photos finds {ENOUGH} or more."
        ))
        .notice();
        return Ok(0);
    }
    let model = catalog::model_in_use(settings::model().as_deref())?;
    let (codebook_name, owner) = (gallery.codebook.name.as_str(), gallery.codebook.owner.as_str());
    let codebook = match catalog::find_codebook(&gallery.codebook, model)? {
        Some(id) => i64::from(id),
        None => catalog::first_value(
            &format!("SELECT {schema}.sketch_build_codebook($1, $2::pg_catalog.regclass, $3, owner => $4)"),
            &[codebook_name.into(), photos.into(), gallery.embedding.name().into(), owner.into()],
        )?
        .unwrap_or(0),
    };
    let update = format!(
        "UPDATE {table} SET {fused} = {schema}.sketch_fuse({embedding}, $1, $3) WHERE {embedding} IS NOT NULL \
         AND COALESCE({schema}.sketch_codebook_id({fused}) OPERATOR(pg_catalog.<>) $2 \
         OR {schema}.sketch_model_id({fused}) OPERATOR(pg_catalog.<>) {schema}.sketch_model_id({embedding}), true)"
    );
    let args = [codebook_name.into(), codebook.into(), owner.into()];
    Ok(Spi::connect_mut(|client| client.update(&update, None, &args).map(|rows| rows.len()))? as i64)
}
