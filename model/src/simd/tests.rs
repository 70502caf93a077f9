use super::*;
use ndarray_rand::rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256Plus;

#[test]
fn kernels_agree_to_the_bit() {
    let mut rng = Xoshiro256Plus::seed_from_u64(1);
    for blocks in [1, 2, 3, 8, 17] {
        let d = blocks * BLOCK;
        let a: Vec<f32> = (0..d).map(|_| rng.gen_range(-1.0..1.0)).collect();
        let b: Vec<f32> = (0..d).map(|_| rng.gen_range(-1.0..1.0)).collect();
        let halves: Vec<f16> = b.iter().map(|b| f16::from_f32(*b)).collect();
        let query: Vec<i16> = (0..d).map(|_| rng.gen_range(-32767..=32767)).collect();
        let codes: Vec<u8> = (0..d / 2).map(|_| rng.gen_range(0..=255)).collect();
        let near: [i8; BLOCK] = std::array::from_fn(|_| rng.gen_range(-127..=127));
        let group: [u8; GROUP * BLOCK_BYTES] = std::array::from_fn(|_| rng.gen_range(0..=255));
        let numbers: [u8; 4 * GROUP] = std::array::from_fn(|i| if i % 4 == 3 { 63 } else { rng.gen_range(0..=255) });
        let coarse: [u8; 2 * GROUP] = std::array::from_fn(|i| if i % 2 == 1 { 62 } else { rng.gen_range(0..=255) });
        let rows = NearRows { codes: &group, base: &numbers, scale: &coarse, error: &coarse, rest: [&coarse; RESTS] };
        let rest = std::array::from_fn(|_| rng.gen_range(0.0..1.0));
        let terms = NearTerms { squared: 1.5, step: 1e-3, off: 0.1, error: 0.3, rest };
        let bounds = scalar::near_bounds(&near, &terms, &rows).map(f32::to_bits);
        for kernel in available_kernels() {
            assert_eq!(kernel.dot(&a, &b).to_bits(), scalar::dot(&a, &b).to_bits(), "{kernel:?}");
            let expected = scalar::l2_squared_mixed(&a, &halves).to_bits();
            assert_eq!(kernel.l2_squared_mixed(&a, &halves).to_bits(), expected, "{kernel:?}");
            assert_eq!(kernel.near_bounds(&near, &terms, &rows).map(f32::to_bits), bounds, "{kernel:?}");
            assert_eq!(kernel.code_dot(&query, &codes), scalar::code_dot(&query, &codes), "{kernel:?}");
        }
        let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!((f64::from(scalar::dot(&a, &b)) - exact).abs() < 1e-5 * d as f64);
    }
}

#[test]
fn near_dots_are_those_of_single_rows() {
    let mut query = [0i8; BLOCK];
    query[5] = 3;
    let mut codes = [0u8; GROUP * BLOCK_BYTES];
    // Channel 5 is the second of the high halves of the first four bytes; row 2 follows two rows of four bytes.
    codes[2 * 4 + 1] = 7 << 4;
    assert_eq!(scalar::near_dots(&query, &codes), [0, 0, 21, 0, 0, 0, 0, 0]);
}
