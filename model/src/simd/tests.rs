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
        // An odd number of groups, and the reach is one of the bounds.
        let mut random = |count: usize, each: usize, top: u8| -> Vec<u8> {
            (0..count * each).map(|i| if i % each == each - 1 { top } else { rng.gen_range(0..=255) }).collect()
        };
        let base = random(blocks * GROUP, 4, 63);
        let coarse: [Vec<u8>; 2 + RESTS] = std::array::from_fn(|_| random(blocks * GROUP, 2, 62));
        let [scale, error, rest @ ..] = coarse.each_ref().map(|coarse| coarse.as_chunks().0);
        let codes_of_groups: Vec<u8> = (0..blocks * GROUP * BLOCK_BYTES).map(|_| rng.gen_range(0..=255)).collect();
        let rows = NearRows { codes: codes_of_groups.as_chunks().0, base: base.as_chunks().0, scale, error, rest };
        let rest = std::array::from_fn(|_| rng.gen_range(0.0..1.0));
        let terms = NearTerms { squared: 1.5, step: 1e-3, off: 0.1, error: 0.3, rest };
        let within = |kernel: &Kernel, reach: f32| {
            let mut within = Within::new(blocks * GROUP);
            let found = kernel.near_within(&near, &terms, &rows, reach, &mut within);
            let bits: Vec<u32> = within.bounds[..found].iter().map(|bound| bound.to_bits()).collect();
            (within.rows[..found].to_vec(), bits)
        };
        let scalar_kernel = *available_kernels().last().unwrap();
        let all = within(&scalar_kernel, f32::INFINITY);
        assert_eq!(all.0, (0..(blocks * GROUP) as u32).collect::<Vec<_>>());
        let reach = f32::from_bits(all.1[blocks * GROUP / 2]);
        let near_enough = |bits: &u32| f32::from_bits(*bits) <= reach;
        let (rows_within, bounds_within): (Vec<u32>, Vec<u32>) =
            all.0.iter().zip(&all.1).filter(|(_, bits)| near_enough(bits)).map(|(row, bits)| (*row, *bits)).unzip();
        for kernel in available_kernels() {
            assert_eq!(kernel.dot(&a, &b).to_bits(), scalar::dot(&a, &b).to_bits(), "{kernel:?}");
            let expected = scalar::l2_squared_mixed(&a, &halves).to_bits();
            assert_eq!(kernel.l2_squared_mixed(&a, &halves).to_bits(), expected, "{kernel:?}");
            assert_eq!(within(&kernel, f32::INFINITY), all, "{kernel:?}");
            assert_eq!(within(&kernel, reach), (rows_within.clone(), bounds_within.clone()), "{kernel:?}");
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
