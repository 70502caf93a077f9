//! From pixels to embeddings: the network, and one service of it for many processes.
//!
//! A process that wants an image embedded puts it into a [`slot`], which lies in memory that both share; the service
//! [`batch`]es what waits, has the [`runner`]s of a [`pool`] embed it, and answers into the same slots. [`stat`] counts what
//! was done, [`notice`] says which networks are at hand.
//!
//! Nothing here allocates, maps or waits on shared memory: slots and counters are atomics, and may as well live in a
//! `Vec`, where the tests have them.

pub mod batch;
mod binding;
pub mod device;
pub mod encoder;
pub mod error;
pub mod notice;
pub mod onnx;
pub mod options;
pub mod pool;
mod provider;
pub mod runner;
pub mod runtime;
pub mod slot;
pub mod stat;
