//! Embedding many photos of a table: several in flight at a time.

use super::row::Row;
use super::trigger::broken;
use super::{Gallery, column::Column};
use crate::catalog;
use crate::codebook::{self, positive};
use crate::embedding::{Embedding, Origin};
use crate::error::{Result, SqlError};
use crate::inference::{self, Embedder};
use crate::process::SignalsBlocked;
use crate::settings;
use half::f16;
use pgrx::itemptr::{item_pointer_to_u64, u64_to_item_pointer, u64_to_item_pointer_parts};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, PgMemoryContexts, PgRelation};
use serde::{Deserialize, Serialize};
use sketch_model::inference::encoder::Domain;
use sketch_model::manifest::PrepareError;
use sketch_model::render::ahead::{Ahead, Shared};
use std::cmp::Ordering;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// Blocks of a table that one query looks at.
const WINDOW: u32 = 256;
/// Bytes of photos that are read before they are embedded.
const READ_AT_A_TIME: usize = 32 << 20;
/// Seconds between two reports of progress.
const REPORTED_EVERY: f64 = 2.0;

/// A version of a row. Every update of the row makes a new version, with another `xmin`.
///
/// An embedding is written to the version that its photo was read from, or not at all. `ctid` alone does not ensure
/// that: an UPDATE that waited for another transaction rechecks its conditions on the new version of the row, but a TID
/// scan may skip the condition on `ctid`.
#[derive(Clone, Copy)]
pub struct Version {
    pub tid: pg_sys::ItemPointerData,
    pub xmin: pg_sys::TransactionId,
}

/// The result for one photo.
pub enum Photo {
    Embedded(Vec<f16>),
    Broken(SqlError),
    /// The row was changed or deleted meanwhile; the trigger handles its new version.
    Gone,
}

/// A table that stores rows of a gallery: the table itself, a partition, or one that inherits from it.
pub struct Part {
    pub table: pg_sys::Oid,
    pub(super) name: String,
    pub(super) image: String,
    pub(super) embedding: String,
    pub(super) fused: String,
}

impl Part {
    /// All tables of a gallery, by OID. Columns have the same names in all of them.
    pub fn all(photos: pg_sys::Oid, image: &str, embedding: &str, fused: &str) -> Result<Vec<Self>> {
        let tables = catalog::column::<pg_sys::Oid>(
            "WITH RECURSIVE part (oid) AS (SELECT $1 UNION ALL SELECT inhrelid FROM pg_catalog.pg_inherits \
                 JOIN part ON inhparent OPERATOR(pg_catalog.=) part.oid) \
             SELECT DISTINCT c.oid FROM part JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) part.oid \
             WHERE c.relkind OPERATOR(pg_catalog.=) 'r' ORDER BY c.oid",
            &[photos.into()],
        )?;
        let part = |table| {
            let name = format!("ONLY {}", catalog::relation_name(table)?);
            Ok(Self { table, name, image: image.into(), embedding: embedding.into(), fused: fused.into() })
        };
        tables.into_iter().map(part).collect()
    }

    pub fn of_gallery(photos: pg_sys::Oid, gallery: &Gallery) -> Result<Vec<Self>> {
        Self::all(photos, &gallery.image.quoted(), &gallery.embedding.quoted(), &gallery.fused.quoted())
    }

    /// Condition: the row has a photo.
    pub fn with_photo(&self) -> String {
        format!("{} IS NOT NULL", self.image)
    }

    /// Condition: the row has a photo that this model has not embedded.
    fn missing(&self, schema: &str, model: u32) -> String {
        let Self { image, embedding, .. } = self;
        format!(
            "{image} IS NOT NULL AND COALESCE({schema}.sketch_model_id({embedding}) OPERATOR(pg_catalog.<>) {model}, true)"
        )
    }

    /// Condition: the row has a photo that this model has not embedded, or an embedding that is not in use yet.
    pub fn incomplete(&self, schema: &str, model: u32) -> String {
        format!("({} OR {} IS NOT NULL AND {} IS NULL)", self.missing(schema, model), self.image, self.fused)
    }

