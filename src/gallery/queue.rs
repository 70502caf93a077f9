//! The queue of photos that wait to be embedded in the background, `sketch.queue`.
//!
//! An entry is written in the transaction that wrote the photo, and deleted in the one that writes its embedding: so none is
//! lost, and none is done twice. It says where the photo was. Whether it still lacks something is in the photo's row, and a
//! row that moved has another entry.

use super::bulk::{Part, Photo, Version};
use super::row::Row;
use super::trigger::gallery_of;
use super::{Gallery, not_enabled};
use crate::attempt::attempt;
use crate::catalog;
use crate::embedding::{Embedding, Origin};
use crate::error::{Result, SqlError};
use crate::role::{Acting, as_owner};
use crate::wakeup::{Wanted, wake_at_commit};
use crate::{codebook, inference};
use half::f16;
use pgrx::AllocatedByRust;
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::itemptr::item_pointer_to_u64;
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
use pgrx::prelude::*;
use sketch_model::form::Form;
use std::collections::HashSet;

/// Photos of a transaction: half a second of work on two cores.
const BATCH: i64 = 32;
/// Seconds until a photo is tried again, by how often it has failed. Then it has failed for good.
const PATIENCE: [f64; 4] = [1.0, 10.0, 60.0, 600.0];
/// Seconds until a row that another transaction has locked is tried again.
const LOCKED: f64 = 1.0;

/// A row of `sketch.queue`.
#[derive(Clone, Copy)]
struct Entry {
    place: pg_sys::ItemPointerData,
    part: pg_sys::Oid,
    tid: pg_sys::ItemPointerData,
    attempts: i32,
}

/// What became of an entry.
enum Fate {
    Done,
    /// The row has been deleted or changed, or all rows have moved.
    Gone,
    Locked,
    Failed(SqlError),
    /// The photo cannot be embedded, however often it is tried.
    Broken(SqlError),
}

/// What became of a batch.
#[derive(Clone, Copy, Default)]
pub struct Drained {
    pub entries: usize,
    /// Photos that lack nothing now.
    pub done: usize,
    pub gone: usize,
}

/// Queues a new or changed photo.
#[pg_trigger]
fn queue_trigger<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, AllocatedByRust>>, std::convert::Infallible> {
    // pgrx would wrap an error of ours in one of its own.
    queue_row(trigger).map_err(ErrorReport::from).unwrap_or_report();
    Ok(None)
}

fn queue_row(trigger: &PgTrigger<'_>) -> Result<()> {
    let row = Row::written(trigger)?;
    let table = row.table_oid();
    let gallery = gallery_of(table)?.ok_or_else(|| not_enabled(table))?;
    let image = row.column(gallery.image, pg_sys::BYTEAOID)?;
    let embedding = row.column(gallery.embedding, Embedding::type_oid())?;
    let fused = row.column(gallery.fused, Embedding::type_oid())?;
    if !row.is_null(image) && (row.is_new() || row.is_null(embedding) || row.is_null(fused)) {
        enqueue(gallery.relation, table, row.tid());
        wake_at_commit(Wanted::Photos);
    }
    Ok(())
}

