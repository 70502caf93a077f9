//! `sketch_fuse` and `sketch_correct`, and the training of codebooks from a table.

use crate::call::{Call, View};
use crate::catalog::{self, CodebookName};
use crate::embedding::{Embedding, Origin};
use crate::error::{Result, SqlError};
use half::slice::HalfFloatSliceExt;
use ndarray::Array2;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, spi};
use sketch_model::codebook::{Codebook, CodebookError, CodebookOptions, Hubs, Length};
use sketch_model::form::Form;
use sketch_model::simd;
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

/// Forms that a backend keeps; rows of `sketch.codebook` and `sketch.bank` never change, so that none grows stale.
const KEPT: usize = 4;
/// Embeddings fetched at a time from the table that a codebook is trained on.
const FETCHED: std::ffi::c_long = 1000;

thread_local! {
    static FORMS: RefCell<Vec<(Source, Rc<Form>)>> = const { RefCell::new(Vec::new()) };
}

/// What decides the form of stored photos: a codebook, or a bank alone, or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Codebook(u32),
    Bank(u32),
    Nothing,
}

/// The form of stored photos.
///
/// # Errors
/// If there is no such codebook or bank, or its rows are damaged.
pub fn form(source: Source) -> Result<Rc<Form>> {
    let known = FORMS.with_borrow(|kept| kept.iter().find(|(known, _)| *known == source).map(|(_, form)| form.clone()));
    if let Some(form) = known {
        return Ok(form);
    }
    let bank = |id| catalog::read_bank(id).map(Arc::new);
    let form = Rc::new(match source {
        Source::Codebook(id) => {
            let codebook = catalog::read_codebook(id)?;
            let bank = Some(codebook.hubs().bank).filter(|id| *id != 0).map(bank).transpose()?;
            Form::fused(codebook, bank)?
        }
        Source::Bank(id) => Form::plain(Some(bank(id)?)),
        Source::Nothing => Form::plain(None),
    });
    FORMS.with_borrow_mut(|kept| {
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((source, form.clone()));
    });
    Ok(form)
}

/// Brings an embedding into the form in which it is stored.
///
/// # Errors
/// If the dimensions differ.
pub fn store(embedding: Embedding<'_>, form: &Form) -> Result<Embedding<'static>> {
    let stored = form.apply(&embedding.values().to_f32_vec())?;
    Embedding::new(&simd::to_f16(&stored), Origin { codebook: form.tag(), ..embedding.origin() })
}

/// Corrects an embedding for hubs with the newest bank of its model; without a bank it stays as it is.
#[pg_extern(stable, strict, parallel_safe)]
fn sketch_correct(fcinfo: pg_sys::FunctionCallInfo) -> Result<Embedding<'static>, ErrorReport> {
    // SAFETY: the server is calling, and the function is strict.
    let call = unsafe { Call::new(fcinfo) };
    let embedding: Embedding<'_> = call.arg(0);
    let Origin { model, codebook } = embedding.origin();
    if codebook != 0 {
        return Err(fused_already().into());
    }
    // What the statement keeps between its calls: what it sees, the model, and what they have led to.
    let statement: &mut Option<(View, u32, Rc<Form>)> = call.state();
    let view = View::now();
    let known = statement.as_ref().filter(|(seen, of, _)| Some(*seen) == view && *of == model);
    let form = match known {
        Some((.., form)) => form.clone(),
        None => {
            let form = form(catalog::find_bank(model)?.map_or(Source::Nothing, Source::Bank))?;
            *statement = view.map(|view| (view, model, form.clone()));
            form
        }
    };
    Ok(store(embedding, &form)?)
}

fn fused_already() -> SqlError {
    SqlError::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "embedding is fused already")
}

/// What a statement keeps between its calls of `sketch_fuse`: what it sees, name and model, and what they have led to.
type Statement = Option<(View, CodebookName, u32, Rc<Form>)>;

#[pg_extern(stable, strict, parallel_safe)]
fn sketch_fuse_with(fcinfo: pg_sys::FunctionCallInfo) -> Result<Embedding<'static>, ErrorReport> {
    // SAFETY: the server is calling, and the function is strict.
    let call = unsafe { Call::new(fcinfo) };
    let (embedding, name, owner): (Embedding<'_>, &str, &str) = (call.arg(0), call.arg(1), call.arg(2));
    let Origin { model, codebook: fused } = embedding.origin();
    if fused != 0 {
        return Err(fused_already().into());
    }
    let statement: &mut Statement = call.state();
    let view = View::now();
    let known = statement.as_ref().filter(|(seen, known, of, _)| {
        Some(*seen) == view && known.name == name && known.owner == owner && *of == model
    });
    let form = match known {
        Some((.., form)) => form.clone(),
        None => {
            let name = CodebookName { owner: owner.to_owned(), name: name.to_owned() };
            let id = catalog::find_codebook(&name, model)?.ok_or_else(|| {
                let error = no_codebook(&name, "model of the embedding");
                match model {
                    0 => error.detail("The embedding was made from an array and has no model."),
                    _ => error.detail(format!("The model of the embedding has id {model}.")),
                }
            })?;
            let form = form(Source::Codebook(id))?;
            *statement = view.map(|view| (view, name, model, form.clone()));
            form
        }
    };
    Ok(store(embedding, &form)?)
}