    /// Fuses with the codebook of name `$1`, id `$2` and owner `$3` what is fused with another or with none.
    pub fn fuse_statement(&self, schema: &str, model: u32) -> String {
        let Self { name, embedding, fused, .. } = self;
        format!(
            "UPDATE {name} AS photo SET {fused} = {schema}.sketch_fuse(photo.{embedding}, $1, $3) FROM (SELECT ctid AS place FROM {name} \
             WHERE {embedding} IS NOT NULL AND COALESCE({schema}.sketch_codebook_id({fused}) OPERATOR(pg_catalog.<>) $2 \
             OR {schema}.sketch_model_id({fused}) OPERATOR(pg_catalog.<>) {model}, true) \
             AND {schema}.sketch_model_id({embedding}) OPERATOR(pg_catalog.=) {model} FOR NO KEY UPDATE SKIP LOCKED) AS free \
             WHERE photo.ctid OPERATOR(pg_catalog.=) free.place"
        )
    }

    fn count(&self, condition: &str) -> Result<i64> {
        let query = format!("SELECT pg_catalog.count(*) FROM {} WHERE {condition}", self.name);
        Ok(catalog::first_value(&query, &[])?.unwrap_or(0))
    }

    /// The next rows after a place, in order of `ctid`, at most `limit`; and where to continue, `None` at the end.
    ///
    /// Each call starts behind the previous one, so that no row version is visited twice.
    pub fn next(&self, condition: &str, place: u64, limit: usize) -> Result<(Vec<Version>, Option<u64>)> {
        let query = format!(
            "SELECT ctid, xmin FROM {} WHERE ctid OPERATOR(pg_catalog.>) $1 AND ctid OPERATOR(pg_catalog.<) $2 \
             AND {condition} ORDER BY ctid LIMIT $3",
            self.name
        );
        // SAFETY: the relation is open, and locked until the end of the transaction.
        let blocks = unsafe {
            let table = PgRelation::with_lock(self.table, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            pg_sys::RelationGetNumberOfBlocksInFork(table.as_ptr(), pg_sys::ForkNumber::MAIN_FORKNUM)
        };
        let mut found: Vec<Version> = Vec::new();
        let mut place = place;
        while found.len() < limit {
            let (block, _) = u64_to_item_pointer_parts(place);
            if block >= blocks {
                return Ok((found, None));
            }
            pgrx::check_for_interrupts!();
            let end = start_of(block.saturating_add(WINDOW).min(blocks));
            let rest = limit - found.len();
            Spi::connect(|client| -> Result<()> {
                let bounds = [at(place).into(), at(end).into(), (rest as i64).into()];
                for row in client.select(&query, None, &bounds)? {
                    if let (Some(tid), Some(xmin)) = (row.get(1)?, row.get(2)?) {
                        found.push(Version { tid, xmin });
                    }
                }
                Ok(())
            })?;
            place = match found.last() {
                Some(last) if found.len() == limit => item_pointer_to_u64(last.tid),
                _ => end,
            };
        }
        Ok((found, Some(place)))
    }

    /// Embeds the photos of these rows, and writes nothing.
    pub fn embed(&self, embedder: &Embedder, rows: &[Version]) -> Result<Vec<Photo>> {
        let mut photos = Vec::with_capacity(rows.len());
        let mut rows = rows.iter();
        loop {
            let images = self.read(&mut rows)?;
            if images.is_empty() {
                return Ok(photos);
            }
            embed_images(embedder, &images, &mut photos)?;
        }
    }

    /// Reads the next photos, `None` for a row that was changed or deleted: as many as memory has room for.
    ///
    /// A query may run a policy of row security, which is its owner's code. No image is in the worker's queue meanwhile.
    fn read(&self, rows: &mut std::slice::Iter<'_, Version>) -> Result<Vec<Option<Vec<u8>>>> {
        let query = format!(
            "SELECT {} FROM {} WHERE ctid OPERATOR(pg_catalog.=) $1 AND xmin OPERATOR(pg_catalog.=) $2",
            self.image, self.name
        );
        let (mut images, mut bytes) = (Vec::new(), 0);
        while bytes < READ_AT_A_TIME
            && let Some(row) = rows.next()
        {
            let image = catalog::first_value::<Vec<u8>>(&query, &[row.tid.into(), row.xmin.into()])?;
            bytes += image.as_ref().map_or(0, Vec::len);
            images.push(image);
        }
        Ok(images)
    }
}

/// Renders the images on several threads, ahead of the network.
fn embed_images(embedder: &Embedder, images: &[Option<Vec<u8>>], photos: &mut Vec<Photo>) -> Result<()> {
    let (manifest, limits, shared) = (&embedder.manifest, settings::limits(), Shared::default());
    let render = |image: &Option<Vec<u8>>| {
        Some(manifest.render_photo(image.as_ref()?, &limits).map(|picture| picture.into_raw()))
    };
    thread::scope(|scope| {
        let mut rendered = {
            let _signals = SignalsBlocked::new();
            Ahead::start(scope, &shared, images, settings::rendering_threads(), &render).map_err(|error| {
                SqlError::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, "could not start a thread")
                    .detail(format!("{error}."))
            })?
        };
        embed_rendered(embedder, &mut rendered, photos)
    })
}