/// Writes an entry, as an index writes one: whoever may write the table of photos need not have rights on the queue.
pub fn enqueue(gallery: pg_sys::Oid, part: pg_sys::Oid, mut tid: pg_sys::ItemPointerData) {
    // SAFETY: the columns of `sketch.queue` have these types in this order, and only the last may be NULL.
    unsafe {
        let now = pg_sys::GetCurrentTimestamp();
        let schema = pg_sys::get_namespace_oid(c"sketch".as_ptr(), false);
        let lock = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
        let queue = pg_sys::table_open(pg_sys::get_relname_relid(c"queue".as_ptr(), schema), lock);
        let null = pg_sys::Datum::null();
        let mut values: [pg_sys::Datum; 7] =
            [gallery.into(), part.into(), (&raw mut tid).into(), now.into(), 0.into(), now.into(), null];
        let mut nulls = [false, false, false, false, false, false, true];
        let tuple = pg_sys::heap_form_tuple((*queue).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::simple_heap_insert(queue, tuple);
        pg_sys::heap_freetuple(tuple);
        pg_sys::table_close(queue, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
}

/// Queues the photos that lack an embedding of the model in use and have no entry. Returns how many.
pub fn enqueue_missing(gallery: &Gallery) -> Result<usize> {
    let model = gallery.model;
    let schema = catalog::quoted_extension_schema()?;
    // What was committed before a lock was had must be visible, too.
    let _snapshot = Snapshot::take();
    let mut count = 0;
    for part in Part::of_gallery(gallery.relation, gallery)? {
        check_sees_all(part.table)?;
        forget_mended(&part, gallery, model)?;
        let known = places(gallery.relation, part.table)?;
        let mut place = Some(0);
        while let Some(from) = place {
            let (rows, next) = part.next(&part.incomplete(&schema, model), from, 1000)?;
            place = next;
            for row in rows.iter().filter(|row| !known.contains(&item_pointer_to_u64(row.tid))) {
                enqueue(gallery.relation, part.table, row.tid);
                count += 1;
            }
        }
    }
    Ok(count)
}

/// Deletes the failures of rows that are gone or lack nothing any more.
fn forget_mended(part: &Part, gallery: &Gallery, model: u32) -> Result<()> {
    let newest = catalog::find_codebook(&gallery.codebook, model)?;
    let query = "SELECT tid FROM sketch.queue WHERE part OPERATOR(pg_catalog.=) $1 AND due_at OPERATOR(pg_catalog.=) 'infinity'";
    let failed = as_owner(|| catalog::column::<pg_sys::ItemPointerData>(query, &[part.table.into()]))?;
    let mut mended = Vec::new();
    for tid in failed {
        if !matches!(part.look(tid, model, newest)?, Found::Lacking(..)) {
            mended.push(tid);
        }
    }
    let delete = "DELETE FROM sketch.queue WHERE part OPERATOR(pg_catalog.=) $1 AND tid OPERATOR(pg_catalog.=) ANY ($2) \
         AND due_at OPERATOR(pg_catalog.=) 'infinity'";
    as_owner(|| Ok(Spi::run_with_args(delete, &[part.table.into(), mended.into()])?))
}

/// Where the queue has photos of a table.
fn places(gallery: pg_sys::Oid, part: pg_sys::Oid) -> Result<HashSet<u64>> {
    let query =
        "SELECT tid FROM sketch.queue WHERE gallery OPERATOR(pg_catalog.=) $1 AND part OPERATOR(pg_catalog.=) $2";
    let tids = as_owner(|| catalog::column::<pg_sys::ItemPointerData>(query, &[gallery.into(), part.into()]))?;
    Ok(tids.into_iter().map(item_pointer_to_u64).collect())
}

/// Deletes the entries of a gallery.
pub fn clear(gallery: pg_sys::Oid) -> Result<()> {
    let delete = "DELETE FROM sketch.queue WHERE gallery OPERATOR(pg_catalog.=) $1";
    as_owner(|| Ok(Spi::run_with_args(delete, &[gallery.into()])?))
}

/// Deletes what no longer belongs to a gallery: tables dropped while event triggers were off.
pub fn purge() -> Result<()> {
    as_owner(|| {
        Ok(Spi::run(
            "DELETE FROM sketch.queue AS q WHERE NOT EXISTS \
             (SELECT FROM sketch.gallery WHERE relation::pg_catalog.oid OPERATOR(pg_catalog.=) q.gallery)",
        )?)
    })
}

/// Has all photos that have failed, for good or not, tried once more now.
pub fn retry(gallery: pg_sys::Oid) -> Result<()> {
    let update = "UPDATE sketch.queue SET due_at = pg_catalog.clock_timestamp() \
         WHERE gallery OPERATOR(pg_catalog.=) $1 AND attempts OPERATOR(pg_catalog.>) 0";
    as_owner(|| Ok(Spi::run_with_args(update, &[gallery.into()])?))
}

/// Embeds, fuses and writes the next photos of the queue, with the rights of `role` or, without one, the caller's.
///
/// Waits for no other transaction: what it has locked is left for later. If something fails, the photos of the batch are tried
/// one by one, later.
pub fn drain(gallery: &Gallery, role: Option<pg_sys::Oid>) -> Result<Drained> {
    let entries = take(gallery.relation)?;
    let mut drained = Drained { entries: entries.len(), ..Drained::default() };
    if entries.is_empty() {
        return Ok(drained);
    }
    // What the entries tell of must be visible, too.
    let _snapshot = Snapshot::take();
    let fates = match attempt(|| embed(gallery, role, &entries)) {
        Ok(fates) => fates,
        Err(error) => entries.iter().map(|_| Fate::Failed(error.clone())).collect(),
    };
    let mut finished = Vec::new();
    for (entry, fate) in entries.iter().zip(fates) {
        match fate {
            Fate::Done => {
                drained.done += 1;
                finished.push(entry.place);
            }
            Fate::Gone => {
                drained.gone += 1;
                finished.push(entry.place);
            }
            Fate::Locked => postpone(entry, Some(LOCKED), None)?,
            Fate::Broken(error) => postpone(entry, None, Some(&error))?,
            Fate::Failed(error) => postpone(entry, PATIENCE.get(entry.attempts as usize).copied(), Some(&error))?,
        }
    }
    as_owner(|| {
        let delete = "DELETE FROM sketch.queue WHERE ctid OPERATOR(pg_catalog.=) ANY ($1)";
        Ok(Spi::run_with_args(delete, &[finished.into()])?)
    })?;
    Ok(drained)
}

/// The next entries: those that have not failed together, others alone, so that one photo's failure is its own.
fn take(gallery: pg_sys::Oid) -> Result<Vec<Entry>> {
    let query = |condition: &str| {
        format!(
            "SELECT ctid, part, tid, attempts FROM sketch.queue WHERE gallery OPERATOR(pg_catalog.=) $1 \
             AND due_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp() AND attempts OPERATOR(pg_catalog.{condition}) 0 \
             LIMIT $2 FOR UPDATE SKIP LOCKED"
        )
    };
    let select = |condition, limit: i64| {
        Spi::connect_mut(|client| -> Result<Vec<Entry>> {
            let mut entries = Vec::new();
            for row in client.update(query(condition).as_str(), None, &[gallery.into(), limit.into()])? {
                if let (Some(place), Some(part), Some(tid), Some(attempts)) =
                    (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)
                {
                    entries.push(Entry { place, part, tid, attempts });
                }
            }
            Ok(entries)
        })
    };
    as_owner(|| {
        let fresh = select("=", BATCH)?;
        if fresh.is_empty() { select(">", 1) } else { Ok(fresh) }
    })
}

/// Leaves an entry for later, or for good.
fn postpone(entry: &Entry, seconds: Option<f64>, error: Option<&SqlError>) -> Result<()> {
    let update = "UPDATE sketch.queue SET attempts = attempts OPERATOR(pg_catalog.+) $2, \
         due_at = COALESCE(pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $3), 'infinity'), \
         error = COALESCE($4, error) WHERE ctid OPERATOR(pg_catalog.=) $1";
    let failures = i32::from(error.is_some());
    let text = error.map(SqlError::text);
    as_owner(|| Ok(Spi::run_with_args(update, &[entry.place.into(), failures.into(), seconds.into(), text.into()])?))
}

/// Refuses a role from which row security hides rows: they would count as deleted.
fn check_sees_all(table: pg_sys::Oid) -> Result<()> {
    // SAFETY: a plain look-up in the catalog.
    let security = unsafe { pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true) };
    if security != pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32 {
        return Ok(());
    }
    Err(SqlError::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("row security is active for table {}", catalog::relation_name(table)?),
    )
    .detail("Rows that it hides could not be told from rows that were deleted.")
    .hint("The background worker acts as the owner of the table, for whom FORCE ROW LEVEL SECURITY must be off."))
}

/// What an entry's row lacks.
enum Lack {
    Embedding,
    Fusion(Vec<f16>, Origin),
}

/// Completes the rows of entries. Returns what became of each.
fn embed(gallery: &Gallery, role: Option<pg_sys::Oid>, entries: &[Entry]) -> Result<Vec<Fate>> {
    let model = gallery.model;
    let (newest, form) = (catalog::find_codebook(&gallery.codebook, model)?, gallery.form()?);
    let mut fates: Vec<Option<Fate>> = entries.iter().map(|_| None).collect();
    let mut tables: Vec<pg_sys::Oid> = entries.iter().map(|entry| entry.part).collect();
    tables.sort_by_key(|table| table.to_u32());
    tables.dedup();
    for table in tables {
        let of_table: Vec<usize> = (0..entries.len()).filter(|index| entries[*index].part == table).collect();
        // SAFETY: waits for nobody; the lock is released at the end of the transaction.
        let free = unsafe { pg_sys::ConditionalLockRelationOid(table, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE) };
        // Before names are made, which depend on the search path.
        let _acting = role.map(Acting::restricted);
        // A table may have been dropped, or be a partition no longer.
        let part = if free {
            Part::of_gallery(gallery.relation, gallery)?.into_iter().find(|part| part.table == table)
        } else {
            None
        };
        let Some(part) = part else {
            of_table.into_iter().for_each(|index| fates[index] = Some(if free { Fate::Gone } else { Fate::Locked }));
            continue;
        };
        check_sees_all(table)?;
        let mut lacking: Vec<(usize, Version, Lack)> = Vec::new();
        let mut seen = HashSet::new();
        for index in of_table {
            // A row that was committed while maintenance looked for those without an entry has two.
            if !seen.insert(item_pointer_to_u64(entries[index].tid)) {
                fates[index] = Some(Fate::Done);
                continue;
            }
            match part.look(entries[index].tid, model, newest)? {
                Found::Nothing => fates[index] = Some(Fate::Gone),
                Found::Complete => fates[index] = Some(Fate::Done),
                Found::Lacking(version, lack) => lacking.push((index, version, lack)),
            }
        }
        let without: Vec<Version> = lacking
            .iter()
            .filter(|(.., lack)| matches!(lack, Lack::Embedding))
            .map(|(_, version, _)| *version)
            .collect();
        let mut photos =
            if without.is_empty() { Vec::new() } else { part.embed(&*inference::embedder(model)?, &without)? }
                .into_iter();
        for (index, version, lack) in lacking {
            let values = match lack {
                Lack::Fusion(values, origin) => Some((values, origin)),
                Lack::Embedding => match photos.next().expect("one for each row without an embedding") {
                    Photo::Embedded(values) => Some((values, Origin { model, codebook: 0 })),
                    Photo::Gone => {
                        fates[index] = Some(Fate::Gone);
                        continue;
                    }
                    Photo::Broken(error) => {
                        fates[index] = Some(Fate::Broken(error));
                        None
                    }
                },
            };
            let written = part.complete(version, values.as_ref().map(|(v, o)| (v.as_slice(), *o)), &form)?;
            if fates[index].is_none() {
                fates[index] = Some(if written { Fate::Done } else { Fate::Locked });
            }
        }
    }
    Ok(fates.into_iter().map(|fate| fate.unwrap_or(Fate::Gone)).collect())
}

/// What is at an entry's place.
enum Found {
    Nothing,
    Complete,
    Lacking(Version, Lack),
}

impl Part {
    fn look(&self, tid: pg_sys::ItemPointerData, model: u32, newest: Option<u32>) -> Result<Found> {
        let query = format!(
            "SELECT xmin, {} IS NOT NULL, {}, {} FROM {} WHERE ctid OPERATOR(pg_catalog.=) $1",
            self.image, self.embedding, self.fused, self.name
        );
        Spi::connect(|client| {
            let rows = client.select(&query, Some(1), &[tid.into()])?;
            if rows.is_empty() {
                return Ok(Found::Nothing);
            }
            let row = rows.first();
            let (Some(xmin), Some(true)) = (row.get(1)?, row.get::<bool>(2)?) else { return Ok(Found::Complete) };
            let version = Version { tid, xmin };
            let plain = Origin { model, codebook: 0 };
            let wanted = Origin { model, codebook: newest.unwrap_or(0) };
            let fused = row.get::<Embedding<'_>>(4)?.map(|fused| fused.origin());
            Ok(match row.get::<Embedding<'_>>(3)? {
                Some(embedding) if embedding.origin() == plain && fused == Some(wanted) => Found::Complete,
                Some(embedding) if embedding.origin() == plain => {
                    Found::Lacking(version, Lack::Fusion(embedding.values().to_vec(), plain))
                }
                _ => Found::Lacking(version, Lack::Embedding),
            })
        })
    }

    /// Writes a row's embedding and the form in which it is stored, unless another transaction has the row. NULLs for a photo
    /// that cannot be embedded: an embedding by another model would not rank.
    fn complete(&self, row: Version, embedding: Option<(&[f16], Origin)>, form: &Form) -> Result<bool> {
        let update = format!(
            "UPDATE {name} SET {embedding} = $1, {fused} = $2 WHERE ctid OPERATOR(pg_catalog.=) (SELECT ctid FROM {name} \
             WHERE ctid OPERATOR(pg_catalog.=) $3 AND xmin OPERATOR(pg_catalog.=) $4 FOR NO KEY UPDATE SKIP LOCKED) \
             AND ($1 IS NOT NULL OR {embedding} IS NOT NULL OR {fused} IS NOT NULL)",
            name = self.name,
            embedding = self.embedding,
            fused = self.fused
        );
        Spi::connect_mut(|client| {
            let embedding = embedding.map(|(values, origin)| Embedding::new(values, origin)).transpose()?;
            let fused = embedding.map(|embedding| codebook::store(embedding, form)).transpose()?;
            let args = [embedding.into(), fused.into(), row.tid.into(), row.xmin.into()];
            Ok(client.update(update.as_str(), None, &args)?.len() == 1)
        })
    }
}

