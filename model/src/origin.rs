//! What made an embedding.

/// Tags of model and codebook, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    pub model: u32,
    pub codebook: u32,
}

impl Origin {
    /// Whether embeddings of these two origins compare: they are of one model, and at most one is fused, or both with
    /// one codebook.
    #[inline]
    pub fn fits(self, other: Self) -> bool {
        self.fits_model(other) && fits(self.codebook, other.codebook)
    }

    /// Whether both may be of one model.
    #[inline]
    pub fn fits_model(self, other: Self) -> bool {
        fits(self.model, other.model)
    }
}

/// Tags fit if they are the same or one is not known.
#[inline]
fn fits(a: u32, b: u32) -> bool {
    a == b || a == 0 || b == 0
}
