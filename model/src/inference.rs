//! From pixels to embeddings: the network, and what one process needs to run it for many.
//!
//! [`encoder`] loads a graph and runs it, on a thread of its own in a [`runner`]. For many processes, a service has a
//! [`pool`] of runners: a process puts an image into a [`slot`] of shared memory, the service [`batch`]es the images that
//! wait, and answers into the same slots. [`stat`] counts what was done, [`notice`] says which networks are loaded.
//!
//! Nothing here allocates, maps or waits on shared memory: slots and counters are atomics, and live in a `Vec` in tests.

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