/// A snapshot of now, active while it lives.
struct Snapshot;

impl Snapshot {
    fn take() -> Self {
        // SAFETY: a transaction is in progress.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        Self
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // The end of a failed transaction does it.
        if !std::thread::panicking() {
            // SAFETY: pushed by `take`, and all pushed since are popped.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}

/// Name of a photo as in messages; NULL if the user may not read the table, or the row is gone.
#[pg_extern(stable, strict, parallel_safe)]
fn row_name(part: pg_sys::Oid, place: pg_sys::ItemPointerData) -> Result<Option<String>, ErrorReport> {
    // SAFETY: the relation is closed when dropped; `pg_class_aclcheck` is a plain look-up.
    let table = unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let table = pg_sys::try_relation_open(part, lock);
        let Some(relation) = table.as_ref() else { return Ok(None) };
        let may = pg_sys::pg_class_aclcheck(part, pg_sys::GetUserId(), pg_sys::ACL_SELECT as pg_sys::AclMode);
        let is_table = (*relation.rd_rel).relkind as u8 == pg_sys::RELKIND_RELATION;
        pg_sys::relation_close(table, pg_sys::NoLock as pg_sys::LOCKMODE);
        if may != pg_sys::AclResult::ACLCHECK_OK || !is_table {
            return Ok(None);
        }
        pgrx::PgRelation::with_lock(part, lock)
    };
    let Some(gallery) = Gallery::find(part)? else { return Ok(None) };
    Ok(Row::read(table, place).map(|row| row.name(&gallery)))
}