/// The error that `model` has no codebook of this name.
pub fn no_codebook(CodebookName { owner, name }: &CodebookName, model: &str) -> SqlError {
    SqlError::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("codebook \"{name}\" of role \"{owner}\" does not exist for the {model}"),
    )
    .hint("Table sketch.codebook_name lists the codebooks; sketch_build_codebook builds one.")
}

/// K-means over a sample of a table's embeddings; returns the codebook as `sketch_load_codebook` takes it.
///
/// `subspaces` and `prototypes` NULL take as many as suit the sample ([`CodebookOptions`]), `hubs` NULL the strength of the
/// model's bank, if there is one.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::too_many_arguments)]
fn train_codebook_with(
    photos: pg_sys::Oid,
    column: &str,
    subspaces: Option<i32>,
    prototypes: Option<i32>,
    weight: f32,
    unit_length: bool,
    sample: i32,
    hubs: Option<f32>,
) -> Result<JsonB, ErrorReport> {
    let sample = read_sample(photos, column, positive("sample", sample)?, None)?;
    let count = |name, value: Option<i32>| value.map(|value| positive(name, value)).transpose();
    let (subspaces, prototypes) = (count("subspaces", subspaces)?, count("prototypes", prototypes)?);
    let length = if unit_length { Length::Completed } else { Length::Own };
    let options = CodebookOptions { weight, length, ..CodebookOptions::default() };
    let codebook = train(sample, Choice { subspaces, prototypes, hubs, options })?.map_err(SqlError::from)?;
    Ok(JsonB(serde_json::from_str(&codebook.to_json()).expect("written by ourselves")))
}

/// How to train a codebook; `None` takes what suits the sample and its model.
#[derive(Default)]
pub struct Choice {
    pub subspaces: Option<usize>,
    pub prototypes: Option<usize>,
    /// Strength of the hub correction.
    pub hubs: Option<f32>,
    /// All else.
    pub options: CodebookOptions,
}

/// K-means over a sample; the inner error is that of the training.
///
/// # Errors
/// If there are no embeddings, or a hub correction is asked for and there is no bank.
pub fn train(sample: Sample, choice: Choice) -> Result<std::result::Result<Codebook, CodebookError>> {
    let Choice { subspaces, prototypes, hubs, options } = choice;
    let (samples, model) = sample.finish()?;
    let subspaces = subspaces.unwrap_or_else(|| CodebookOptions::subspaces_for(samples.ncols()));
    let prototypes = prototypes.unwrap_or_else(|| CodebookOptions::prototypes_for(samples.nrows()));
    let hubs = hubs_of(model, samples.ncols(), hubs)?;
    let mut check = || {
        pgrx::check_for_interrupts!();
        ControlFlow::Continue(())
    };
    let options = CodebookOptions { subspaces, prototypes, hubs, ..options };
    Ok(Codebook::train_with(samples.view(), model, &options, &mut check))
}

/// The hub correction of a new codebook.
fn hubs_of(model: u32, dimension: usize, strength: Option<f32>) -> Result<Hubs> {
    if strength == Some(0.0) {
        return Ok(Hubs::default());
    }
    let bank = catalog::find_bank(model)?.map(catalog::read_bank).transpose()?;
    match bank.filter(|bank| bank.dimension() == dimension) {
        Some(bank) => {
            let strength = strength.unwrap_or(bank.correction().strength);
            Ok(if strength == 0.0 { Hubs::default() } else { Hubs { bank: bank.tag(), strength } })
        }
        None if strength.is_none() => Ok(Hubs::default()),
        None => Err(SqlError::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, "model has no bank of drawings")
            .detail("Hubs are corrected by their nearness to such drawings.")
            .hint("Load one with sketch_load_bank, or leave out \"hubs\".")),
    }
}

/// # Errors
/// If the argument of that name is not above 0.
pub fn positive(name: &str, value: i32) -> Result<usize> {
    usize::try_from(value).ok().filter(|value| *value > 0).ok_or_else(|| {
        SqlError::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, format!("\"{name}\" must be positive"))
    })
}

