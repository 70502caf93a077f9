//! From image bytes to embeddings, and from embeddings to distances.
//!
//! Nothing here knows PostgreSQL or training: the extension and the trainer both stand on this crate,
//! so that what a sketch becomes before the network sees it is written once.
//!
//! The way of a drawing: [`drawing`] decodes it, [`preprocess`] makes it what the network saw in
//! training, [`encoder`] embeds it, [`codebook`] fuses photos, [`distance`] compares.

#![deny(unsafe_code)]

mod binding;
pub mod codebook;
mod container;
mod coverage;
pub mod decode;
pub mod device;
pub mod digest;
pub mod distance;
pub mod drawing;
pub mod encoder;
pub mod index;
mod ink;
pub mod limits;
pub mod manifest;
pub mod onnx;
pub mod origin;
mod paper;
pub mod preprocess;
mod provider;
mod raster;
pub mod resize;
pub mod runtime;
pub mod serve;
mod sheet;
pub mod strokes;
pub mod svg;
mod svg_guard;
mod thickness;
