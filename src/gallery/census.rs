//! What a gallery holds, `sketch_gallery_status`: its photos, its codebook, its index.

use super::maintain::{INDEX_PAYS, create_index, outgrown};
use super::{Gallery, Mode};
use crate::embedding::Embedding;
use crate::error::Result;
use crate::role::as_owner;
use crate::{catalog, index};
use half::slice::HalfFloatSliceExt;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Photos whose distances from their prototypes are looked at: their mean is within 2 % of that of all.
const SAMPLE: i64 = 500;
/// A REINDEX pays if it would make so many times as many lists.
const MORE_LISTS: f64 = 2.0;

/// Counts of the photos that the user may read.
pub struct Census {
    pub photos: i64,
    pub embedded: i64,
    /// Fused with the codebook in use or, without one, ranked by their embeddings.
    pub fused: i64,
    /// The codebook in use.
    pub codebook: Option<u32>,
    error: Option<f32>,
}

impl Census {
    pub fn take(gallery: &Gallery) -> Result<Self> {
        let model = gallery.model;
        let codebook = catalog::find_codebook(&gallery.codebook, model)?;
        let schema = catalog::quoted_extension_schema()?;
        let (table, fused) = (catalog::relation_name(gallery.relation)?, gallery.fused.quoted());
        // "embedding" is not read: it is often stored out of line.
        let query = format!(
            "SELECT pg_catalog.count(*), pg_catalog.count({}), pg_catalog.count(*) FILTER (WHERE \
             {schema}.sketch_model_id({fused}) OPERATOR(pg_catalog.=) {model} AND \
             COALESCE({schema}.sketch_codebook_id({fused}), 0) OPERATOR(pg_catalog.=) {}) FROM {table} WHERE {} IS NOT NULL",
            gallery.embedding.quoted(),
            codebook.unwrap_or(0),
            gallery.image.quoted()
        );
        let (photos, embedded, fused) = catalog::first_row::<i64, i64, i64>(&query, &[])?;
        let embedded = embedded.unwrap_or(0);
        let error = codebook.map(|codebook| quantisation_error(gallery, codebook, embedded)).transpose()?.flatten();
        Ok(Self { photos: photos.unwrap_or(0), embedded, fused: fused.unwrap_or(0), codebook, error })
    }

    /// By how much photos are further from their prototypes than when the codebook was built; `None` if that is not known.
    pub fn drift(&self, gallery: &Gallery) -> Option<f64> {
        let built = gallery.built.as_ref().filter(|built| Some(built.codebook) == self.codebook)?;
        (built.error > 0.0).then(|| f64::from(self.error.unwrap_or(0.0) / built.error) - 1.0)
    }
}

/// Mean squared distance of photos from their prototypes, over a sample; `None` without photos.
pub fn quantisation_error(gallery: &Gallery, id: u32, embedded: i64) -> Result<Option<f32>> {
    let codebook = catalog::read_codebook(id)?;
    let percent = (100.0 * SAMPLE as f64 / embedded.max(1) as f64).min(100.0);
    let (table, embedding) = (catalog::relation_name(gallery.relation)?, gallery.embedding.quoted());
    let query = format!(
        "SELECT {embedding} FROM {table} TABLESAMPLE bernoulli ({percent}) REPEATABLE (1) WHERE {embedding} IS NOT NULL"
    );
    let (mut sum, mut count) = (0.0, 0.0);
    Spi::connect(|client| -> Result<()> {
        for row in client.select(&query, Some(2 * SAMPLE), &[])? {
            let Some(embedding) = row.get::<Embedding<'_>>(1)? else { continue };
            // Of an earlier model, which maintenance has not reached yet.
            if embedding.origin().model != codebook.model() || embedding.values().len() != codebook.dimension() {
                continue;
            }
            let values = embedding.values().to_f32_vec();
            let prototypes = codebook.decode(&codebook.encode(&values)?)?;
            sum += values.iter().zip(&prototypes).map(|(x, p)| (x - p) * (x - p)).sum::<f32>();
            count += 1.0;
        }
        Ok(())
    })?;
    Ok((count > 0.0).then(|| sum / count))
}

/// The index that serves the gallery: the first valid one.
pub fn index(gallery: &Gallery) -> Result<Option<pg_sys::Oid>> {
    catalog::first_value::<pg_sys::Oid>(
        "SELECT i.indexrelid FROM pg_catalog.pg_index AS i \
         JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid \
         JOIN pg_catalog.pg_am AS a ON a.oid OPERATOR(pg_catalog.=) c.relam \
         WHERE i.indrelid OPERATOR(pg_catalog.=) $1 AND i.indisvalid AND i.indpred IS NULL \
         AND i.indkey[0] OPERATOR(pg_catalog.=) $2 AND a.amname OPERATOR(pg_catalog.=) 'ivfexact' \
         ORDER BY i.indexrelid LIMIT 1",
        &[gallery.relation.into(), gallery.fused.number_in(gallery.relation).unwrap_or(0).into()],
    )
}

