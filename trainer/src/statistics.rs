//! Statistics of the features of training images: a mean per domain and one projection for both.
//!
//! Features are scaled first ([`Scale`]). `docs/benchmarks.md` shows what each step is worth.

use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate};

use crate::head::{Head, SHARE_FLOOR, Scale};

/// Maps non-negative features to the square roots of their shares of the sum (the Hellinger map).
///
/// `features`: shape `(n, c)`. The floor under the share keeps the slope finite where a feature is zero, as half of them
/// are.
pub fn share_roots(features: ArrayView2<f32>) -> Array2<f64> {
    let mut shares = features.mapv(f64::from);
    for mut row in shares.rows_mut() {
        let sum = row.sum().max(f64::from(f32::MIN_POSITIVE));
        row.mapv_inplace(|feature| (feature / sum + f64::from(SHARE_FLOOR)).sqrt());
    }
    shares
}

impl Scale {
    /// The scale that fits the features: square roots of shares if none is negative.
    pub fn of(features: ArrayView2<f32>) -> Self {
        if features.iter().all(|&feature| feature >= 0.0) { Self::ShareRoots } else { Self::UnitLength }
    }

    /// Scales features, shape `(n, c)`.
    pub fn apply(self, features: ArrayView2<f32>) -> Array2<f64> {
        match self {
            Self::ShareRoots => share_roots(features),
            Self::UnitLength => unit_length(features),
        }
    }
}

fn unit_length(features: ArrayView2<f32>) -> Array2<f64> {
    let mut rows = features.mapv(f64::from);
    for mut row in rows.rows_mut() {
        let norm = row.dot(&row).max(f64::from(f32::MIN_POSITIVE)).sqrt();
        row /= norm;
    }
    rows
}

/// Sums over one collection of images.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Shape `(c,)`.
    pub mean: Array1<f64>,
    /// Shape `(c, c)`.
    pub covariance: Array2<f64>,
}

impl Moments {
    /// Mean and covariance of the rows of `values`, shape `(n, c)`; all zero if there is none.
    pub fn of(values: ArrayView2<f64>) -> Self {
        let (rows, width) = values.dim();
        let mean = values.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(width));
        let centred = &values - &mean;
        let covariance = centred.t().dot(&centred) / rows.max(1) as f64;
        Self { mean, covariance }
    }

    /// The mean of several moments with equal weights, whatever the number of images behind each.
    pub fn average(of: &[Self]) -> Self {
        let width = of.first().map_or(0, |moments| moments.mean.len());
        let zero = Self { mean: Array1::zeros(width), covariance: Array2::zeros((width, width)) };
        let sum = of.iter().fold(zero, |sum, moments| Self {
            mean: sum.mean + &moments.mean,
            covariance: sum.covariance + &moments.covariance,
        });
        let count = of.len().max(1) as f64;
        Self { mean: sum.mean / count, covariance: sum.covariance / count }
    }
}

/// Fits the head of a network: the mean of each domain, and the `dimension` principal directions of both together.
///
/// `sketches`, `photos`: moments of the scaled features of each domain's collections. All collections of a domain have the
/// same weight, and both domains have the same weight in the directions.
pub fn fit_head(scale: Scale, sketches: &[Moments], photos: &[Moments], dimension: usize) -> Head {
    let (sketch, photo) = (Moments::average(sketches), Moments::average(photos));
    let both = Moments::average(&[sketch.clone(), photo.clone()]);
    let means = [sketch.mean, photo.mean].map(|mean| mean.insert_axis(Axis(0)));
    let means = concatenate![Axis(0), means[0], means[1]];
    let projection = spread_evenly(&principal_directions(&both.covariance, dimension));
    Head { scale, means: means.mapv(|mean| mean as f32), projection: projection.mapv(|value| value as f32) }
}

/// The `count` directions of greatest variance, as columns, the greatest first.
///
/// `covariance`: shape `(c, c)`, symmetric. Returns shape `(c, count)`, columns of unit length; the largest entry of each is
/// positive, so that the result does not depend on the solver's choice of signs.
pub fn principal_directions(covariance: &Array2<f64>, count: usize) -> Array2<f64> {
    let width = covariance.nrows();
    let matrix = DMatrix::from_fn(width, width, |i, j| covariance[[i, j]]);
    let solved = SymmetricEigen::new(matrix);
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|&a, &b| solved.eigenvalues[b].total_cmp(&solved.eigenvalues[a]));
    Array2::from_shape_fn((width, count), |(i, j)| {
        let direction = solved.eigenvectors.column(order[j]);
        direction[i] * direction[direction.iamax()].signum()
    })
}

