//! Every distance kernel gives the same bits, and they are the right ones.

use half::f16;
use proptest::prelude::*;
use sketch_model::simd::{self, Kernel, available_kernels, inner_product_scalar, l2_squared_scalar};

fn same(x: f32, y: f32) -> bool {
    x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan())
}

/// Any bits at all: every NaN, infinity, subnormal and both zeros among them.
fn any_half() -> impl Strategy<Value = f16> {
    any::<u16>().prop_map(f16::from_bits)
}

/// Values as embeddings have them, some of them tiny or large.
fn finite_half() -> impl Strategy<Value = f16> {
    prop_oneof![
        8 => (-1.0f32..1.0).prop_map(f16::from_f32),
        1 => (-65504.0f32..65504.0).prop_map(f16::from_f32),
        1 => (0u16..0x400).prop_map(f16::from_bits),
    ]
}

fn pair(half: impl Strategy<Value = f16> + Clone) -> impl Strategy<Value = (Vec<f16>, Vec<f16>)> {
    (0usize..2100).prop_flat_map(move |d| {
        let embedding = prop::collection::vec(half.clone(), d);
        (embedding.clone(), embedding)
    })
}

fn exact(a: &[f16], b: &[f16]) -> f64 {
    let differences = a.iter().zip(b).map(|(a, b)| a.to_f64() - b.to_f64());
    differences.map(|difference| difference * difference).sum()
}

fn check_kernels(a: &[f16], b: &[f16]) -> Result<(), TestCaseError> {
    let (expected, expected_product) = (l2_squared_scalar(a, b), inner_product_scalar(a, b));
    for kernel in available_kernels() {
        let actual = kernel.l2_squared(a, b);
        prop_assert!(same(actual, expected), "{}: {actual} is not {expected}", kernel.name());
        let actual = kernel.inner_product(a, b);
        prop_assert!(same(actual, expected_product), "{}: {actual} is not {expected_product}", kernel.name());
    }
    prop_assert!(same(simd::l2_squared(a, b), expected));
    prop_assert!(same(simd::inner_product(a, b), expected_product));
    Ok(())
}

proptest! {
    #[test]
    fn kernels_agree_to_the_bit((a, b) in pair(finite_half().boxed())) {
        check_kernels(&a, &b)?;
    }

    #[test]
    fn kernels_agree_on_any_bits((a, b) in pair(any_half().boxed())) {
        check_kernels(&a, &b)?;
    }

    /// One odd value in an otherwise plain embedding, so that not every result is NaN.
    #[test]
    fn kernels_agree_on_one_odd_value(
        (mut a, b) in pair(finite_half().boxed()),
        odd in prop_oneof![Just(f16::NAN), Just(f16::INFINITY), Just(f16::NEG_INFINITY), Just(f16::MAX)],
        position in any::<prop::sample::Index>(),
    ) {
        if !a.is_empty() {
            let position = position.index(a.len());
            a[position] = odd;
        }
        check_kernels(&a, &b)?;
    }

    /// Embeddings inside a page start at any even address.
    #[test]
    fn kernels_take_unaligned_values((a, b) in pair(finite_half().boxed()), skip_a in 0usize..32, skip_b in 0usize..32) {
        let a = &a[skip_a.min(a.len())..];
        let b = &b[skip_b.min(b.len())..];
        let d = a.len().min(b.len());
        check_kernels(&a[..d], &b[..d])?;
    }

    #[test]
    fn close_to_the_exact_sum((a, b) in pair(finite_half().boxed())) {
        let bound = (a.len() as f64 / 64.0 + 10.0) * 2f64.powi(-24);
        let (actual, expected) = (f64::from(simd::l2_squared(&a, &b)), exact(&a, &b));
        prop_assert!((actual - expected).abs() <= bound * expected, "{actual} is not {expected}");
    }

    #[test]
    fn close_to_the_exact_product((a, b) in pair(finite_half().boxed())) {
        let products = || a.iter().zip(&b).map(|(a, b)| a.to_f64() * b.to_f64());
        let length = |v: &[f16]| v.iter().map(|v| v.to_f64().powi(2)).sum::<f64>().sqrt();
        let bound = (a.len() as f64 / 64.0 + 10.0) * 2f64.powi(-24) * length(&a) * length(&b);
        let (actual, expected) = (f64::from(simd::inner_product(&a, &b)), products().sum::<f64>());
        prop_assert!((actual - expected).abs() <= bound, "{actual} is not {expected}");
    }

    #[test]
    fn symmetric_and_zero_to_itself((a, b) in pair(finite_half().boxed())) {
        prop_assert!(same(simd::l2_squared(&a, &b), simd::l2_squared(&b, &a)));
        prop_assert!(same(simd::l2_squared(&a, &a), 0.0));
    }

    #[test]
    fn halves_survive_single_precision(halves in prop::collection::vec(any_half(), 0..300)) {
        let back = simd::to_f16(&simd::to_f32(&halves));
        prop_assert!(halves.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())));
    }

    #[test]
    fn rounds_to_the_nearest_half(values in prop::collection::vec(-65504.0f32..65504.0, 0..300)) {
        let back = simd::to_f32(&simd::to_f16(&values));
        for (value, back) in values.iter().zip(back) {
            // Half a unit in the last of 11 binary places, or of the smallest subnormal.
            prop_assert!((value - back).abs() <= (value.abs() / 2048.0).max(2f32.powi(-25)));
        }
    }
}

#[test]
fn scalar_kernel_is_always_there() {
    let names: Vec<_> = available_kernels().iter().map(Kernel::name).collect();
    assert_eq!(names.last(), Some(&"scalar"));
    assert!(names.contains(&simd::kernel_name()));
    assert!(names.len() == 1 || simd::kernel_name() != "scalar");
}

/// Two lanes differ by a value that the other order of additions would lose.
#[test]
fn partial_sums_are_added_in_the_stated_order() {
    let mut a = vec![f16::ZERO; 128];
    let zero = a.clone();
    a[0] = f16::from_f32(4096.0);
    // Each of these squares is half a unit in the last place of the first one's, so alone it is rounded away.
    a[1] = f16::ONE;
    a[33] = f16::ONE;
    assert_eq!(simd::l2_squared(&a, &zero), 16_777_218.0);
    a[33] = f16::ZERO;
    a[64] = f16::ONE;
    assert_eq!(simd::l2_squared(&a, &zero), 16_777_216.0);
}
