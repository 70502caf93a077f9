//! From image bytes to embeddings, and from embeddings to distances.
//!
//! Nothing here knows PostgreSQL or training: the extension and the trainer both stand on this crate,
//! so that what a sketch becomes before the network sees it is written once.
//!
//! A drawing goes through the rooms in this order: [`render`] makes pixels of its bytes, as a [`manifest`] says,
//! [`inference`] embeds them, [`form`] fuses and corrects photos, [`simd`] compares, [`index`] ranks. [`embedding`] reads and
//! writes what comes out.

#![deny(unsafe_code)]

pub mod codebook;
pub mod digest;
pub mod embedding;
pub mod form;
pub mod hubs;
pub mod index;
pub mod inference;
pub mod limits;
pub mod manifest;
pub mod origin;
pub mod render;
pub mod simd;
