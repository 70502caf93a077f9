//! The trigger that `sketch_enable` puts on a table of photos, and what it knows of the table.

mod bulk;
mod row;

use crate::embedding::{Embedding, Origin};
use crate::error::{Result, SqlError};
use crate::settings::{self, BrokenPhoto};
use crate::{catalog, codebook, network};
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
use pgrx::prelude::*;
use pgrx::{AllocatedByPostgres, WhoAllocated};
use row::{Column, Row};
use sketch_model::inference::encoder::Domain;

/// Arguments of the trigger.
struct Gallery {
    image: String,
    embedding: String,
    fused: String,
    codebook: String,
}

impl Gallery {
    fn from_args(args: Vec<String>) -> Result<Self> {
        let [image, embedding, fused, codebook] = <[String; 4]>::try_from(args).map_err(|args| {
            SqlError::new(
                PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                format!("sketch_trigger takes 4 arguments, has {}", args.len()),
            )
            .hint("The arguments are image, embedding and fused column, and codebook; sketch_enable writes them.")
        })?;
        Ok(Self { image, embedding, fused, codebook })
    }
}

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
    let gallery = Gallery::from_args(trigger.extra_args().map_err(protocol)?)?;
    let row = Row::of(trigger)?;
    let image = row.column(&gallery.image, pg_sys::BYTEAOID)?;
    let embedding_type = embedding_type(trigger);
    let embedding_column = row.column(&gallery.embedding, embedding_type)?;
    let fused_column = row.column(&gallery.fused, embedding_type)?;

    let embedding = match row.new_value::<&[u8]>(image) {
        Some(bytes) => embed_photo(&row, image, embedding_column, &gallery, bytes)?,
        None => None,
    };
    let fused = embedding.map(|embedding| fuse_photo(embedding, &gallery.codebook)).transpose()?;
    Ok(row.with([(embedding_column, embedding), (fused_column, fused)]))
}

fn embed_photo<'a>(
    row: &Row<'a>,
    image: Column,
    embedding_column: Column,
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
    let network = network::network(model)?;
    match network.render(Domain::Photo, bytes) {
        Ok(input) => Ok(Some(Embedding::new(&network.embed(Domain::Photo, input)?, origin)?)),
        Err(error) => broken(row, gallery, error.into()).map(|()| None),
    }
}

/// Warns of a photo that cannot be embedded, or refuses it, as `pg_sketch.broken_photo` says.
fn broken(row: &Row<'_>, gallery: &Gallery, cause: SqlError) -> Result<()> {
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
fn fuse_photo<'a>(embedding: Embedding<'a>, codebook: &str) -> Result<Embedding<'a>> {
    match catalog::find_codebook(codebook, embedding.origin().model)? {
        Some(id) => codebook::fuse(embedding, &*codebook::codebook(id)?),
        None => Ok(embedding),
    }
}

fn protocol(error: PgTriggerError) -> SqlError {
    SqlError::new(PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED, error.to_string())
}

/// The type `embedding` of the schema that the trigger's function is in.
fn embedding_type(trigger: &PgTrigger<'_>) -> pg_sys::Oid {
    // SAFETY: plain look-ups in the catalog.
    unsafe {
        let schema = pg_sys::get_func_namespace(trigger.trigger().tgfoid);
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::TYPENAMENSP as i32,
            pg_sys::Anum_pg_type_oid as i16,
            c"embedding".as_ptr().into(),
            schema.into(),
            0.into(),
            0.into(),
        )
    }
}

/// What the trigger on a table was told.
fn find_gallery(photos: pg_sys::Oid) -> Result<Gallery> {
    let args = catalog::first_value::<Vec<u8>>(
        "SELECT tgargs FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid \
         WHERE tgrelid OPERATOR(pg_catalog.=) $1 AND p.prosrc OPERATOR(pg_catalog.=) 'sketch_trigger_wrapper' LIMIT 1",
        &[photos.into()],
    )?;
    match args {
        Some(args) => {
            let args = args.split_inclusive(|byte| *byte == 0);
            Gallery::from_args(args.map(|arg| String::from_utf8_lossy(&arg[..arg.len() - 1]).into_owned()).collect())
        }
        None => Err(SqlError::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table \"{}\" is not enabled for sketches", catalog::relation_name(photos)?),
        )
        .hint("Call sketch_enable with the table and its image column first.")),
    }
}

/// Columns and codebook of a table that `sketch_enable` prepared.
#[pg_extern(stable, strict, parallel_safe)]
fn sketch_gallery(
    photos: pg_sys::Oid,
) -> Result<
    TableIterator<
        'static,
        (
            name!(image_column, String),
            name!(embedding_column, String),
            name!(fused_column, String),
            name!(codebook, String),
        ),
    >,
    ErrorReport,
> {
    let gallery = find_gallery(photos)?;
    Ok(TableIterator::once((gallery.image, gallery.embedding, gallery.fused, gallery.codebook)))
}
