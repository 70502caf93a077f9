//! `sketch_embed` and `photo_embed`: bytes to embeddings, once per statement however many rows are compared.
//!
//! The planner takes a call of constants and parameters out of the rows (`support`). Other calls compare the argument,
//! before it is decoded, with that of the statement's last call; then they look for the image in a small cache of the
//! connection.

mod support;

use crate::call::{Call, View};
use crate::catalog;
use crate::embedding::{Embedding, Origin};
use crate::error::Result;
use crate::inference::{self, Embedder, stat};
use crate::settings;
use half::f16;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sketch_model::inference::encoder::Domain;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::CStr;
use std::rc::Rc;

/// Bytes of images that a backend remembers.
const REMEMBERED: usize = 8 << 20;

thread_local! {
    static CACHE: RefCell<VecDeque<Remembered>> = const { RefCell::new(VecDeque::new()) };
}

/// An image and its embedding.
struct Remembered {
    model: u32,
    domain: Domain,
    image: Box<[u8]>,
    embedding: Vec<f16>,
}

/// What a statement keeps between its calls of one function, as long as it would find the same again.
#[derive(Default)]
struct Statement {
    view: Option<View>,
    embedder: Option<(Option<String>, Rc<Embedder>)>,
    last: Option<Last>,
}

/// The last call of a statement.
struct Last {
    model: u32,
    argument: Box<[u8]>,
    embedding: Vec<f16>,
}

#[pg_extern(stable, strict, parallel_restricted)]
fn sketch_embed_bytea(fcinfo: pg_sys::FunctionCallInfo) -> Result<Embedding<'static>, ErrorReport> {
    // SAFETY: the server is calling, and the function is strict.
    Ok(embed_call(unsafe { Call::new(fcinfo) }, Domain::Sketch, |call| call.arg(0))?)
}

#[pg_extern(stable, strict, parallel_restricted)]
fn sketch_embed_jsonb(fcinfo: pg_sys::FunctionCallInfo) -> Result<Embedding<'static>, ErrorReport> {
    // SAFETY: as above.
    Ok(embed_call(unsafe { Call::new(fcinfo) }, Domain::Sketch, jsonb_text)?)
}

#[pg_extern(stable, strict, parallel_restricted)]
fn photo_embed(fcinfo: pg_sys::FunctionCallInfo) -> Result<Embedding<'static>, ErrorReport> {
    // SAFETY: as above.
    Ok(embed_call(unsafe { Call::new(fcinfo) }, Domain::Photo, |call| call.arg(0))?)
}

/// The bytes of a jsonb argument as text.
fn jsonb_text(call: Call) -> &'static [u8] {
    // SAFETY: SQL declares the argument as jsonb; the text lives as long as the memory context of the call.
    unsafe {
        let jsonb = pg_sys::pg_detoast_datum(call.datum(0).cast_mut_ptr());
        let size = pgrx::varlena::varsize_any(jsonb) as i32;
        let root = &raw mut (*jsonb.cast::<pg_sys::Jsonb>()).root;
        CStr::from_ptr(pg_sys::JsonbToCString(std::ptr::null_mut(), root, size)).to_bytes()
    }
}

fn embed_call(call: Call, domain: Domain, image: impl Fn(Call) -> &'static [u8]) -> Result<Embedding<'static>> {
    let statement: &mut Statement = call.state();
    statement.forget_unless_current(call);
    check_size(call.raw_size(0))?;
    let embedder = statement_embedder(statement, call)?;
    let origin = Origin { model: embedder.id, codebook: 0 };
    // The address alone would not do: PL/pgSQL may have put another value where the last one was.
    let argument = call.inline_bytes(0);
    if let Some(last) = &statement.last
        && last.model == embedder.id
        && argument.is_some_and(|argument| *last.argument == *argument)
    {
        stat::count(|counters| counters.reused += 1);
        return Embedding::new(&last.embedding, origin);
    }
    let embedding = remembered_or_embed(&embedder, domain, image(call))?;
    let result = Embedding::new(&embedding, origin);
    statement.last = argument.map(|argument| Last { model: embedder.id, argument: argument.into(), embedding });
    result
}

impl Statement {
    /// Forgets what another model in use would change.
    fn forget_unless_current(&mut self, call: Call) {
        let view = View::now();
        let by_setting = call.len() == 1;
        let is_current = view.is_some()
            && view == self.view
            && self.embedder.as_ref().is_none_or(|(name, _)| !by_setting || settings::is_model(name.as_deref()));
        if !is_current {
            *self = Self { view, ..Self::default() };
        }
    }
}

/// Refuses an argument by its size before it is read.
fn check_size(size: usize) -> Result<()> {
    let limit = settings::limits().bytes;
    if size <= limit.saturating_add(pg_sys::VARHDRSZ) {
        return Ok(());
    }
    Err(sketch_model::render::decode::DecodeError::TooManyBytes { length: size - pg_sys::VARHDRSZ, limit }.into())
}

/// The embedder that the call asks for, looked up once a statement unless the name changes.
fn statement_embedder(statement: &mut Statement, call: Call) -> Result<Rc<Embedder>> {
    let name = if call.len() > 1 { Some(call.arg::<String>(1)) } else { settings::model() };
    match &statement.embedder {
        Some((known, embedder)) if *known == name => Ok(embedder.clone()),
        _ => {
            let embedder = inference::embedder(catalog::model_in_use(name.as_deref())?)?;
            statement.embedder = Some((name, embedder.clone()));
            Ok(embedder)
        }
    }
}

fn remembered_or_embed(embedder: &Embedder, domain: Domain, image: &[u8]) -> Result<Vec<f16>> {
    let known = CACHE.with_borrow(|cache| {
        let same = |entry: &&Remembered| entry.model == embedder.id && entry.domain == domain && *entry.image == *image;
        cache.iter().rev().find(same).map(|entry| entry.embedding.clone())
    });
    if let Some(embedding) = known {
        stat::count(|counters| counters.reused += 1);
        return Ok(embedding);
    }
    let embedding = embedder.embed(domain, embedder.render(domain, image)?)?;
    remember(Remembered { model: embedder.id, domain, image: image.into(), embedding: embedding.clone() });
    Ok(embedding)
}

/// Adds an entry, and drops the oldest until all fit; the newest stays whatever its size.
fn remember(entry: Remembered) {
    CACHE.with_borrow_mut(|cache| {
        cache.push_back(entry);
        let mut bytes: usize = cache.iter().map(|entry| entry.image.len()).sum();
        while bytes > REMEMBERED && cache.len() > 1 {
            bytes -= cache.pop_front().map_or(0, |entry| entry.image.len());
        }
    });
}

/// Number of images that this backend remembers.
pub fn remembered() -> usize {
    CACHE.with_borrow(VecDeque::len)
}
