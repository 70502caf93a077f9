//! `sketch_enable` and `sketch_disable`: make a table a gallery, and undo that.

use super::bulk::{self, Part, Photo};
use super::column::Column;
use super::fuse::{self, ENOUGH, SAMPLE};
use super::store::Store;
use super::trigger::fuse_photo;
use super::{Gallery, not_enabled};
use crate::catalog::CodebookName;
use crate::codebook::Sample;
use crate::embedding::{Embedding, Origin};
use crate::error::{Result, SqlError};
use crate::{catalog, inference, settings};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi;
use std::ffi::CStr;

/// Photos embedded per query of the table.
const BATCH: usize = 256;

/// The arguments of `sketch_enable`.
struct Request {
    photos: pg_sys::Oid,
    /// Name of the table, quoted for a statement.
    table: String,
    /// Schema of the extension, quoted for a statement.
    schema: String,
    image: String,
    embedding: String,
    fused: String,
    codebook: CodebookName,
}

#[pg_extern(volatile, parallel_unsafe)]
fn sketch_enable(
    photos: Option<pg_sys::Oid>,
    image_column: Option<&CStr>,
    embedding_column: Option<&CStr>,
    fused_column: Option<&CStr>,
    codebook: Option<String>,
    embed: Option<bool>,
) -> Result<(), ErrorReport> {
    let photos = given("photos", photos)?;
    let column =
        |argument, name: Option<&CStr>| Ok::<_, SqlError>(given(argument, name)?.to_string_lossy().into_owned());
    let request = Request {
        photos,
        table: catalog::relation_name(photos)?,
        schema: catalog::quoted_extension_schema()?,
        image: column("image_column", image_column)?,
        embedding: column("embedding_column", embedding_column)?,
        fused: column("fused_column", fused_column)?,
        codebook: codebook_name(photos, codebook)?,
    };
    Ok(request.run(given("embed", embed)?)?)
}

/// All photos of a table, embedded.
struct Embedded {
    parts: Vec<Part>,
    embeddings: Store,
    /// Whether they are too much alike for a codebook.
    alike: bool,
}

/// Embeddings to build a codebook from, evenly spread over all.
fn sample(embeddings: &mut Store) -> Result<Sample> {
    let stride = embeddings.len().div_ceil(SAMPLE);
    let mut sample = Sample::default();
    let mut position = 0;
    embeddings.rewind();
    while let Some((_, _, embedding)) = embeddings.next()? {
        if position % stride == 0 {
            sample.push(embedding)?;
        }
        position += 1;
    }
    Ok(sample)
}

/// The value of an argument that must not be NULL, in a function that takes NULL for another.
fn given<T>(argument: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| {
        SqlError::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("\"{argument}\" must not be null"))
    })
}

/// The codebook of a table is its owner's, by default under the name of schema and table: so it meets no other's, whatever
/// the search path.
fn codebook_name(photos: pg_sys::Oid, name: Option<String>) -> Result<CodebookName> {
    let (owner, own_name, _) = catalog::first_row::<String, String, bool>(
        "SELECT pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text, pg_catalog.concat(n.nspname, '.', c.relname), true \
         FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
         WHERE c.oid OPERATOR(pg_catalog.=) $1",
        &[photos.into()],
    )?;
    Ok(CodebookName { owner: owner.unwrap_or_default(), name: name.or(own_name).unwrap_or_default() })
}

