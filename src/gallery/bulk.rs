//! Embedding many photos of a table: several in flight at a time.

use super::{find_gallery, fuse_photo};
use crate::embedding::{Embedding, Origin};
use crate::error::Result;
use crate::settings;
use crate::{catalog, network};
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sketch_model::inference::encoder::Domain;

type EmbeddedRow = (pg_sys::ItemPointerData, Option<Embedding<'static>>, Option<Embedding<'static>>);

/// Embeds and fuses the photos of these rows; writes nothing.
///
/// A photo that cannot be embedded comes back without an embedding: the trigger, which knows what to do with it and how
/// to name its row, is left to deal with it. Rows that are gone, or without a photo, do not come back.
#[pg_extern(stable, strict, parallel_restricted)]
// pgrx reads the names of the columns from the type.
#[allow(clippy::type_complexity)]
fn embed_rows(
    photos: pg_sys::Oid,
    tids: Array<'_, pg_sys::ItemPointerData>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(tid, pg_sys::ItemPointerData),
            name!(embedding, Option<Embedding<'static>>),
            name!(fused, Option<Embedding<'static>>),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::new(embed(photos, tids.iter().flatten().collect())?))
}

fn embed(photos: pg_sys::Oid, tids: Vec<pg_sys::ItemPointerData>) -> Result<Vec<EmbeddedRow>> {
    let gallery = find_gallery(photos)?;
    let network = network::network(catalog::model_in_use(settings::model().as_deref())?)?;
    let origin = Origin { model: network.id, codebook: 0 };
    // One photo is read at a time: a batch of them, unpacked, may be large.
    let query = format!(
        "SELECT {} FROM {} WHERE ctid OPERATOR(pg_catalog.=) $1",
        pgrx::spi::quote_identifier(&gallery.image),
        catalog::relation_name(photos)?
    );
    let mut rows: Vec<EmbeddedRow> = Vec::with_capacity(tids.len());
    // Which row each image in flight is of.
    let mut embedded: Vec<usize> = Vec::with_capacity(tids.len());
    let mut tids = tids.into_iter();
    let mut results = Vec::with_capacity(tids.len());
    network.embed_all(
        Domain::Photo,
        &mut || {
            for tid in tids.by_ref() {
                let Some(photo) = catalog::first_value::<Vec<u8>>(&query, &[tid.into()])? else { continue };
                rows.push((tid, None, None));
                if let Ok(pixels) = network.render(Domain::Photo, &photo) {
                    embedded.push(rows.len() - 1);
                    return Ok(Some(pixels));
                }
            }
            Ok(None)
        },
        &mut |embedding| {
            results.push(embedding);
            Ok(())
        },
    )?;
    for (row, embedding) in embedded.into_iter().zip(results) {
        let embedding = Embedding::new(&embedding, origin)?;
        rows[row].1 = Some(embedding);
        rows[row].2 = Some(fuse_photo(embedding, &gallery.codebook)?);
    }
    Ok(rows)
}