/// Rotates principal directions within their span so that all columns have about the same variance.
///
/// Distances do not change, but codebooks do: a codebook splits embeddings into ranges of columns, and would find all
/// structure in the first range and noise in the others. With `count = 2^a · odd`, a Hadamard matrix mixes the directions
/// `g, g + odd, g + 2 · odd, …` for each `g < odd`; for 512 columns that is one matrix, and the variances are equal.
///
/// `directions`: shape `(c, count)`, the greatest variance first. Returns the same shape.
///
/// Source: rotation after the principal components as in Jégou et al., "Aggregating local image descriptors into
/// compact codes", 2012; there by a random matrix.
fn spread_evenly(directions: &Array2<f64>) -> Array2<f64> {
    let count = directions.ncols();
    let size = 1 << count.trailing_zeros();
    let groups = count / size;
    let scale = (size as f64).sqrt().recip();
    let rotation = Array2::from_shape_fn((count, count), |(from, to)| {
        let even = ((from / groups) & (to / groups)).count_ones().is_multiple_of(2);
        let sign = if even { scale } else { -scale };
        if from % groups == to % groups { sign } else { 0.0 }
    });
    directions.dot(&rotation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn share_roots_have_unit_length() {
        let features = array![[1.0, 3.0, 0.0], [0.0, 0.0, 0.0]];
        let roots = share_roots(features.view());
        let expected = [0.5, 0.75f64.sqrt(), 0.0];
        for (root, expected) in roots.row(0).iter().zip(expected) {
            assert!((root - expected).abs() <= f64::from(SHARE_FLOOR).sqrt());
        }
        assert!(roots.iter().all(|root| root.is_finite()));
    }

    #[test]
    fn features_choose_their_scale() {
        let (positive, mixed) = (array![[0.0, 3.0, 4.0]], array![[-3.0, 4.0]]);
        assert_eq!(Scale::of(positive.view()), Scale::ShareRoots);
        assert_eq!(Scale::of(mixed.view()), Scale::UnitLength);
        assert!((Scale::UnitLength.apply(mixed.view()) - array![[-0.6, 0.8]]).iter().all(|x| x.abs() < 1e-12));
    }

    #[test]
    fn moments_are_those_of_the_definition() {
        let moments = Moments::of(array![[1.0, 2.0], [3.0, 2.0], [5.0, 5.0]].view());
        assert_eq!(moments.mean, array![3.0, 3.0]);
        let expected = array![[8.0 / 3.0, 2.0], [2.0, 2.0]];
        assert!((&moments.covariance - &expected).iter().all(|difference| difference.abs() < 1e-12));
    }

    /// A collection with ten times as many images does not get ten times the weight.
    #[test]
    fn collections_count_the_same() {
        let small = Moments::of(array![[0.0, 0.0]].view());
        let large = Moments::of(Array2::from_elem((10, 2), 1.0).view());
        let head = fit_head(Scale::ShareRoots, &[small.clone(), large], &[small], 1);
        assert_eq!(head.means.row(0).to_vec(), [0.5, 0.5]);
        assert_eq!(head.means.row(1).to_vec(), [0.0, 0.0]);
    }

    #[test]
    fn directions_are_orthonormal_and_ordered() {
        let covariance = array![[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]];
        let directions = principal_directions(&covariance, 3);
        let identity = directions.t().dot(&directions);
        let variances = directions.t().dot(&covariance).dot(&directions);
        for ((i, j), value) in identity.indexed_iter() {
            assert!((value - f64::from(u8::from(i == j))).abs() < 1e-12);
            assert!(i == j || variances[[i, j]].abs() < 1e-12);
        }
        assert!(variances[[0, 0]] > variances[[1, 1]] && variances[[1, 1]] > variances[[2, 2]]);
    }

    #[test]
    fn spreading_keeps_distances_and_evens_out_variances() {
        for count in [8, 12, 7] {
            let variances = Array1::from_iter((0..count).map(|i| 1.0 / (1.0 + i as f64)));
            let rotation = spread_evenly(&Array2::eye(count));
            let identity = rotation.t().dot(&rotation);
            assert!(identity.indexed_iter().all(|((i, j), x)| (x - f64::from(u8::from(i == j))).abs() < 1e-12));
            if count == 8 {
                let spread = rotation.t().dot(&Array2::from_diag(&variances)).dot(&rotation).into_diag();
                let mean = variances.mean().unwrap();
                assert!(spread.iter().all(|variance| (variance - mean).abs() < 1e-12));
            }
        }
    }
}