/// An index and its partitions: bytes, and those for which a REINDEX pays.
fn index_state(index: pg_sys::Oid) -> Result<(i64, Vec<String>)> {
    let leaves = catalog::column::<pg_sys::Oid>(
        "SELECT c.oid FROM pg_catalog.pg_class AS c WHERE c.relkind OPERATOR(pg_catalog.=) 'i' AND (c.oid OPERATOR(pg_catalog.=) $1 \
         OR c.oid IN (SELECT relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass)))",
        &[index.into()],
    )?;
    let (mut bytes, mut worth) = (0, Vec::new());
    for leaf in leaves {
        bytes +=
            catalog::first_value::<i64>("SELECT pg_catalog.pg_relation_size($1::pg_catalog.regclass)", &[leaf.into()])?
                .unwrap_or(0);
        let (lists, wanted) = index::lists(leaf)?;
        if wanted as f64 >= MORE_LISTS * lists as f64 {
            worth.push(catalog::relation_name(leaf)?);
        }
    }
    Ok((bytes, worth))
}

/// Photos in the queue, and those that failed.
fn queued(gallery: &Gallery) -> Result<(i64, i64)> {
    let query = "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE due_at OPERATOR(pg_catalog.=) 'infinity'), true \
         FROM sketch.queue WHERE gallery OPERATOR(pg_catalog.=) $1";
    let (all, failed, _) = as_owner(|| catalog::first_row::<i64, i64, bool>(query, &[gallery.relation.into()]))?;
    Ok((all.unwrap_or(0), failed.unwrap_or(0)))
}

/// What would improve the gallery, as statements; `None` if nothing would.
fn advice(gallery: &Gallery, census: &Census, pending: i64, worth_reindex: &[String]) -> Result<Option<String>> {
    let table = catalog::relation_name(gallery.relation)?;
    let mut advice = Vec::new();
    let is_tended = gallery.mode == Mode::Background && crate::wakeup::is_there();
    if !is_tended && (pending > 0 || outgrown(gallery, census)?.is_some()) {
        advice.push(format!("CALL sketch_maintain({})", pgrx::spi::quote_literal(&table)));
    }
    if census.embedded >= INDEX_PAYS && index(gallery)?.is_none() {
        advice.push(create_index(gallery, "CONCURRENTLY ")?);
    }
    advice.extend(worth_reindex.iter().map(|index| format!("REINDEX INDEX CONCURRENTLY {index}")));
    Ok((!advice.is_empty()).then(|| advice.join("; ")))
}

#[pg_extern(volatile, strict, parallel_unsafe)]
// pgrx reads the names of the columns from the type.
#[allow(clippy::type_complexity)]
fn sketch_gallery_status(
    gallery: pg_sys::Oid,
) -> Result<
    TableIterator<
        'static,
        (
            name!(mode, &'static str),
            name!(photos, i64),
            name!(embedded, i64),
            name!(fused, i64),
            name!(pending, i64),
            name!(failed, i64),
            name!(codebook, Option<i64>),
            name!(codebook_age, Option<pgrx::datum::Interval>),
            name!(drift, Option<f64>),
            name!(index, Option<pg_sys::Oid>),
            name!(index_size, Option<i64>),
            name!(advice, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let gallery = Gallery::of(gallery)?;
    let census = Census::take(&gallery)?;
    let (_, failed) = queued(&gallery)?;
    let pending = (census.photos - census.fused - failed).max(0);
    let age = catalog::first_value::<pgrx::datum::Interval>(
        "SELECT pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) created_at FROM sketch.codebook_name \
         WHERE codebook_id OPERATOR(pg_catalog.=) $1 AND name OPERATOR(pg_catalog.=) $2 AND owner OPERATOR(pg_catalog.=) $3::pg_catalog.name",
        &[
            census.codebook.map(i64::from).into(),
            gallery.codebook.name.as_str().into(),
            gallery.codebook.owner.as_str().into(),
        ],
    )?;
    let index = index(&gallery)?;
    let state = index.map(index_state).transpose()?;
    let worth = state.as_ref().map(|(_, worth)| worth.as_slice()).unwrap_or_default();
    Ok(TableIterator::once((
        gallery.mode.name(),
        census.photos,
        census.embedded,
        census.fused,
        pending,
        failed,
        census.codebook.map(i64::from),
        age,
        census.drift(&gallery),
        index,
        state.as_ref().map(|(bytes, _)| *bytes),
        advice(&gallery, &census, pending, worth)?,
    )))
}