/// Reads at most `limit` embeddings of a column, evenly spread over the table, or as many as `maintenance_work_mem` has
/// room for; `model` leaves out those of others.
///
/// # Errors
/// If there is no such column of type embedding, or its embeddings are fused or of different models.
pub fn read_sample(photos: pg_sys::Oid, column: &str, limit: usize, model: Option<u32>) -> Result<Sample> {
    let table = catalog::relation_name(photos)?;
    check_type(photos, &table, column)?;
    let quoted = spi::quote_identifier(column);
    let mut from = format!("FROM {table} WHERE {quoted} IS NOT NULL");
    if let Some(model) = model {
        let schema = catalog::quoted_extension_schema()?;
        from.push_str(&format!(" AND {schema}.sketch_model_id({quoted}) OPERATOR(pg_catalog.=) {model}"));
    }
    Spi::connect(|client| {
        let count: i64 =
            client.select(&format!("SELECT pg_catalog.count(*) {from}"), Some(1), &[])?.first().get(1)?.unwrap_or(0);
        let query = format!("SELECT {quoted} {from}");
        let mut cursor = client.open_cursor(&query, &[]);
        let mut sample = Sample::default();
        let (mut row_number, mut taken) = (0, 0);
        // The count and the rows come from two queries: a view may give another number of rows each time.
        let mut plan: Option<(usize, usize)> = None;
        loop {
            let rows = cursor.fetch(FETCHED)?;
            if rows.is_empty() {
                return Ok(sample);
            }
            for row in rows {
                if plan.is_none_or(|(stride, _)| row_number % stride == 0)
                    && let Some(embedding) = row.get::<Embedding<'_>>(1)?
                {
                    let (_, limit) = *plan.get_or_insert_with(|| {
                        let limit = fitting(limit.min(count as usize).max(1), embedding.values().len());
                        ((count as usize).div_ceil(limit).max(1), limit)
                    });
                    if taken == limit {
                        return Ok(sample);
                    }
                    sample.push(embedding)?;
                    taken += 1;
                }
                row_number += 1;
            }
        }
    })
}

/// How many of `wanted` embeddings fit in `maintenance_work_mem`; training takes as much again as the sample.
fn fitting(wanted: usize, dimension: usize) -> usize {
    // SAFETY: a setting, read by the server's only thread.
    let memory = unsafe { pg_sys::maintenance_work_mem } as usize * 1024;
    let size = 2 * size_of::<f32>() * dimension;
    let limit = (memory / size).max(1);
    if wanted <= limit {
        return wanted;
    }
    SqlError::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        format!("maintenance_work_mem has no room for a sample of {wanted} embeddings"),
    )
    .detail(format!("The codebook is trained on at most {limit} of them."))
    .hint(format!("Raise it to {} MB for all.", (wanted * size).div_ceil(1 << 20)))
    .notice();
    limit
}

/// Refuses a column of any other type, including a user's own type named `embedding`.
fn check_type(photos: pg_sys::Oid, table: &str, column: &str) -> Result<()> {
    let found = catalog::first_value::<pg_sys::Oid>(
        "SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) $1 \
         AND attname OPERATOR(pg_catalog.=) $2 AND NOT attisdropped",
        &[photos.into(), column.into()],
    )?;
    match found {
        Some(found) if found == Embedding::type_oid() => Ok(()),
        Some(_) => Err(SqlError::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("column \"{column}\" of table \"{table}\" is not of type embedding"),
        )
        .detail("A type of that name in another schema does not count.")),
        None => Err(SqlError::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("column \"{column}\" of table \"{table}\" does not exist"),
        )),
    }
}

/// Embeddings of one model, row by row.
#[derive(Default)]
pub struct Sample {
    values: Vec<f32>,
    dimension: usize,
    model: u32,
}

impl Sample {
    /// # Errors
    /// If it is fused, or not of the same model as the others.
    pub fn push(&mut self, embedding: Embedding<'_>) -> Result<()> {
        let Origin { model, codebook } = embedding.origin();
        let values = embedding.values();
        if self.values.is_empty() {
            (self.dimension, self.model) = (values.len(), model);
        }
        let problem = if codebook != 0 {
            "cannot build a codebook from fused embeddings"
        } else if model != self.model || values.len() != self.dimension {
            "cannot build a codebook from embeddings of different models"
        } else {
            self.values.extend(values.to_f32_vec());
            return Ok(());
        };
        Err(SqlError::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, problem))
    }

    /// Shape `(n, d)`, and the model.
    fn finish(self) -> Result<(Array2<f32>, u32)> {
        if self.values.is_empty() {
            return Err(SqlError::new(
                PgSqlErrorCode::ERRCODE_NO_DATA,
                "there are no embeddings to build a codebook from",
            ));
        }
        let shape = (self.values.len() / self.dimension, self.dimension);
        Ok((Array2::from_shape_vec(shape, self.values).expect("rows are of one length"), self.model))
    }
}
