//! pg_sketch: find photos by drawing what they show, inside PostgreSQL.
//!
//! This crate is all that knows Postgres; the network, the codebook and the distances are the crate `sketch-model`.
//! The SQL is written by hand in `sql/`, one file for each group of objects; every function there names its
//! `…_wrapper` here.
//!
//! | look in | for |
//! | --- | --- |
//! | [`embedding`] | the type `embedding`: its layout, text and binary forms, casts, distances, mean |
//! | [`embed`] | `sketch_embed`, `photo_embed`: bytes to embeddings, once per statement |
//! | [`inference`] | pixels to embeddings: in this connection or by the inference worker; `sketch_stat` |
//! | [`shared_memory`] | what the postmaster reserves for all processes |
//! | [`process`] | signals, environment and memory of the process |
//! | [`catalog`] | `sketch.model`, `sketch.codebook`: which one is in use, what it holds |
//! | [`load`] | `sketch_load_model`, `sketch_load_codebook` |
//! | [`codebook`] | `sketch_fuse`, `sketch_build_codebook` |
//! | [`gallery`] | tables of photos: triggers, the queue, bulk embedding, maintenance |
//! | [`background`] | the background worker: embeds the queue, maintains galleries |
//! | [`wakeup`] | which databases want a background worker |
//! | [`mod@index`] | the access method `ivfexact` |
//! | [`settings`] | every `pg_sketch.…` |
//! | [`status`] | `sketch_status()` |
//! | [`role`] | acting with the rights of another role |
//! | [`files`] | where ONNX Runtime and the network that ships are |
//! | [`version`] | library and SQL of different versions |
//! | [`attempt`] | subtransactions: to try something that may fail |
//! | [`call`] | arguments and state of a call, below what pgrx offers |
//! | [`mod@error`] | each error's SQLSTATE, DETAIL and HINT |

// An error of pgrx is large, and returned where nothing is in a hurry.
#![allow(clippy::result_large_err)]

mod attempt;
mod background;
mod call;
mod catalog;
mod codebook;
mod embed;
mod embedding;
mod error;
mod files;
mod gallery;
mod index;
mod inference;
mod load;
mod process;
mod role;
mod settings;
mod shared_memory;
mod status;
mod version;
mod wakeup;

use pgrx::prelude::*;

pgrx::pg_module_magic!();

/// Runs when the library is loaded, maybe in the postmaster: it starts no thread and opens no file.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::define();
    inference::init();
    background::init();
    index::options::define();
}
