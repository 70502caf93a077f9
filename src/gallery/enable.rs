//! `sketch_enable` and `sketch_disable`: make a table a gallery, and undo that.

use super::bulk::{self, Part, Photo};
use super::column::Column;
use super::fuse::{self, ENOUGH, SAMPLE};
use super::store::Store;
use super::wait::HINT;
use super::{Gallery, Mode, maintain, not_enabled, queue, stored_form};
use crate::catalog::CodebookName;
use crate::codebook::{self, Choice, Sample};
use crate::embedding::{Embedding, Origin};
use crate::error::{Result, SqlError};
use crate::{catalog, inference, settings, wakeup};
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
    mode: Option<Mode>,
}

#[pg_extern(volatile, parallel_unsafe)]
fn enable(
    photos: Option<pg_sys::Oid>,
    image_column: Option<&CStr>,
    embedding_column: Option<&CStr>,
    fused_column: Option<&CStr>,
    codebook: Option<String>,
    embed: Option<bool>,
    mode: Option<&str>,
) -> Result<(), ErrorReport> {
    let photos = given("photos", photos)?;
    let mode = mode.map(|mode| {
        Mode::of_name(mode).ok_or_else(|| {
            SqlError::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, format!("unknown mode \"{mode}\""))
                .hint("A mode is trigger or background.")
        })
    });
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
        mode: mode.transpose()?,
    };
    Ok(request.run(given("embed", embed)?)?)
}

