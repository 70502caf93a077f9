//! What is stored of a photo, to be compared with drawings: its embedding, fused with a codebook if there is one, and one
//! channel more.
//!
//! A drawing has no such channel, which counts as zero: the squared distance of photo and drawing grows by the square of the
//! channel. It holds what no direction of the embedding can, a bias of the photo towards all drawings alike:
//!
//! ```text
//! channel² = max(0, ‖embedding‖² − ‖fused‖²)        to make up for a fused embedding that is short
//!          + 2 · strength · max(0, nearness − floor) to correct hubs
//! ```

use crate::codebook::{Codebook, CodebookError, Length, squared_length};
use crate::hubs::{Bank, BankError};
use std::sync::Arc;
use thiserror::Error;

/// Why a photo was not brought into its form.
#[derive(Debug, Error)]
pub enum FormError {
    #[error(transparent)]
    Codebook(#[from] CodebookError),
    #[error(transparent)]
    Bank(#[from] BankError),
    /// The codebook was built with another bank.
    #[error("codebook was built with bank {expected}, not with {actual}")]
    OtherBank { expected: u32, actual: u32 },
}

/// The form in which the photos of a gallery are stored.
#[derive(Clone, Debug, Default)]
pub struct Form {
    codebook: Option<Codebook>,
    bank: Option<(Arc<Bank>, f32)>,
}

impl Form {
    /// Photos without a codebook, corrected as the bank says, if there is one.
    pub fn plain(bank: Option<Arc<Bank>>) -> Self {
        let strength = |bank: &Bank| bank.correction().strength;
        Self {
            codebook: None,
            bank: bank.map(|bank| (bank.clone(), strength(&bank))).filter(|(_, strength)| *strength > 0.0),
        }
    }

    /// Photos fused with a codebook, and corrected as it says: by the bank that it names.
    ///
    /// # Errors
    /// [`FormError::OtherBank`] if `bank` is another.
    pub fn fused(codebook: Codebook, bank: Option<Arc<Bank>>) -> Result<Self, FormError> {
        let hubs = codebook.hubs();
        let bank = bank.filter(|_| hubs.strength > 0.0);
        let actual = bank.as_ref().map_or(0, |bank| bank.tag());
        if actual != hubs.bank {
            return Err(FormError::OtherBank { expected: hubs.bank, actual });
        }
        Ok(Self { codebook: Some(codebook), bank: bank.map(|bank| (bank, hubs.strength)) })
    }

    /// The model whose embeddings are brought into this form; `None` for those of any.
    pub fn model(&self) -> Option<u32> {
        let bank = self.bank.as_ref().map(|(bank, _)| bank.model());
        self.codebook.as_ref().map(Codebook::model).or(bank)
    }

    /// The codebook's tag, 0 if there is none.
    pub fn tag(&self) -> u32 {
        self.codebook.as_ref().map_or(0, Codebook::tag)
    }

    /// The length of what is stored of an embedding of `dimension` channels.
    pub fn dimension(&self, dimension: usize) -> usize {
        dimension + usize::from(self.completes() || self.bank.is_some())
    }

    fn completes(&self) -> bool {
        self.codebook.as_ref().is_some_and(|codebook| codebook.length() == Length::Completed)
    }

    /// What is stored of a photo. Its nearness to drawings is that of its embedding, which the codebook does not change.
    ///
    /// `embedding`: shape `(d,)`. Returns shape `(d,)`, or `(d + 1,)` with the channel. The same on every machine, to the
    /// bit.
    ///
    /// # Errors
    /// As [`Codebook::fuse`] and [`Bank::nearness`].
    pub fn apply(&self, embedding: &[f32]) -> Result<Vec<f32>, FormError> {
        let mut stored = match &self.codebook {
            Some(codebook) => codebook.fuse(embedding)?,
            None => embedding.to_vec(),
        };
        let mut bias = 0.0;
        if self.completes() {
            bias += (squared_length(embedding) - squared_length(&stored)).max(0.0);
        }
        if let Some((bank, strength)) = &self.bank {
            bias += bank.bias(embedding, *strength)?;
        }
        if self.completes() || self.bank.is_some() {
            stored.push(bias.sqrt());
        }
        Ok(stored)
    }
}