/// What became of each row's image, `None` for a row that has gone.
type Rendered = Option<Result<Vec<u8>, PrepareError>>;

fn embed_rendered(
    embedder: &Embedder,
    images: &mut dyn Iterator<Item = Rendered>,
    photos: &mut Vec<Photo>,
) -> Result<()> {
    let (mut in_flight, mut embeddings) = (Vec::new(), Vec::new());
    embedder.embed_all(
        Domain::Photo,
        &mut || {
            for image in &mut *images {
                pgrx::check_for_interrupts!();
                match image {
                    Some(Ok(pixels)) => {
                        in_flight.push(photos.len());
                        photos.push(Photo::Gone);
                        return Ok(Some(pixels));
                    }
                    Some(Err(error)) => photos.push(Photo::Broken(error.into())),
                    None => photos.push(Photo::Gone),
                }
            }
            Ok(None)
        },
        &mut |embedding| {
            embeddings.push(embedding);
            Ok(())
        },
    )?;
    for (position, embedding) in in_flight.into_iter().zip(embeddings) {
        photos[position] = Photo::Embedded(embedding);
    }
    Ok(())
}

/// The place in front of the first row of a block.
fn start_of(block: u32) -> u64 {
    u64::from(block) << 32
}

fn at(place: u64) -> pg_sys::ItemPointerData {
    let mut tid = pg_sys::ItemPointerData::default();
    u64_to_item_pointer(place, &mut tid);
    tid
}

/// A row's table and version, and the embedding and fused embedding to write.
type NewValues<'p> = (&'p Part, Version, [Option<Embedding<'static>>; 2]);

/// Writes what `next` returns, until `None`.
pub fn write<'p>(parts: &'p [Part], next: &mut dyn FnMut() -> Result<Option<NewValues<'p>>>) -> Result<()> {
    Spi::connect_mut(|client| {
        let types = [Embedding::type_oid(), Embedding::type_oid(), pg_sys::TIDOID, pg_sys::XIDOID].map(PgOid::from);
        let mut statements = Vec::new();
        for Part { table, name, embedding, fused, .. } in parts {
            let update = format!(
                "UPDATE {name} SET {embedding} = $1, {fused} = $2 \
                 WHERE ctid OPERATOR(pg_catalog.=) $3 AND xmin OPERATOR(pg_catalog.=) $4"
            );
            statements.push((*table, client.prepare_mut(update.as_str(), &types)?));
        }
        let mut memory = PgMemoryContexts::new("pg_sketch row");
        loop {
            // SAFETY: nothing allocated for one row is used for the next.
            let more = unsafe {
                memory.reset();
                memory.switch_to(|_| -> Result<bool> {
                    pgrx::check_for_interrupts!();
                    let Some((part, row, [embedding, fused])) = next()? else { return Ok(false) };
                    let statement = statements.iter().find(|(table, _)| *table == part.table).map(|(_, found)| found);
                    let statement = statement.expect("there is one for each part");
                    client.update(
                        statement,
                        None,
                        &[embedding.into(), fused.into(), row.tid.into(), row.xmin.into()],
                    )?;
                    Ok(true)
                })
            };
            if !more? {
                return Ok(());
            }
        }
    })
}

