//! Trains, exports and evaluates networks for pg_sketch; the command line is in `main.rs`.

#![forbid(unsafe_code)]

pub mod augment;
pub mod backbone;
pub mod board;
pub mod cache;
pub mod data;
pub mod engine;
pub mod evaluation;
pub mod features;
pub mod head;
pub mod lite;
pub mod metrics;
pub mod precision;
pub mod progress;
pub mod quantise;
pub mod report;
pub mod soup;
pub mod statistics;
pub mod store;
pub mod thumbnail;
pub mod train;
pub mod tune;
pub mod variants;
pub mod weights;