/// All photos of a table, embedded.
struct Embedded {
    parts: Vec<Part>,
    embeddings: Store,
    /// Whether they are too much alike for a codebook.
    alike: bool,
    /// A codebook that they were built for.
    built: Option<u32>,
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
        let mode = self.mode.unwrap_or(Mode::Trigger);
        if mode == Mode::Background {
            self.check_background()?;
        }
        if let Some(gallery) = &gallery
            && gallery.relation == *photos
            && !triggers.is_empty()
            && self.mode.is_some_and(|mode| mode != gallery.mode)
        {
            return self.change_mode(gallery, &triggers, mode);
        }
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
        let embedded = if embed && mode == Mode::Trigger { Some(self.embed(model)?) } else { None };
        // A table restored from a dump of its own has triggers and columns already.
        let gallery = self.prepare(&triggers, gallery.is_some() || !triggers.is_empty(), model, mode)?;
        if let Some(Embedded { parts, embeddings, alike, built }) = embedded {
            self.write(&parts, embeddings, model)?;
            if !alike {
                fuse::fuse_photos(*photos)?;
            }
            if let Some(codebook) = built {
                gallery.record_built(codebook)?;
            }
            maintain::make_index(&gallery)?;
        }
        if mode == Mode::Background {
            queue::enqueue_missing(&gallery)?;
        }
        Ok(())
    }

    /// Refuses or warns where the background worker cannot work.
    fn check_background(&self) -> Result<()> {
        // SAFETY: a plain look-up in the catalog.
        if unsafe { pg_sys::get_rel_persistence(self.photos) } as u8 == pg_sys::RELPERSISTENCE_TEMP {
            return Err(SqlError::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("temporary table \"{}\" cannot be embedded in the background", self.table),
            )
            .detail("No other process can read it."));
        }
        if !wakeup::is_there() {
            SqlError::new(
                PgSqlErrorCode::ERRCODE_WARNING,
                format!("no background worker embeds the photos of table \"{}\"", self.table),
            )
            .hint(HINT)
            .warn();
        }
        Ok(())
    }

    /// Changes who embeds new photos. Those that are there keep what they have.
    fn change_mode(&self, gallery: &Gallery, triggers: &[String], mode: Mode) -> Result<()> {
        let columns = [gallery.image, gallery.embedding, gallery.fused].map(Column::quoted);
        self.create_triggers(triggers, mode, &columns)?;
        let gallery = Gallery { mode, codebook: gallery.codebook.clone(), built: None, ..*gallery };
        gallery.write()?;
        match mode {
            Mode::Background => queue::enqueue_missing(&gallery).map(drop),
            // Nobody would look at them; sketch_maintain embeds what is missing.
            Mode::Trigger => queue::clear(self.photos),
        }
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
        let built = match enough {
            true => fuse::build(&self.table, &self.codebook, sample(&mut embeddings)?, Choice::default())?,
            false => None,
        };
        Ok(Embedded { parts, embeddings, alike: enough && built.is_none(), built })
    }

    /// Adds the columns, the triggers and the row of `sketch.gallery`.
    fn prepare(&self, triggers: &[String], was_gallery: bool, model: u32, mode: Mode) -> Result<Gallery> {
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
        self.create_triggers(triggers, mode, &[&self.image, &self.embedding, &self.fused].map(spi::quote_identifier))?;
        let find = |name: &str| {
            Column::find(*photos, name).ok_or_else(|| {
                SqlError::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("column \"{name}\" of table \"{table}\" does not exist"),
                )
            })
        };
        let gallery = Gallery {
            relation: *photos,
            image: find(&self.image)?,
            embedding: find(&self.embedding)?,
            fused: find(&self.fused)?,
            codebook: self.codebook.clone(),
            model,
            mode,
            built: None,
            bank: catalog::find_bank(model)?,
        };
        gallery.write()?;
        Ok(gallery)
    }

    /// Creates the triggers of a mode in place of those that are there: those of an earlier version or an older dump may lack
    /// columns. `columns`: image, embedding and fused column, quoted.
    fn create_triggers(&self, old: &[String], mode: Mode, columns: &[String; 3]) -> Result<()> {
        let Self { table, schema, .. } = self;
        for trigger in old {
            Spi::run(&format!("DROP TRIGGER {} ON {table}", spi::quote_identifier(trigger)))?;
        }
        // Columns that only we fill belong to it, too: what others write there, it replaces.
        Spi::run(&format!(
            "CREATE TRIGGER sketch_trigger BEFORE INSERT OR UPDATE OF {} ON {table} \
             FOR EACH ROW EXECUTE FUNCTION {schema}.sketch_trigger()",
            columns.join(", ")
        ))?;
        if mode == Mode::Background {
            // After all triggers of the table, which may change the photo. A new photo that brings its embedding along is one of
            // those that the codebook is to be built for. An UPDATE moves the row, whichever columns it names. The columns in
            // the conditions end the triggers with them.
            let [image, embedding, fused] = columns;
            for (trigger, event, condition) in [
                ("sketch_queue", "INSERT", format!("NEW.{embedding} IS NULL OR NEW.{fused} IS NOT NULL")),
                ("sketch_requeue", "UPDATE", format!("NEW.{embedding} IS NULL OR NEW.{fused} IS NULL")),
            ] {
                Spi::run(&format!(
                    "CREATE TRIGGER {trigger} AFTER {event} ON {table} FOR EACH ROW \
                     WHEN (NEW.{image} IS NOT NULL AND ({condition})) EXECUTE FUNCTION {schema}.sketch_queue_trigger()"
                ))?;
            }
        }
        Ok(())
    }

    fn write(&self, parts: &[Part], mut embeddings: Store, model: u32) -> Result<()> {
        let form = stored_form(&self.codebook, catalog::find_bank(model)?, model)?;
        embeddings.rewind();
        bulk::write(parts, &mut || {
            let Some((table, row, embedding)) = embeddings.next()? else { return Ok(None) };
            let part = parts.iter().find(|part| part.table == table).expect("the embedding is of one of them");
            let embedding = embedding.copy();
            let fused = codebook::store(embedding, &form)?;
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
    queue::clear(photos)?;
    for trigger in triggers(photos)? {
        Spi::run(&format!("DROP TRIGGER {} ON {table}", spi::quote_identifier(&trigger))).map_err(SqlError::from)?;
    }
    for column in [gallery.embedding, gallery.fused].into_iter().filter_map(Column::name) {
        let drop = format!("ALTER TABLE {table} DROP COLUMN {}", spi::quote_identifier(&column));
        Spi::run(&drop).map_err(SqlError::from)?;
    }
    Ok(())
}

/// Names of the triggers of a table that are the extension's.
fn triggers(photos: pg_sys::Oid) -> Result<Vec<String>> {
    catalog::column(
        "SELECT tgname::pg_catalog.text FROM pg_catalog.pg_trigger AS t \
         JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid \
         WHERE tgrelid OPERATOR(pg_catalog.=) $1 AND p.pronamespace OPERATOR(pg_catalog.=) $2 \
         AND p.proname OPERATOR(pg_catalog.=) ANY ('{sketch_trigger,sketch_queue_trigger}')",
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
