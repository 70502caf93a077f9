//! From coefficients to pixels: the inverse cosine transform, at full and at reduced size.

/// Coefficients of a block.
pub(super) const BLOCK: usize = 64;

/// Place of each coefficient in its block, row by row, in the order of the file. Source: ITU-T T.81, figure A.6.
pub(super) const ZIGZAG: [u8; BLOCK] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Writes a block into rows of pixels, as [`Transform::apply`] does.
type Inverse = fn(&[f32; BLOCK], usize, &mut [u8], usize);

/// How the blocks of a component become pixels.
pub(super) struct Transform {
    width: usize,
    height: usize,
    quantisation: [f32; BLOCK],
    /// Last coefficient that counts, in the order of the file.
    last: usize,
    run: Inverse,
}

impl Transform {
    /// `size`: width and height of a block after reduction; `None` unless both are 1, 2, 4 or 8.
    pub(super) fn new((width, height): (u32, u32), quantisation: &[f32; BLOCK]) -> Option<Self> {
        let run = match width {
            1 => of_height::<1>(height)?,
            2 => of_height::<2>(height)?,
            4 => of_height::<4>(height)?,
            8 => of_height::<8>(height)?,
            _ => return None,
        };
        let (width, height) = (width as usize, height as usize);
        let counts = |&place: &u8| usize::from(place % 8) < width && usize::from(place / 8) < height;
        let last = ZIGZAG.iter().rposition(counts)?;
        Some(Self { width, height, quantisation: *quantisation, last, run })
    }

    /// Width and height of a block in pixels.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    pub(super) fn quantisation(&self) -> &[f32; BLOCK] {
        &self.quantisation
    }

    pub(super) fn last(&self) -> usize {
        self.last
    }

    /// Writes a block into rows of `stride` pixels. `last`: the last coefficient that is not zero, in the order of the
    /// file.
    pub(super) fn apply(&self, block: &[f32; BLOCK], last: usize, pixels: &mut [u8], stride: usize) {
        if last == 0 {
            let value = to_byte(block[0] / 8.0);
            for row in pixels.chunks_mut(stride).take(self.height) {
                row[..self.width].fill(value);
            }
        } else {
            (self.run)(block, last, pixels, stride);
        }
    }
}

fn of_height<const W: usize>(height: u32) -> Option<Inverse> {
    match height {
        1 => Some(inverse::<W, 1>),
        2 => Some(inverse::<W, 2>),
        4 => Some(inverse::<W, 4>),
        8 => Some(inverse::<W, 8>),
        _ => None,
    }
}

/// Down the columns, then along the rows.
fn inverse<const W: usize, const H: usize>(block: &[f32; BLOCK], last: usize, pixels: &mut [u8], stride: usize) {
    let (down, across) = (const { basis::<H>() }, const { basis::<W>() });
    let rows = ROWS[last].min(H);
    let mut columns = [[0.0; W]; H];
    for (v, coefficients) in block.chunks_exact(8).take(rows).enumerate() {
        for (row, weight) in columns.iter_mut().zip(&down[v]) {
            for (sum, coefficient) in row.iter_mut().zip(&coefficients[..W]) {
                *sum += weight * coefficient;
            }
        }
    }
    for (row, line) in columns.iter().zip(pixels.chunks_mut(stride)) {
        let mut sums = [0.0; W];
        for (coefficient, weights) in row.iter().zip(&across) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += weight * coefficient;
            }
        }
        for (pixel, sum) in line[..W].iter_mut().zip(sums) {
            *pixel = to_byte(sum);
        }
    }
}

/// Rows of a block that its first coefficients reach, by the last one of them in the order of the file.
const ROWS: [usize; BLOCK] = {
    let mut rows = [1; BLOCK];
    let mut i = 1;
    while i < BLOCK {
        let row = ZIGZAG[i] as usize / 8 + 1;
        rows[i] = if row > rows[i - 1] { row } else { rows[i - 1] };
        i += 1;
    }
    rows
};

fn to_byte(value: f32) -> u8 {
    // Conversions saturate.
    (value + 128.5) as u8
}

/// Weight of each coefficient in each of `N` pixels: that of the transform of `N` points, scaled so that a block of 8
/// points keeps its mean.
///
/// Source: ITU-T T.81, A.3.3; its `C(u) / 2` does not depend on the number of points.
const fn basis<const N: usize>() -> [[f32; N]; N] {
    /// Cosines of the multiples of an eighth of a right angle.
    const COSINES: [f32; 9] =
        [1.0, 0.980_785_25, 0.923_879_5, 0.831_469_6, 0.707_106_77, 0.555_570_25, 0.382_683_43, 0.195_090_32, 0.0];
    let mut basis = [[0.353_553_4; N]; N];
    let mut x = 0;
    while x < N {
        let mut u = 1;
        while u < N {
            // In eighths of a right angle; a full turn has 32.
            let angle = (2 * x + 1) * u * (8 / N) % 32;
            let angle = if angle > 16 { 32 - angle } else { angle };
            basis[u][x] = if angle > 8 { -COSINES[16 - angle] } else { COSINES[angle] } / 2.0;
            u += 1;
        }
        x += 1;
    }
    basis
}
