//! Galleries: tables of photos that are searched by drawing. Each has a row in `sketch.gallery`.
//!
//! The trigger, bulk embedding and the SQL functions read columns and codebook from that row. Columns are stored by
//! number ([`mod@column`]), so that tables and columns can be renamed.
//!
//! New photos are embedded by the statement that writes them ([`trigger`]), or wait in a [`queue`] for the background worker.
//! [`maintain`] does what is not done photo by photo, and [`census`] says what there is.

mod bulk;
mod census;
mod column;
mod enable;
mod fuse;
pub mod maintain;
pub mod queue;
mod row;
mod store;
mod trigger;
mod wait;

pub use maintain::Step;

use crate::catalog::{self, CodebookName};
use crate::codebook::{self, Source};
use crate::error::{Result, SqlError};
use crate::role::as_owner;
use crate::{settings, version};
use column::Column;
use maintain::Built;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::OwnedPreparedStatement;
use sketch_model::form::Form;
use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    /// The statement that reads a row.
    static READ: RefCell<Option<OwnedPreparedStatement>> = const { RefCell::new(None) };
}

/// A row of `sketch.gallery`.
pub struct Gallery {
    relation: pg_sys::Oid,
    image: Column,
    embedding: Column,
    fused: Column,
    codebook: CodebookName,
    /// The model that embeds its photos, whichever is in use: what others made does not rank with them.
    model: u32,
    mode: Mode,
    built: Option<Built>,
    /// The bank that corrects photos for hubs as long as there is no codebook, which names its own.
    bank: Option<u32>,
}

/// Who embeds new photos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The statement that writes them.
    Trigger,
    /// The background worker.
    Background,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Background => "background",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        [Self::Trigger, Self::Background].into_iter().find(|mode| mode.name() == name)
    }
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
    pub fn of(table: pg_sys::Oid) -> Result<Self> {
        Self::find(table)?.filter(Self::is_whole).map_or_else(|| Err(not_enabled(table)), Ok)
    }

    /// The row of this very table.
    fn read(table: pg_sys::Oid) -> Result<Option<Self>> {
        if !catalog::is_later_than_0_1_0() {
            return Err(version::outdated("a gallery")?);
        }
        Spi::connect(|client| {
            let rows = READ.with_borrow_mut(|plan| -> Result<_> {
                // For each row that is written: with a plan of its own, it would cost more than the rest of a trigger.
                let plan = match plan {
                    Some(plan) => plan,
                    None => {
                        let read = "SELECT image, embedding, fused, codebook, codebook_owner::pg_catalog.text, model_id, mode, \
                             built_codebook, built_photos, built_error, bank_id FROM sketch.gallery \
                             WHERE relation OPERATOR(pg_catalog.=) $1";
                        plan.insert(client.prepare(read, &[PgBuiltInOids::OIDOID.oid()])?.keep())
                    }
                };
                Ok(client.select(&*plan, Some(1), &[table.into()])?)
            })?;
            if rows.is_empty() {
                return Ok(None);
            }
            let row = rows.first();
            let mode = row.get::<&str>(7)?.and_then(Mode::of_name).unwrap_or(Mode::Trigger);
            let built = match (row.get::<i64>(8)?, row.get(9)?) {
                (Some(codebook), Some(photos)) => {
                    Some(Built { codebook: codebook as u32, photos, error: row.get(10)?.unwrap_or(0.0) })
                }
                _ => None,
            };
            Ok(match (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get::<i64>(6)?) {
                (Some(image), Some(embedding), Some(fused), Some(name), Some(owner), Some(model)) => {
                    let codebook = CodebookName { owner, name };
                    let model = model as u32;
                    let bank = row.get::<i64>(11)?.map(|id| id as u32);
                    Some(Self { relation: table, image, embedding, fused, codebook, model, mode, built, bank })
                }
                _ => None,
            })
        })
    }

    /// The galleries of this database that the background worker looks after: table, its owner, its name.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn in_background() -> Result<Vec<(pg_sys::Oid, pg_sys::Oid, String)>> {
        Spi::connect(|client| {
            let rows = client.select(
                "SELECT c.oid, c.relowner, g.relation::pg_catalog.text FROM sketch.gallery AS g \
                 JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) g.relation::pg_catalog.oid \
                 WHERE g.mode OPERATOR(pg_catalog.=) 'background' AND sketch.column_name(g.image) IS NOT NULL \
                 AND sketch.column_name(g.embedding) IS NOT NULL AND sketch.column_name(g.fused) IS NOT NULL ORDER BY c.oid",
                None,
                &[],
            )?;
            let mut found = Vec::new();
            for row in rows {
                if let (Some(relation), Some(owner), Some(name)) = (row.get(1)?, row.get(2)?, row.get(3)?) {
                    found.push((relation, owner, name));
                }
            }
            Ok(found)
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
        let insert = "INSERT INTO sketch.gallery \
            (relation, image, embedding, fused, codebook, codebook_owner, model_id, mode, bank_id) \
            VALUES ($1, $2, $3, $4, $5, $6::pg_catalog.name, $7, $8, $9) \
            ON CONFLICT (relation) DO UPDATE SET image = excluded.image, embedding = excluded.embedding, \
            fused = excluded.fused, codebook = excluded.codebook, codebook_owner = excluded.codebook_owner, \
            model_id = excluded.model_id, mode = excluded.mode, bank_id = excluded.bank_id";
        let Self { relation, image, embedding, fused, codebook, model, mode, bank, .. } = self;
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
                    mode.name().into(),
                    bank.map(i64::from).into(),
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
            (self.model, self.bank) = (current, catalog::find_bank(current)?);
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

    /// The form in which photos are stored: that of the newest codebook, or as long as there is none that of the bank.
    fn form(&self) -> Result<Rc<Form>> {
        stored_form(&self.codebook, self.bank, self.model)
    }

    fn delete(&self) -> Result<()> {
        let delete = "DELETE FROM sketch.gallery WHERE relation OPERATOR(pg_catalog.=) $1";
        as_owner(|| Ok(Spi::run_with_args(delete, &[self.relation.into()])?))
    }
}

fn stored_form(codebook: &CodebookName, bank: Option<u32>, model: u32) -> Result<Rc<Form>> {
    codebook::form(match (catalog::find_codebook(codebook, model)?, bank) {
        (Some(codebook), _) => Source::Codebook(codebook),
        (None, Some(bank)) => Source::Bank(bank),
        (None, None) => Source::Nothing,
    })
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
