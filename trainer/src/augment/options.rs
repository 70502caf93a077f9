//! How far views are from the image as it is.

use serde::{Deserialize, Serialize};

/// What varies: `[augment]` of a training, with the tables `sketch`, `photo` and `edges`. Unknown keys are refused.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Share of images that are mirrored.
    pub mirror: f32,
    pub sketch: SketchOptions,
    pub photo: PhotoOptions,
    pub edges: EdgeOptions,
}

/// Drawings, vector and bitmap; 0 switches a change off. Lengths are shares of the drawing's longer side if nothing
/// else is said.
///
/// There is no scale: a drawing is cropped to its ink, and `margin` makes it larger or smaller.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SketchOptions {
    /// Range of stroke widths, in pixels of the network's input, the logarithm uniform; `[0, 0]` leaves the manifest's.
    pub stroke: [f32; 2],
    /// Greatest change of the manifest's margin, to either side.
    pub margin: f32,
    /// Share of strokes that are left out; the longest never is.
    pub dropout: f32,
    /// Share of drawings that are unfinished.
    pub truncated: f32,
    /// Greatest share of strokes that an unfinished drawing lacks: the last ones.
    pub truncation: f32,
    /// Greatest distance of a stroke from its place, along each axis.
    pub shift: f32,
    /// Greatest change of a stroke's size, as a logarithm.
    pub scale: f32,
    /// Greatest turn of a stroke around its middle, in degrees.
    pub rotation: f32,
    /// How far a stroke strays smoothly from its way: the deviation along each axis.
    pub wobble: f32,
    /// Deviation of each point by itself, along each axis.
    pub tremor: f32,
    /// Share of bitmaps of which up to three patches are rubbed out.
    pub erased: f32,
    /// Greatest turn of the drawing to either side, in degrees.
    pub turn: f32,
    /// Greatest change of width and of height, as a logarithm.
    pub stretch: f32,
    /// Greatest slant, in columns a row.
    pub slant: f32,
}

/// Photos; 0 switches a change off, but for `crop`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhotoOptions {
    /// Least share of the photo's area that is seen; 1 is all of it.
    pub crop: f32,
    /// Greatest change of the seen part's width to its height, as a logarithm.
    pub aspect: f32,
    /// Greatest change of brightness, in shares of white.
    pub brightness: f32,
    /// Greatest change of contrast, in shares of the photo's own.
    pub contrast: f32,
    /// Greatest change of saturation, likewise.
    pub saturation: f32,
    /// Greatest turn of all hues, in degrees.
    pub hue: f32,
    /// Share of photos without colours.
    pub grey: f32,
    /// Share of photos that are blurred.
    pub blurred: f32,
    /// Greatest blur, in pixels of the photo.
    pub blur: f32,
    /// Share of photos that are fitted into the input the other way: with a border if the manifest squashes them,
    /// squashed if it does not.
    pub refit: f32,
}

/// Photos' edges, before they are varied as drawings are. Pixels are those of a photo whose longer side is 256.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeOptions {
    /// Range of the blur before edges are looked for, in pixels: a strong one leaves outlines.
    pub blur: [f32; 2],
    /// Range of the share of pixels whose gradient is too weak to begin an edge.
    pub faint: [f32; 2],
    /// Range of the length below which an edge is left out, in pixels.
    pub short: [f32; 2],
    /// Range of the length of all edges together, in longer sides of the photo; the strongest are kept.
    pub ink: [f32; 2],
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            mirror: 0.5,
            sketch: SketchOptions::default(),
            photo: PhotoOptions::default(),
            edges: EdgeOptions::default(),
        }
    }
}

impl Default for SketchOptions {
    fn default() -> Self {
        Self {
            stroke: [1.5, 6.0],
            margin: 0.06,
            dropout: 0.1,
            truncated: 0.2,
            truncation: 0.4,
            shift: 0.02,
            scale: 0.08,
            rotation: 4.0,
            wobble: 0.006,
            tremor: 0.002,
            erased: 0.3,
            turn: 15.0,
            stretch: 0.2,
            slant: 0.15,
        }
    }
}

