//! Galleries: tables of photos that are searched by drawing. Each has a row in `sketch.gallery`.
//!
//! The trigger, bulk embedding and the SQL functions read columns and codebook from that row. Columns are stored by
//! number ([`mod@column`]), so that tables and columns can be renamed.

mod bulk;
mod column;
mod enable;
mod fuse;
mod row;
mod store;
mod trigger;

use crate::catalog::{self, CodebookName};
use crate::error::{Result, SqlError};
use crate::role::as_owner;
use crate::{settings, version};
use column::Column;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// A row of `sketch.gallery`.
struct Gallery {
    relation: pg_sys::Oid,
    image: Column,
    embedding: Column,
    fused: Column,
    codebook: CodebookName,
    /// The model that embeds its photos, whichever is in use: what others made does not rank with them.
    model: u32,
}

impl Gallery {
    /// The gallery of a table, or of the nearest table that it is a partition of.
    fn find(table: pg_sys::Oid) -> Result<Option<Self>> {
        if let Some(gallery) = Self::read(table)? {
            return Ok(Some(gallery));
        }
        // SAFETY: a plain look-up in the catalog.
        if !unsafe { pg_sys::get_rel_relispartition(table) } {
            return Ok(None);
        }
        let ancestors = catalog::column::<pg_sys::Oid>(
            "SELECT relid::pg_catalog.oid FROM pg_catalog.pg_partition_ancestors($1::pg_catalog.regclass)",
            &[table.into()],
        )?;
        for ancestor in ancestors {
            if let Some(gallery) = Self::read(ancestor)? {
                return Ok(Some(gallery));
            }
        }
        Ok(None)
    }

    /// The same, but required.
    ///
    /// # Errors
    /// If there is none, or one of its columns was dropped.
    fn of(table: pg_sys::Oid) -> Result<Self> {
        Self::find(table)?.filter(Self::is_whole).map_or_else(|| Err(not_enabled(table)), Ok)
    }

    /// The row of this very table.
    fn read(table: pg_sys::Oid) -> Result<Option<Self>> {
        if !version::is_later_than_0_1_0() {
            return Err(version::outdated("a gallery")?);
        }
        Spi::connect(|client| {
            let rows = client.select(
                "SELECT image, embedding, fused, codebook, codebook_owner::pg_catalog.text, model_id FROM sketch.gallery \
                 WHERE relation OPERATOR(pg_catalog.=) $1",
                Some(1),
                &[table.into()],
            )?;
            if rows.is_empty() {
                return Ok(None);
            }
            let row = rows.first();
            Ok(match (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get::<i64>(6)?) {
                (Some(image), Some(embedding), Some(fused), Some(name), Some(owner), Some(model)) => {
                    let codebook = CodebookName { owner, name };
                    Some(Self { relation: table, image, embedding, fused, codebook, model: model as u32 })
                }
                _ => None,
            })
        })
    }

    /// Whether all columns exist. A drop while event triggers are off leaves a stale row behind.
    fn is_whole(&self) -> bool {
        [self.image, self.embedding, self.fused].iter().all(|column| column.name().is_some())
    }

    /// Writes the row. It replaces a stale one, and removes those that temporary tables left behind: no event tells of
    /// their end.
    fn write(&self) -> Result<()> {
        let sweep = "DELETE FROM sketch.gallery WHERE sketch.column_name(image) IS NULL \
            OR sketch.column_name(embedding) IS NULL OR sketch.column_name(fused) IS NULL";
        let insert = "INSERT INTO sketch.gallery (relation, image, embedding, fused, codebook, codebook_owner, model_id) \
            VALUES ($1, $2, $3, $4, $5, $6::pg_catalog.name, $7) \
            ON CONFLICT (relation) DO UPDATE SET image = excluded.image, embedding = excluded.embedding, \
            fused = excluded.fused, codebook = excluded.codebook, codebook_owner = excluded.codebook_owner, \
            model_id = excluded.model_id";
        let Self { relation, image, embedding, fused, codebook, model } = self;
        as_owner(|| {
            Spi::run(sweep)?;
            Ok(Spi::run_with_args(
                insert,
                &[
                    (*relation).into(),
                    (*image).into(),
                    (*embedding).into(),
                    (*fused).into(),
                    codebook.name.as_str().into(),
                    codebook.owner.as_str().into(),
                    i64::from(*model).into(),
                ],
            )?)
        })
    }

    /// Moves the gallery to the model in use, if the caller has the rights of the table's owner. Photos that another model
    /// embedded are to be embedded anew.
    fn use_current_model(&mut self) -> Result<()> {
        let current = catalog::model_in_use(settings::model().as_deref())?;
        if current == self.model {
            return Ok(());
        }
        if enable::owns(self.relation)? {
            self.model = current;
            return self.write();
        }
        let table = catalog::relation_name(self.relation)?;
        SqlError::new(
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("photos of table \"{table}\" are not embedded with the model in use"),
        )
        .detail(format!("Their model has id {}, the one in use {current}.", self.model))
        .hint("The gallery moves to the model in use when the owner of the table calls sketch_embed_photos.")
        .notice();
        Ok(())
    }

    fn delete(&self) -> Result<()> {
        let delete = "DELETE FROM sketch.gallery WHERE relation OPERATOR(pg_catalog.=) $1";
        as_owner(|| Ok(Spi::run_with_args(delete, &[self.relation.into()])?))
    }
}

fn not_enabled(table: pg_sys::Oid) -> SqlError {
    let name = match catalog::relation_name(table) {
        Ok(name) => name,
        Err(missing) => return missing,
    };
    SqlError::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("table \"{name}\" is not enabled for sketches"),
    )
    .hint("Call sketch_enable with the table and its image column first.")
}

/// The columns and the codebook of a gallery.
#[pg_extern(stable, strict, parallel_safe)]
// pgrx reads the names of the columns from the type.
#[allow(clippy::type_complexity)]
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
            name!(codebook_owner, String),
        ),
    >,
    ErrorReport,
> {
    let gallery = Gallery::of(photos)?;
    let name = |column: Column| column.name().unwrap_or_default();
    Ok(TableIterator::once((
        name(gallery.image),
        name(gallery.embedding),
        name(gallery.fused),
        gallery.codebook.name,
        gallery.codebook.owner,
    )))
}
