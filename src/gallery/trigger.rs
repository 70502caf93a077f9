//! The trigger that `sketch_enable` puts on a table of photos.

use super::column::Column;
use super::row::{NewRow, Row, RowColumn};
use super::{Gallery, Mode, not_enabled, row};
use crate::call::View;
use crate::catalog::{self, CodebookName};
use crate::embedding::{Embedding, Origin};
use crate::error::{Result, SqlError};
use crate::settings::{self, BrokenPhoto};
use crate::{codebook, inference};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sketch_model::form::Form;
use sketch_model::inference::encoder::Domain;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::thread::LocalKey;

/// What the trigger knows of a gallery: a statement asks for the same at each of its rows.
struct Known {
    gallery: Rc<Gallery>,
    /// Width of an embedding by its model.
    dimension: usize,
    /// How its photos are stored.
    form: Rc<Form>,
}

/// What was read of the tables, partitions among them, that one query writes to.
type Seen<T> = RefCell<Option<(View, HashMap<pg_sys::Oid, T>)>>;

thread_local! {
    static GALLERY: Seen<Option<Rc<Gallery>>> = const { RefCell::new(None) };
    static KNOWN: Seen<Rc<Known>> = const { RefCell::new(None) };
}

/// What `read` returns for a table, which is called once for all rows of a statement.
fn once<T: Clone>(seen: &'static LocalKey<Seen<T>>, table: pg_sys::Oid, read: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(view) = View::now() else { return read() };
    let known = seen.with_borrow_mut(|seen| {
        if seen.as_ref().is_none_or(|(then, _)| *then != view) {
            *seen = Some((view, HashMap::new()));
        }
        seen.as_ref().and_then(|(_, known)| known.get(&table).cloned())
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let value = read()?;
    seen.with_borrow_mut(|seen| {
        // What was read belongs to this view, whatever has been asked for meanwhile.
        if let Some((_, known)) = seen.as_mut().filter(|(then, _)| *then == view) {
            known.insert(table, value.clone());
        }
    });
    Ok(value)
}

/// The gallery of a table that a trigger is fired for.
pub fn gallery_of(table: pg_sys::Oid) -> Result<Option<Rc<Gallery>>> {
    once(&GALLERY, table, || Ok(Gallery::find(table)?.map(Rc::new)))
}

impl Known {
    fn of(trigger: &PgTrigger<'_>, table: pg_sys::Oid) -> Result<Rc<Self>> {
        once(&KNOWN, table, || {
            // Rows are written between the installation of this library and ALTER EXTENSION ... UPDATE, too.
            let gallery = if catalog::is_later_than_0_1_0() {
                gallery_of(table)?
            } else {
                gallery_of_args(trigger, table)?.map(Rc::new)
            };
            let gallery = gallery.ok_or_else(|| not_enabled(table))?;
            let (_, manifest) = catalog::read_manifest(gallery.model)?;
            let form = gallery.form()?;
            Ok(Rc::new(Self { gallery, dimension: manifest.dimension, form }))
        })
    }
}

/// Embeds and fuses the photo of a new or changed row.
///
/// An embedding that is there already is kept if the gallery's model made it and the photo is the one it was made of:
/// an INSERT brings its own (a copy, a restore), an UPDATE leaves the photo as it is. What a row brings as `fused` never
/// counts: whoever may write that column could otherwise put what is not of this gallery before all who search it.
// pgrx's attribute for triggers panics in a call by hand.
#[pg_extern(volatile, parallel_unsafe, sql = false)]
fn sketch_trigger(fcinfo: pg_sys::FunctionCallInfo) -> Result<NewRow, ErrorReport> {
    // SAFETY: the server is calling; whether as a trigger, is checked there.
    let trigger = unsafe { PgTrigger::from_fcinfo(&*fcinfo) }.map_err(|_| row::not_fired())?;
    Ok(embed_row(&trigger)?)
}

fn embed_row<'a>(trigger: &'a PgTrigger<'a>) -> Result<NewRow> {
    let row = Row::of(trigger)?;
    if is_for_worker(&row)? {
        return Ok(row.unchanged());
    }
    let known = Known::of(trigger, row.table_oid())?;
    let gallery = &known.gallery;
    let image = row.column(gallery.image, pg_sys::BYTEAOID)?;
    let embedding_type = Embedding::type_oid();
    let embedding_column = row.column(gallery.embedding, embedding_type)?;
    let fused_column = row.column(gallery.fused, embedding_type)?;

    let embedding = match row.new_value::<&[u8]>(image) {
        Some(bytes) => embed_photo(&row, image, embedding_column, &known, bytes)?,
        None => None,
    };
    let fused = embedding.map(|embedding| codebook::store(embedding, &known.form)).transpose()?;
    Ok(row.with([(embedding_column, embedding), (fused_column, fused)]))
}

/// Whether a row is left to the background worker as it is: it brings no embedding along. Little is looked up for it, for it is
/// what writers wait for.
fn is_for_worker(row: &Row<'_>) -> Result<bool> {
    if !row.is_new() || !catalog::has_queue() {
        return Ok(false);
    }
    let Some(gallery) = gallery_of(row.table_oid())?.filter(|gallery| gallery.mode == Mode::Background) else {
        return Ok(false);
    };
    let type_oid = Embedding::type_oid();
    Ok(row.is_null(row.column(gallery.embedding, type_oid)?) && row.is_null(row.column(gallery.fused, type_oid)?))
}

/// The gallery of a trigger that version 0.1.0 made: its arguments are image, embedding and fused column, and codebook.
fn gallery_of_args(trigger: &PgTrigger<'_>, relation: pg_sys::Oid) -> Result<Option<Gallery>> {
    let args = trigger.extra_args().unwrap_or_default();
    let Ok([image, embedding, fused, codebook]) = <[String; 4]>::try_from(args) else { return Ok(None) };
    let [Some(image), Some(embedding), Some(fused)] =
        [image, embedding, fused].map(|name| Column::find(relation, &name))
    else {
        return Ok(None);
    };
    let codebook = CodebookName { owner: String::new(), name: codebook };
    let model = catalog::model_in_use(settings::model().as_deref())?;
    Ok(Some(Gallery {
        relation,
        image,
        embedding,
        fused,
        codebook,
        model,
        mode: Mode::Trigger,
        built: None,
        bank: None,
    }))
}

fn embed_photo<'a>(
    row: &Row<'a>,
    image: RowColumn,
    embedding_column: RowColumn,
    known: &Known,
    bytes: &[u8],
) -> Result<Option<Embedding<'a>>> {
    let model = known.gallery.model;
    let origin = Origin { model, codebook: 0 };
    if row.is_unchanged(image) {
        match row.new_value::<Embedding<'a>>(embedding_column) {
            Some(given) if given.origin() == origin && given.values().len() == known.dimension => {
                return Ok(Some(given));
            }
            // An embedding that is taken away stays away, until sketch_embed_photos.
            None if row.had_value(embedding_column) => return Ok(None),
            _ => {}
        }
    }
    if known.gallery.mode == Mode::Background {
        // An embedding of the photo that was there must not rank the new one.
        return Ok(None);
    }
    let embedder = inference::embedder(model)?;
    match embedder.render(Domain::Photo, bytes) {
        Ok(input) => Ok(Some(Embedding::new(&embedder.embed(Domain::Photo, input)?, origin)?)),
        Err(error) => broken(row, &known.gallery, error.into()).map(|()| None),
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