impl Default for PhotoOptions {
    fn default() -> Self {
        Self {
            crop: 0.5,
            aspect: 0.2,
            brightness: 0.15,
            contrast: 0.3,
            saturation: 0.4,
            hue: 12.0,
            grey: 0.1,
            blurred: 0.1,
            blur: 1.5,
            refit: 0.2,
        }
    }
}

impl Default for EdgeOptions {
    fn default() -> Self {
        Self { blur: [1.0, 3.0], faint: [0.8, 0.9], short: [20.0, 48.0], ink: [3.0, 8.0] }
    }
}

impl Augmentation {
    /// Every view is the image as it is served.
    ///
    /// Edges are then those in the middle of the ranges of [`EdgeOptions`].
    pub fn none() -> Self {
        let edges = EdgeOptions::default();
        let middle = |[low, high]: [f32; 2]| [(low + high) / 2.0; 2];
        Self {
            mirror: 0.0,
            sketch: SketchOptions::none(),
            photo: PhotoOptions::none(),
            edges: EdgeOptions {
                blur: middle(edges.blur),
                faint: middle(edges.faint),
                short: middle(edges.short),
                ink: middle(edges.ink),
            },
        }
    }

    /// Whether all numbers are such that views can be made of them.
    pub fn is_in_range(&self) -> bool {
        is_share(self.mirror) && self.sketch.is_in_range() && self.photo.is_in_range() && self.edges.is_in_range()
    }
}

impl SketchOptions {
    /// Nothing changes.
    pub fn none() -> Self {
        Self {
            stroke: [0.0; 2],
            margin: 0.0,
            dropout: 0.0,
            truncated: 0.0,
            truncation: 0.0,
            shift: 0.0,
            scale: 0.0,
            rotation: 0.0,
            wobble: 0.0,
            tremor: 0.0,
            erased: 0.0,
            turn: 0.0,
            stretch: 0.0,
            slant: 0.0,
        }
    }

    fn is_in_range(&self) -> bool {
        let shares = [self.dropout, self.truncated, self.truncation, self.erased, self.margin];
        let small = [self.shift, self.scale, self.wobble, self.tremor, self.stretch, self.slant];
        (self.stroke == [0.0; 2] || is_range(self.stroke, 0.1, 64.0))
            && shares.into_iter().chain(small).all(is_share)
            && [self.turn, self.rotation].into_iter().all(|degrees| (0.0..=180.0).contains(&degrees))
    }
}

impl PhotoOptions {
    /// Nothing changes.
    pub fn none() -> Self {
        Self {
            crop: 1.0,
            aspect: 0.0,
            brightness: 0.0,
            contrast: 0.0,
            saturation: 0.0,
            hue: 0.0,
            grey: 0.0,
            blurred: 0.0,
            blur: 0.0,
            refit: 0.0,
        }
    }

    fn is_in_range(&self) -> bool {
        let changes = [self.aspect, self.brightness, self.contrast, self.saturation];
        let shares = [self.crop, self.grey, self.blurred, self.refit];
        self.crop > 0.0
            && changes.into_iter().chain(shares).all(is_share)
            && (0.0..=180.0).contains(&self.hue)
            && (0.0..=32.0).contains(&self.blur)
    }
}

impl EdgeOptions {
    fn is_in_range(&self) -> bool {
        is_range(self.blur, 0.0, 32.0)
            && is_range(self.faint, 0.0, 1.0)
            && is_range(self.short, 0.0, 1e4)
            && is_range(self.ink, 0.01, 1e4)
    }
}

fn is_share(value: f32) -> bool {
    (0.0..=1.0).contains(&value)
}

fn is_range([low, high]: [f32; 2], least: f32, most: f32) -> bool {
    least <= low && low <= high && high <= most
}