impl Request {
    fn run(&self, embed: bool) -> Result<()> {
        let Self { photos, table, schema, image, .. } = self;
        if Column::find(*photos, image).map(Column::value_type) != Some(pg_sys::BYTEAOID) {
            return Err(SqlError::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("table \"{table}\" has no column \"{image}\" of type bytea"),
            ));
        }
        check_owner(*photos)?;
        let gallery = Gallery::find(*photos)?.filter(Gallery::is_whole);
        let triggers = triggers(*photos)?;
        if gallery.is_some() && !triggers.is_empty() {
            return Err(SqlError::new(
                PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
                format!("table \"{table}\" is enabled for sketches already"),
            )
            .hint("Call sketch_disable first."));
        }
        Spi::run(&format!("SELECT {schema}.sketch_load_model()"))?;
        let model = catalog::model_in_use(settings::model().as_deref())?;
        // Embedding may take hours. It comes first, because ALTER TABLE locks everybody out until the transaction ends.
        let embedded = if embed { Some(self.embed(model)?) } else { None };
        // A table restored from a dump of its own has trigger and columns already.
        self.prepare(&triggers, gallery.is_some() || !triggers.is_empty(), model)?;
        if let Some(Embedded { parts, embeddings, alike }) = embedded {
            self.write(&parts, embeddings)?;
            if !alike {
                fuse::fuse_photos(*photos)?;
            }
        }
        Ok(())
    }

    /// Embeds all photos, and builds a codebook from them if there is none.
    fn embed(&self, model: u32) -> Result<Embedded> {
        let quoted = [&self.image, &self.embedding, &self.fused].map(spi::quote_identifier);
        let parts = Part::all(self.photos, &quoted[0], &quoted[1], &quoted[2])?;
        let mut embeddings = Store::new();
        for part in &parts {
            let condition = part.with_photo();
            let mut place = Some(0);
            while let Some(from) = place {
                let (rows, next) = part.next(&condition, from, BATCH)?;
                place = next;
                if rows.is_empty() {
                    continue;
                }
                let photos = part.embed(&*inference::embedder(model)?, &rows)?;
                for (row, photo) in rows.iter().zip(photos) {
                    // The trigger handles all others in `write`.
                    if let Photo::Embedded(values) = photo {
                        embeddings.push(part.table, *row, &values, Origin { model, codebook: 0 })?;
                    }
                }
            }
        }
        let enough = embeddings.len() >= ENOUGH && catalog::find_codebook(&self.codebook, model)?.is_none();
        let alike = enough && fuse::build(&self.table, &self.codebook, sample(&mut embeddings)?)?.is_none();
        Ok(Embedded { parts, embeddings, alike })
    }

    /// Adds the columns, the trigger and the row of `sketch.gallery`.
    fn prepare(&self, triggers: &[String], was_gallery: bool, model: u32) -> Result<()> {
        let Self { photos, table, schema, .. } = self;
        let column = |name: &str| {
            let is_there =
                was_gallery && Column::find(*photos, name).map(Column::value_type) == Some(Embedding::type_oid());
            (!is_there).then(|| format!("ADD COLUMN {} {schema}.embedding", spi::quote_identifier(name)))
        };
        let added: Vec<String> = [&self.embedding, &self.fused].into_iter().filter_map(|name| column(name)).collect();
        if !added.is_empty() {
            Spi::run(&format!("ALTER TABLE {table} {}", added.join(", ")))?;
        }
        // Only "fused" is scanned: without its twin beside it in the row, a scan takes about half as long.
        Spi::run(&format!(
            "ALTER TABLE {table} ALTER COLUMN {} SET STORAGE EXTERNAL",
            spi::quote_identifier(&self.embedding)
        ))?;
        // Columns that only we fill belong to it, too: what others write there, it replaces. One of an earlier version or an
        // older dump may lack them.
        let trigger = triggers.first().map_or("sketch_trigger", String::as_str);
        let columns = [&self.image, &self.embedding, &self.fused].map(spi::quote_identifier).join(", ");
        Spi::run(&format!(
            "CREATE OR REPLACE TRIGGER {} BEFORE INSERT OR UPDATE OF {columns} ON {table} \
             FOR EACH ROW EXECUTE FUNCTION {schema}.sketch_trigger()",
            spi::quote_identifier(trigger)
        ))?;
        let find = |name: &str| {
            Column::find(*photos, name).ok_or_else(|| {
                SqlError::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("column \"{name}\" of table \"{table}\" does not exist"),
                )
            })
        };
        Gallery {
            relation: *photos,
            image: find(&self.image)?,
            embedding: find(&self.embedding)?,
            fused: find(&self.fused)?,
            codebook: self.codebook.clone(),
            model,
        }
        .write()
    }

    fn write(&self, parts: &[Part], mut embeddings: Store) -> Result<()> {
        embeddings.rewind();
        bulk::write(parts, &mut || {
            let Some((table, row, embedding)) = embeddings.next()? else { return Ok(None) };
            let part = parts.iter().find(|part| part.table == table).expect("the embedding is of one of them");
            let embedding = embedding.copy();
            let fused = fuse_photo(embedding, &self.codebook)?;
            Ok(Some((part, row, [Some(embedding), Some(fused)])))
        })?;
        // What is left: photos that were added or changed during the embedding, and broken ones, which the trigger reports
        // or refuses as pg_sketch.broken_photo says.
        let (image, embedding) = (spi::quote_identifier(&self.image), spi::quote_identifier(&self.embedding));
        Ok(Spi::run(&format!(
            "UPDATE {} SET {image} = {image} WHERE {image} IS NOT NULL AND {embedding} IS NULL",
            self.table
        ))?)
    }
}

#[pg_extern(volatile, strict, parallel_unsafe)]
fn sketch_disable(photos: pg_sys::Oid) -> Result<(), ErrorReport> {
    let table = catalog::relation_name(photos)?;
    let Some(gallery) = Gallery::read(photos)? else { return Err(not_enabled(photos).into()) };
    check_owner(photos)?;
    gallery.delete()?;
    for trigger in triggers(photos)? {
        Spi::run(&format!("DROP TRIGGER {} ON {table}", spi::quote_identifier(&trigger))).map_err(SqlError::from)?;
    }
    for column in [gallery.embedding, gallery.fused].into_iter().filter_map(Column::name) {
        let drop = format!("ALTER TABLE {table} DROP COLUMN {}", spi::quote_identifier(&column));
        Spi::run(&drop).map_err(SqlError::from)?;
    }
    Ok(())
}

/// Names of the triggers of a table that call `sketch_trigger`.
fn triggers(photos: pg_sys::Oid) -> Result<Vec<String>> {
    catalog::column(
        "SELECT tgname::pg_catalog.text FROM pg_catalog.pg_trigger AS t \
         JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid \
         WHERE tgrelid OPERATOR(pg_catalog.=) $1 AND p.pronamespace OPERATOR(pg_catalog.=) $2 \
         AND p.proname OPERATOR(pg_catalog.=) 'sketch_trigger'",
        &[photos.into(), catalog::extension_schema()?.into()],
    )
}

/// Checks before the embedding what ALTER TABLE checks after it.
fn check_owner(photos: pg_sys::Oid) -> Result<()> {
    if owns(photos)? {
        return Ok(());
    }
    Err(SqlError::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("must be owner of table {}", catalog::relation_name(photos)?),
    ))
}

/// Whether the caller has the rights of the table's owner.
pub fn owns(photos: pg_sys::Oid) -> Result<bool> {
    let owns = catalog::first_value::<bool>(
        "SELECT pg_catalog.pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) $1",
        &[photos.into()],
    )?;
    Ok(owns == Some(true))
}
