//! Options of data augmentation.

use serde::{Deserialize, Serialize};

/// The table `[augment]` of a training, with subtables `sketch`, `photo` and `edges`. Unknown keys are refused.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Probability of mirroring.
    pub mirror: f32,
    pub sketch: SketchOptions,
    pub photo: PhotoOptions,
    pub edges: EdgeOptions,
}

/// Options for drawings, vector and bitmap; 0 disables a change. Lengths are relative to the drawing's longer side unless
/// stated otherwise.
///
/// There is no scale: drawings are cropped to their ink, and `margin` makes them larger or smaller.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SketchOptions {
    /// Range of stroke widths, log-uniform, in pixels of the network's input; `[0, 0]` keeps the manifest's.
    pub stroke: [f32; 2],
    /// Largest change of the manifest's margin, in either direction.
    pub margin: f32,
    /// Probability of dropping a stroke; the longest is always kept.
    pub dropout: f32,
    /// Probability that a drawing is unfinished.
    pub truncated: f32,
    /// Largest share of strokes missing at the end of an unfinished drawing.
    pub truncation: f32,
    /// Largest shift of a stroke along each axis.
    pub shift: f32,
    /// Largest change of a stroke's size, as a logarithm.
    pub scale: f32,
    /// Largest rotation of a stroke around its centre, in degrees.
    pub rotation: f32,
    /// Standard deviation of a stroke's smooth displacement along each axis.
    pub wobble: f32,
    /// Standard deviation of each point's independent displacement along each axis.
    pub tremor: f32,
    /// Probability of erasing up to three patches of a bitmap.
    pub erased: f32,
    /// Largest rotation of the drawing in either direction, in degrees.
    pub turn: f32,
    /// Largest change of width and of height, as a logarithm.
    pub stretch: f32,
    /// Largest shear, in columns per row.
    pub slant: f32,
}

/// Options for photos; 0 disables a change, except for `crop`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhotoOptions {
    /// Smallest share of the photo's area in a crop; 1 disables cropping.
    pub crop: f32,
    /// Largest change of the crop's aspect ratio, as a logarithm.
    pub aspect: f32,
    /// Largest change of brightness, relative to white.
    pub brightness: f32,
    /// Largest relative change of contrast.
    pub contrast: f32,
    /// Largest relative change of saturation.
    pub saturation: f32,
    /// Largest rotation of hues, in degrees.
    pub hue: f32,
    /// Probability of removing colours.
    pub grey: f32,
    /// Probability of blurring.
    pub blurred: f32,
    /// Largest blur, in pixels of the photo.
    pub blur: f32,
    /// Probability of the other fit: padded if the manifest squashes photos, squashed otherwise.
    pub refit: f32,
}

/// Options for the edges of photos, before they are augmented as drawings. Pixels are those of a photo whose longer side is
/// 256.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeOptions {
    /// Range of the blur before edge detection, in pixels; strong blur keeps only outlines.
    pub blur: [f32; 2],
    /// Range of the quantile of gradients below which no edge starts.
    pub faint: [f32; 2],
    /// Range of the minimum length of edges, in pixels.
    pub short: [f32; 2],
    /// Range of the total length of edges, relative to the photo's longer side; the strongest are kept.
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
    /// No augmentation: every view is the image as when serving.
    ///
    /// Edges use the middle of the ranges of [`EdgeOptions`].
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

    /// Whether all options are in range.
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