/// State of `sketch_embed_photos` between batches.
#[derive(Serialize, Deserialize)]
struct Progress {
    table: u32,
    place: u64,
    done: i64,
    total: i64,
    started: f64,
    reported: f64,
}

impl Progress {
    fn start(parts: &[Part], schema: &str, model: u32) -> Result<Self> {
        let mut total = 0;
        for part in parts {
            total += part.count(&part.missing(schema, model))?;
        }
        let now = seconds();
        Ok(Self { table: 0, place: 0, done: 0, total, started: now, reported: now })
    }

    fn report(&mut self) {
        let now = seconds();
        if now - self.reported > REPORTED_EVERY || self.done >= self.total {
            let rate = self.done as f64 / (now - self.started).max(0.001);
            notice!("processed {} of {} photos, {rate:.1} per second", self.done, self.total);
            self.reported = now;
        }
    }
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Embeds the next `batch` photos that lack an embedding. Returns where to continue, NULL at the end.
#[pg_extern(volatile, parallel_unsafe)]
fn embed_batch(photos: pg_sys::Oid, batch: i32, progress: Option<JsonB>) -> Result<Option<JsonB>, ErrorReport> {
    let batch = positive("batch", batch)?;
    let mut gallery = Gallery::of(photos)?;
    let parts = Part::of_gallery(photos, &gallery)?;
    let schema = catalog::quoted_extension_schema()?;
    let mut progress = match progress {
        Some(JsonB(progress)) => serde_json::from_value(progress).map_err(|error| {
            SqlError::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "\"progress\" is not of an earlier batch")
                .detail(format!("{error}."))
        })?,
        None => {
            gallery.use_current_model()?;
            Progress::start(&parts, &schema, gallery.model)?
        }
    };
    for part in &parts {
        match part.table.to_u32().cmp(&progress.table) {
            Ordering::Less => continue,
            Ordering::Equal => {}
            Ordering::Greater => (progress.table, progress.place) = (part.table.to_u32(), 0),
        }
        let (rows, next) = part.next(&part.missing(&schema, gallery.model), progress.place, batch)?;
        progress.place = next.unwrap_or(u64::MAX);
        if !rows.is_empty() {
            embed_rows(&gallery, part, &rows)?;
            progress.done += rows.len() as i64;
            progress.report();
            return Ok(Some(JsonB(serde_json::to_value(progress).expect("plain numbers"))));
        }
    }
    Ok(None)
}

fn embed_rows(gallery: &Gallery, part: &Part, rows: &[Version]) -> Result<()> {
    let (model, form) = (gallery.model, gallery.form()?);
    let photos = part.embed(&*inference::embedder(model)?, rows)?;
    let mut photos = rows.iter().zip(photos);
    write(std::slice::from_ref(part), &mut || {
        for (row, photo) in photos.by_ref() {
            match photo {
                Photo::Embedded(embedding) => {
                    let embedding = Embedding::new(&embedding, Origin { model, codebook: 0 })?;
                    let fused = codebook::store(embedding, &form)?;
                    return Ok(Some((part, *row, [Some(embedding), Some(fused)])));
                }
                Photo::Broken(cause) => {
                    // SAFETY: the table exists, and `part.next` has locked it.
                    let table =
                        unsafe { PgRelation::with_lock(part.table, pg_sys::AccessShareLock as pg_sys::LOCKMODE) };
                    let Some(found) = Row::read(table, row.tid) else { continue };
                    broken(&found, gallery, cause)?;
                    // An embedding by an earlier model does not rank with the others.
                    if found.has_value(gallery.embedding) || found.has_value(gallery.fused) {
                        return Ok(Some((part, *row, [None, None])));
                    }
                }
                Photo::Gone => {}
            }
        }
        Ok(None)
    })
}

impl Row<'_> {
    fn has_value(&self, column: Column) -> bool {
        self.column(column, Embedding::type_oid()).is_ok_and(|column| self.new_value::<Embedding<'_>>(column).is_some())
    }
}
