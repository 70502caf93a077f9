//! The trigger that `sketch_enable` puts on a table of photos.

use super::column::Column;
use super::row::{Row, RowColumn};
use super::{Gallery, not_enabled};
use crate::catalog::{self, CodebookName};
use crate::embedding::{Embedding, Origin};
use crate::error::{Result, SqlError};
use crate::settings::{self, BrokenPhoto};
use crate::{codebook, inference, version};
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
use pgrx::prelude::*;
use pgrx::{AllocatedByPostgres, WhoAllocated};
use sketch_model::inference::encoder::Domain;

/// Embeds and fuses the photo of a new or changed row.
///
/// An embedding that is there already is kept if the model in use made it and the photo is the one it was made of:
/// an INSERT brings its own (a copy, a restore), an UPDATE leaves the photo as it is.
#[pg_trigger]
fn sketch_trigger<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, std::convert::Infallible> {
    // pgrx would wrap an error of ours in one of its own.
    Ok(Some(embed_row(trigger).map_err(ErrorReport::from).unwrap_or_report()))
}

fn embed_row<'a>(trigger: &'a PgTrigger<'a>) -> Result<PgHeapTuple<'a, AllocatedByPostgres>> {
    let row = Row::of(trigger)?;
    let table = row.table_oid();
    // Rows are written between the installation of this library and ALTER EXTENSION ... UPDATE, too.
    let gallery = if version::is_later_than_0_1_0() { Gallery::find(table)? } else { gallery_of_args(trigger, table) };
    let gallery = gallery.ok_or_else(|| not_enabled(table))?;
    let image = row.column(gallery.image, pg_sys::BYTEAOID)?;
    let embedding_type = Embedding::type_oid();
    let embedding_column = row.column(gallery.embedding, embedding_type)?;
    let fused_column = row.column(gallery.fused, embedding_type)?;

    let embedding = match row.new_value::<&[u8]>(image) {
        Some(bytes) => embed_photo(&row, image, embedding_column, &gallery, bytes)?,
        None => None,
    };
    let fused = embedding.map(|embedding| fuse_photo(embedding, &gallery.codebook)).transpose()?;
    Ok(row.with([(embedding_column, embedding), (fused_column, fused)]))
}

/// The gallery of a trigger that version 0.1.0 made: its arguments are image, embedding and fused column, and codebook.
fn gallery_of_args(trigger: &PgTrigger<'_>, relation: pg_sys::Oid) -> Option<Gallery> {
    let [image, embedding, fused, codebook] = trigger.extra_args().ok()?.try_into().ok()?;
    let column = |name: String| Column::find(relation, &name);
    Some(Gallery {
        relation,
        image: column(image)?,
        embedding: column(embedding)?,
        fused: column(fused)?,
        codebook: CodebookName { owner: String::new(), name: codebook },
    })
}

fn embed_photo<'a>(
    row: &Row<'a>,
    image: RowColumn,
    embedding_column: RowColumn,
    gallery: &Gallery,
    bytes: &[u8],
) -> Result<Option<Embedding<'a>>> {
    let model = catalog::model_in_use(settings::model().as_deref())?;
    let origin = Origin { model, codebook: 0 };
    if let Some(given) = row.new_value::<Embedding<'a>>(embedding_column)
        && given.origin() == origin
        && row.is_unchanged(image)
    {
        return Ok(Some(given));
    }
    let embedder = inference::embedder(model)?;
    match embedder.render(Domain::Photo, bytes) {
        Ok(input) => Ok(Some(Embedding::new(&embedder.embed(Domain::Photo, input)?, origin)?)),
        Err(error) => broken(row, gallery, error.into()).map(|()| None),
    }
}

/// Warns of a photo that cannot be embedded, or refuses it, as `pg_sketch.broken_photo` says.
pub fn broken(row: &Row<'_>, gallery: &Gallery, cause: SqlError) -> Result<()> {
    let error = cause.within(format!("could not embed photo in {} of table \"{}\"", row.name(gallery), row.table()));
    match settings::broken_photo() {
        BrokenPhoto::Error => Err(error),
        BrokenPhoto::Warning => {
            error.warn();
            Ok(())
        }
    }
}

/// Fuses with the newest codebook of that name; a gallery that has none yet is ranked by its embeddings.
pub fn fuse_photo<'a>(embedding: Embedding<'a>, codebook: &CodebookName) -> Result<Embedding<'a>> {
    match catalog::find_codebook(codebook, embedding.origin().model)? {
        Some(id) => codebook::fuse(embedding, &*codebook::codebook(id)?),
        None => Ok(embedding),
    }
}
